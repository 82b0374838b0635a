"""The routes find what Werkzeug's map of the same paths finds, and nothing else."""

from __future__ import annotations

import itertools

import pytest
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule

from abstractgateway_http.route_tree import RouteTree
from abstractgateway_http.routes import ROUTES

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
VALUES = ("r1", "start", "ledger", "a b", "ä", "%2F", "..", "batch", "")


TREE = RouteTree(ROUTES)
RULES = [
    Rule(route.path.replace("{", "<").replace("}", ">"), methods=[route.method], endpoint=route) for route in ROUTES
]
MAP = Map(RULES, merge_slashes=False, redirect_defaults=False).bind("gateway")


def mapped(method, path):
    """Return what Werkzeug finds, and the methods that it knows at the path."""
    try:
        return MAP.match(path, method), {method}
    except MethodNotAllowed as error:
        return None, set(error.valid_methods)
    except NotFound:
        return None, set()


def paths(template: str):
    """Return paths made of a template with each of the values in its places, and a few that are almost it."""
    places = template.count("{")
    for values in itertools.islice(itertools.product(VALUES, repeat=places), 40):
        path = template
        for value in values:
            begin, end = path.index("{"), path.index("}")
            path = path[:begin] + value + path[end + 1 :]
        yield from (path, path + "/", path + "/x", "/" + path)


@pytest.mark.parametrize("template", sorted({route.path for route in ROUTES}))
def test_both_find_the_same(template):
    for method, path in itertools.product(METHODS, paths(template)):
        if path.startswith("//"):  # Werkzeug takes a leading slash too many for none
            assert TREE.find(method, path) is None
            continue
        found, methods = mapped(method, path)
        assert TREE.find(method, path) == found, (method, path)
        assert methods <= TREE.methods(path), (method, path)
        if found is None:
            assert TREE.methods(path) == methods, (method, path)
