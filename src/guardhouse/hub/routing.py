"""Which row of the route table serves an HTTP request: found by method and path, not by trying every row.

Starlette tries its routes one by one, which for the hub's table cost a task more than its authorization. What no row
serves (a wrong path, a wrong method) is left to Starlette. Knows no route. Runs in the hub.
"""

from collections import defaultdict
from collections.abc import Sequence

from starlette.routing import Match, Route
from starlette.types import Scope

__all__ = ["RouteIndex"]


class RouteIndex:
    """Routes by method and by how many parts their path has; those without a name in their path by the path itself."""

    def __init__(self, routes: Sequence[Route]) -> None:
        """Take ``routes``, of which the first that matches serves a request; a name in a path stands for one part."""
        self._by_parts: dict[tuple[str, int], list[Route]] = defaultdict(list)
        self._by_path: dict[tuple[str, str], Route] = {}
        for route in routes:
            for method in route.methods or ():
                self._by_parts[method, route.path.count("/")].append(route)
        for route in routes:
            for method in route.methods or ():
                if (
                    "{" not in route.path
                    and self._first({"type": "http", "method": method, "path": route.path}) is route
                ):
                    self._by_path[method, route.path] = route

    def find(self, scope: Scope) -> Route | None:
        """Return the route that Starlette would choose, and put what its path's names stand for into ``scope``."""
        if scope.get("root_path"):
            return None
        route = self._by_path.get((scope["method"], scope["path"]))
        if route is not None:
            scope["path_params"] = {}
            return route
        return self._first(scope)

    def _first(self, scope: Scope) -> Route | None:
        for route in self._by_parts.get((scope["method"], scope["path"].count("/")), ()):
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                return route
        return None
