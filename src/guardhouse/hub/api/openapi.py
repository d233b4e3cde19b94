"""The route table as an OpenAPI 3.1 document: what it says is what the door enforces. Pure. Runs in the hub."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import msgspec

from guardhouse import __version__
from guardhouse.hub.api.browser import cookie_name
from guardhouse.hub.api.door import Route
from guardhouse.hub.api.errors import ErrorReply
from guardhouse.hub.api.schemas import NoQuery
from guardhouse.hub.authorize import Access

__all__ = ["openapi_document"]

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
    paths: dict[str, dict[str, object]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
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


def _operation(route: Route) -> dict[str, object]:
    operation: dict[str, object] = {
        "operationId": f"{route.handler.__name__}{'_seed' if route.path == '/health' else ''}",
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
