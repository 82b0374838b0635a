from __future__ import annotations

import re

import pytest

from abstractgateway import __version__
from abstractgateway.runner.commands import COMMAND_TYPES
from abstractgateway_http.openapi import openapi_bytes, openapi_document, statuses_of
from abstractgateway_http.routes import ROUTES

HTTP_METHODS = {"get", "post", "put", "delete"}


@pytest.fixture
def document(ask):
    return ask("GET", "/openapi.json", "Authorization: none").json


def operations(document):
    return [(path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()]


def references(value):
    if isinstance(value, dict):
        yield from ([value["$ref"]] if "$ref" in value else [])
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_the_document_names_the_gateway_its_version_and_its_bearer_scheme(document):
    assert document["openapi"] == "3.1.0"
    assert document["info"] == {"title": "AbstractGateway", "version": __version__}
    assert document["components"]["securitySchemes"] == {"gatewayBearerAuth": {"type": "http", "scheme": "bearer"}}


def test_every_listed_route_is_an_operation(document):
    found = {(method.upper(), path) for path, method, _ in operations(document)}

    assert found == {(route.method, route.path) for route in ROUTES if route.is_listed}


def test_operations_below_the_gateway_path_need_the_token_and_the_others_do_not(document):
    secured = {path: operation.get("security") for path, _, operation in operations(document)}

    needed = {path for path, security in secured.items() if security == [{"gatewayBearerAuth": []}]}

    assert needed == {path for path in secured if path.startswith("/api/gateway") or path == "/metrics"}
    assert all(security is None for path, security in secured.items() if path not in needed)


def test_operation_ids_are_unique(document):
    ids = [operation["operationId"] for _, _, operation in operations(document)]

    assert len(set(ids)) == len(ids)


def test_every_reference_leads_to_a_schema(document):
    wanted = set(references(document))

    assert wanted <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_the_names_in_a_path_are_its_path_parameters(document):
    for path, _, operation in operations(document):
        declared = [item["name"] for item in operation["parameters"] if item["in"] == "path"]
        assert declared == re.findall(r"\{(\w+)\}", path)


def test_every_field_of_a_route_is_described(document):
    told = {
        (operation["operationId"], item["name"]): item.get("description")
        for _, _, operation in operations(document)
        for item in operation["parameters"]
        if item["in"] != "path"
    }
    bodies = {
        (operation["operationId"], name): part.get("description")
        for _, _, operation in operations(document)
        for content in operation.get("requestBody", {}).get("content", {}).values()
        for name, part in content["schema"]["properties"].items()
    }

    assert [name for name, text in {**told, **bodies}.items() if not text] == []


def test_bounds_and_defaults_of_a_field_are_those_of_its_reader(document):
    parameters = document["paths"]["/api/gateway/runs"]["get"]["parameters"]

    limit = next(item for item in parameters if item["name"] == "limit")

    assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}


def test_every_operation_tells_all_statuses_it_may_answer_with(document):
    told = {operation["operationId"]: set(operation["responses"]) for _, _, operation in operations(document)}

    expected = {
        route.handler.__name__: {str(answer.status) for answer in route.answers}
        | {str(status) for status in statuses_of(route)}
        for route in ROUTES
        if route.is_listed
    }

    assert told == expected


def test_the_command_types_of_the_document_are_those_that_the_gateway_knows(document):
    body = document["paths"]["/api/gateway/commands"]["post"]["requestBody"]["content"]["application/json"]

    assert tuple(body["schema"]["properties"]["type"]["enum"]) == tuple(COMMAND_TYPES)


def test_the_document_is_made_once():
    assert openapi_bytes(ROUTES) is openapi_bytes(ROUTES)


def test_every_operation_has_a_summary_and_only_known_methods():
    found = operations(openapi_document(ROUTES))

    assert {method for _, method, _ in found} <= HTTP_METHODS
    assert all(operation["summary"].endswith(".") for _, _, operation in found)


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/plain", "/docs/page.js", "/docs/swagger.js"])
def test_the_description_is_refused_for_a_foreign_host(ask, path):
    assert ask("GET", path, "Host: evil.example").status == 403


def test_routes_are_grouped_and_every_group_says_what_it_is_about(document):
    described = {group["name"]: group["description"] for group in document["tags"]}
    used = {operation["tags"][0]: path for path, _, operation in operations(document)}

    assert described.keys() == used.keys()
    assert all(re.fullmatch(r"[^:\n]+: [^\n]+\.", about) for about in described.values())
    probes = [path for path, _, operation in operations(document) if operation["tags"] == ["process"]]
    assert probes == ["/api/health", "/api/gateway/ping", "/livez", "/readyz", "/metrics"]


def test_a_default_has_the_type_of_its_input(document):
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list}
    for path, method, operation in operations(document):
        for parameter in operation["parameters"]:
            schema = parameter["schema"]
            if "default" in schema:
                assert isinstance(schema["default"], kinds[schema["type"]]), (path, method, parameter["name"])
