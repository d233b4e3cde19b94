"""A request is served by the row that Starlette would choose, whichever way the row is found."""

import pytest
from starlette.routing import Match, Route

from guardhouse.hub.api.routes import ROUTES
from guardhouse.hub.routing import RouteIndex


async def _nothing(scope: object, receive: object, send: object) -> None:
    """Stand for a door; never called here."""


class _Endpoint:
    __call__ = staticmethod(_nothing)


TABLE = [Route(row.path, _Endpoint(), methods=[row.method], name=row.path) for row in ROUTES]
INDEX = RouteIndex(TABLE)


def _starlettes_choice(scope: dict[str, object]) -> tuple[Route | None, dict[str, str]]:
    for route in TABLE:
        match, found = route.matches(scope)
        if match is Match.FULL:
            return route, found["path_params"]
    return None, {}


def test_each_row_is_found_as_starlette_finds_it() -> None:
    """Every method at every path of the table, names filled in with a word that is a path's part elsewhere."""
    methods = sorted({row.method for row in ROUTES} | {"HEAD", "TRACE"})
    for row in ROUTES:
        for word in ("env_1", "export"):
            parts = (word if part.startswith("{") else part for part in row.path.split("/"))
            path = "/".join(parts)
            for method in methods:
                scope: dict[str, object] = {"type": "http", "method": method, "path": path}
                expected, names = _starlettes_choice(dict(scope))
                assert INDEX.find(scope) is expected, f"{method} {path}"
                if expected is not None:
                    assert scope["path_params"] == names, f"{method} {path}"


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param({"method": "GET", "path": "/api/v1/nothing"}, id="no such path"),
        pytest.param({"method": "GET", "path": "/api/v1/tasks/"}, id="a slash too many"),
        pytest.param({"method": "GET", "path": "/api/v1/tasks/a/b/c/d"}, id="parts too many"),
        pytest.param({"method": "GET", "path": "/api/v1/tasks", "root_path": "/api"}, id="mounted elsewhere"),
    ],
)
def test_what_no_row_serves_is_left_to_starlette(scope: dict[str, object]) -> None:
    """The index answers None; Starlette then says 404 or 405, or serves what is mounted."""
    assert INDEX.find({"type": "http", **scope}) is None
