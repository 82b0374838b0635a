"""`/openapi.json`: the route table as an OpenAPI 3.1 document."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from abstractgateway import __version__, jsonvalue

from .fields import Field
from .route import Answer, Route
from .shapes import COMPONENTS, named

BEARER = "gatewayBearerAuth"

_STATUS_TEXTS = {
    400: "A value is understood and not acceptable.",
    401: "The token is missing or wrong.",
    403: "The host, the origin or the caller is not allowed.",
    404: "What is named does not exist.",
    409: "What is named is not in the state that this needs.",
    412: "It is not what `If-Match` names.",
    413: "The body is too large.",
    414: "Path and query are too long.",
    415: "The body is of another content type.",
    416: "The range lies outside the content.",
    422: "Fields are missing or wrong; `detail` lists them.",
    429: "Too many wrong tokens, or too much at once; try again after `Retry-After` seconds.",
    500: "The gateway failed; its log has the reason under the request id.",
    501: "This is not configured.",
    503: "The gateway cannot do this now.",
}
_PATH_NAME = re.compile(r"\{(\w+)\}")


@lru_cache(maxsize=4)
def openapi_bytes(routes: tuple[Route, ...]) -> bytes:
    """Return the document of a route table as JSON; it is made once."""
    return jsonvalue.dumps(openapi_document(routes))


def openapi_document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document of a route table; pages for people are not in it."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.is_listed:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "AbstractGateway", "version": __version__},
        "tags": [{"name": name, "description": about} for name, about in _groups(routes).items()],
        "paths": paths,
        "components": {
            "securitySchemes": {BEARER: {"type": "http", "scheme": "bearer"}},
            "schemas": dict(COMPONENTS),
        },
    }


def statuses_of(route: Route) -> tuple[int, ...]:
    """Return every status that a refusal of the route may have."""
    found = {403, 414, 429, 500, *route.refusals}
    found |= {401, 503} if route.needs_token else set()
    found |= {413, 415, 422} if route.body is not None else set()
    found |= {422} if route.query or route.headers else set()
    return tuple(sorted(found))


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "tags": [_group_of(route)],
        "parameters": list(_parameters(route)),
        "responses": _responses(route),
    }
    if route.body is not None:
        kind = "multipart/form-data" if route.is_form else "application/json"
        content = {kind: {"schema": _body_schema(route.body)}}
        operation["requestBody"] = {"required": not route.may_lack_body, "content": content}
    if route.needs_token:
        operation["security"] = [{BEARER: []}]
    return operation


def _group_of(route: Route) -> str:
    """Return the name of what a route is about: that of the module that has it."""
    return route.handler.__module__.rpartition(".")[2]


def _groups(routes: Sequence[Route]) -> dict[str, str]:
    """Return what the modules of the listed routes say they are about, in the order of the table."""
    modules = {_group_of(route): sys.modules[route.handler.__module__] for route in routes if route.is_listed}
    return {name: (module.__doc__ or "").partition("\n")[0] for name, module in modules.items()}


def _parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in _PATH_NAME.findall(route.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    for place, fields in (("query", route.query), ("header", route.headers)):
        for field in fields:
            yield {
                "name": field.name,
                "in": place,
                "required": field.required,
                "description": field.about,
                "schema": _field_schema(field),
            }


def _body_schema(fields: Sequence[Field]) -> dict[str, Any]:
    properties = {field.name: {**_field_schema(field), "description": field.about} for field in fields}
    required = [field.name for field in fields if field.required]
    schema = {"type": "object", "properties": properties}
    return {**schema, "required": required} if required else schema


def _field_schema(field: Field) -> dict[str, Any]:
    schema = dict(field.reader.schema)
    if field.nullable:
        return {"anyOf": [schema, {"type": "null"}]}
    default = None if field.required else field.default()
    return {**schema, "default": default} if default is not None else schema


def _responses(route: Route) -> dict[str, Any]:
    answers = {str(answer.status): _response(answer) for answer in route.answers}
    content = {"application/json": {"schema": named("Error")}}
    refusals = {
        str(status): {"description": _STATUS_TEXTS[status], "content": content} for status in statuses_of(route)
    }
    return {**answers, **refusals}


def _response(answer: Answer) -> dict[str, Any]:
    if answer.schema is None:
        return {"description": answer.text}
    return {"description": answer.text, "content": {answer.content_type: {"schema": answer.schema}}}
