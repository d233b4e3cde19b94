"""The route table as an OpenAPI 3.1 document: what it says is what the door enforces. Pure. Runs in the hub."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final, get_args

import msgspec

from guardhouse import __version__
from guardhouse.hub.api.browser import cookie_name
from guardhouse.hub.api.door import Route
from guardhouse.hub.api.errors import ErrorReply
from guardhouse.hub.api.schemas import NoQuery
from guardhouse.hub.authorize import Access

__all__ = ["openapi_document"]

# The statuses whose answers hold an id that leads on.
_LINKED: Final = ("200", "201", "202")
_REF: Final = "#/components/schemas/{name}"
_DESCRIPTION: Final = (
    "Environments are places where commands run; tasks are the commands. Send 'Authorization: Bearer ght_…', or the"
    " cookie of a sign-in, with which a changing request must come from the hub's own pages."
    " Every answer that is no success has the shape of ErrorReply."
)


def openapi_document(routes: Iterable[Route], *, server_url: str) -> dict[str, object]:
    """Return the document of ``routes``."""
    routes = list(routes)
    kinds: dict[Any, None] = {ErrorReply: None}
    for route in routes:
        for kind in (route.body, *route.replies.values()):
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                kinds[kind] = None
    _, components = msgspec.json.schema_components(list(kinds), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = _operation(route)
        links = _links(route, routes)
        if links:
            for status, reply in operation["responses"].items():
                if status in _LINKED:
                    reply["links"] = links
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Guardhouse hub", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": server_url}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "ght_"},
                "signIn": {"type": "apiKey", "in": "cookie", "name": cookie_name(server_url)},
            },
        },
    }


def _operation_id(route: Route) -> str:
    return f"{route.handler.__name__}{'_seed' if route.path == '/health' else ''}"


def _links(route: Route, routes: list[Route]) -> dict[str, object]:
    """Return where the id in a route's answer leads: from what makes or lists things to what is about one of them."""
    kind = next((kind for status, kind in route.replies.items() if str(status) in _LINKED), None)
    if route.method not in {"GET", "POST"} or not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return {}
    found: dict[str, object] = {}
    for other in routes:
        parameter = re.match(re.escape(route.path) + r"/\{(\w+)\}", other.path)
        pointer = _id_pointer(kind, parameter[1]) if parameter is not None else None
        if parameter is not None and pointer is not None and other is not route:
            expression = f"$response.body#{pointer}"
            found[_operation_id(other)] = {
                "operationId": _operation_id(other),
                "parameters": {f"path.{parameter[1]}": expression},
            }
    return found


def _id_pointer(kind: type[msgspec.Struct], name: str) -> str | None:
    """Return where in an answer of ``kind`` the id of a ``name`` is, as a JSON pointer; None where it is not."""
    types = {one.encode_name: one.type for one in msgspec.structs.fields(kind)}
    if "id" in types:
        return "/id"
    wrapped = types.get(name)
    if isinstance(wrapped, type) and issubclass(wrapped, msgspec.Struct) and "id" in wrapped.__struct_fields__:
        return f"/{name}/id"
    for plural in (f"{name}s", "people" if name == "person" else f"{name}s"):
        items = get_args(types.get(plural))
        if items and isinstance(items[0], type) and "id" in getattr(items[0], "__struct_fields__", ()):
            return f"/{plural}/0/id"
    return None


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "description": (route.handler.__doc__ or "").strip(),
        "tags": [route.tag],
        "parameters": [*_path_parameters(route.path), *_query_parameters(route)],
        "responses": _responses(route),
        "security": [] if route.access is Access.PUBLIC else [{"token": []}, {"signIn": []}],
        "x-access": route.access.value,
        "x-concern": route.concern.value,
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": False,
            "content": {"application/json": {"schema": {"$ref": _REF.format(name=route.body.__name__)}}},
        }
    if route.streams_body:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    return operation


def _path_parameters(path: str) -> list[dict[str, object]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _query_parameters(route: Route) -> list[dict[str, object]]:
    if route.query is NoQuery:
        return []
    _, components = msgspec.json.schema_components([route.query], ref_template=_REF)
    properties = components[route.query.__name__]["properties"]
    # An absent parameter is the null of a query: it cannot be written.
    return [{"name": name, "in": "query", "schema": _without_null(schema)} for name, schema in properties.items()]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    schema = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    if "anyOf" in schema:
        rest = [one for one in schema.pop("anyOf") if one.get("type") != "null"]
        return {**rest[0], **schema} if len(rest) == 1 else {"anyOf": rest, **schema}
    if isinstance(schema.get("enum"), list):
        schema["enum"] = [value for value in schema["enum"] if value is not None]
    return schema


def _responses(route: Route) -> dict[str, object]:
    found: dict[str, object] = {}
    for status, kind in route.replies.items():
        reply: dict[str, object] = {"description": HTTPStatus(status).phrase}
        if kind is not None:
            is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
            schema = {"$ref": _REF.format(name=kind.__name__)} if is_struct else _plain_schema(kind)
            reply["content"] = {route.media_type: {"schema": schema}}
        found[str(status)] = reply
    errors = {500, 503, *route.errors}
    if route.query is not NoQuery or route.body is not None:
        errors.add(400)
    if route.body is not None:
        errors |= {408, 413, 415}
    if route.access is not Access.PUBLIC:
        errors |= {401, 403, 429}
    for status in sorted(errors - set(route.replies)):
        found[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": {"$ref": _REF.format(name="ErrorReply")}}},
        }
    return found


def _plain_schema(kind: Any) -> dict[str, object]:
    return {"type": "object"} if kind is dict else {"type": "string"}
