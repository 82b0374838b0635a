from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from abstractgateway_http.console import find_swagger

OF_PACKAGE = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
OPEN = "Authorization: none"
LOADED = re.compile(r'(?:src|href)="([^"]+)"')


@pytest.fixture
def swagger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory with the files of a package in the form of Swagger UI's, which must not be imported."""
    package = tmp_path / "swagger_ui_bundle"
    directory = package / "vendor" / "swagger-ui-4.15.5"
    directory.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    for name in (*OF_PACKAGE, "swagger-ui.js"):
        (directory / name).write_text(f"the content of {name}")
    monkeypatch.delitem(sys.modules, "swagger_ui_bundle", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return directory


@pytest.fixture
def no_swagger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "swagger_ui_bundle", None)


def loaded_by(ask, path: str) -> dict[str, str]:
    """Return the addresses in a page, with the types of what is there."""
    found = LOADED.findall(ask("GET", path, OPEN).body.decode())
    return {address: ask("GET", address, OPEN).headers["content-type"] for address in found}


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_with_the_package_the_page_is_swagger_ui_and_loads_nothing_from_elsewhere(ask, swagger, path):
    assert loaded_by(ask, path) == {
        **{f"/docs/{name}": kind for name, kind in OF_PACKAGE.items()},
        "/docs/swagger.js": "text/javascript; charset=utf-8",
        "/docs/plain": "text/html; charset=utf-8",
    }
    assert b"://" not in ask("GET", path, OPEN).body + ask("GET", "/docs/swagger.js", OPEN).body


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/plain"])
def test_without_the_package_the_page_is_the_plain_one(ask, no_swagger, path):
    assert loaded_by(ask, path) == {
        "/docs/page.css": "text/css; charset=utf-8",
        "/docs/page.js": "text/javascript; charset=utf-8",
        "/openapi.json": "application/json",
    }


def test_the_plain_page_is_there_in_both_cases(ask, swagger, monkeypatch):
    beside_swagger = ask("GET", "/docs/plain", OPEN).body
    monkeypatch.setitem(sys.modules, "swagger_ui_bundle", None)

    assert beside_swagger == ask("GET", "/docs/plain", OPEN).body == ask("GET", "/docs", OPEN).body


@pytest.mark.parametrize("path", ["/docs", "/docs/plain"])
def test_a_page_runs_scripts_of_this_server_only(ask, swagger, path):
    page = ask("GET", path, OPEN)
    policy = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    html = page.body.decode()

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert policy.pop("img-src", "") == ("'self' data: blob:" if path == "/docs" else "")
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", html)


@pytest.mark.parametrize("name", OF_PACKAGE)
def test_the_files_of_the_package_are_served_as_they_are(ask, swagger, name):
    answer = ask("GET", f"/docs/{name}", OPEN)
    head = ask("HEAD", f"/docs/{name}", OPEN, has_body=False)

    assert (answer.status, answer.body) == (200, (swagger / name).read_bytes())
    assert head.status == 200
    for header in ("content-type", "content-length", "etag", "content-security-policy", "x-content-type-options"):
        assert head.headers[header] == answer.headers[header]


def test_a_file_is_sent_again_only_when_it_changed(ask, swagger):
    path = "/docs/swagger-ui.css"
    tag = ask("GET", path, OPEN).headers["etag"]

    again = ask("GET", path, OPEN, f"If-None-Match: {tag}", has_body=False)
    (swagger / "swagger-ui.css").write_text("of a newer version")
    changed = ask("GET", path, OPEN, f"If-None-Match: {tag}")

    assert (again.status, again.headers["etag"], again.headers["cache-control"]) == (304, tag, "no-cache")
    assert (changed.status, changed.body) == (200, b"of a newer version")
    assert ask("GET", path, OPEN, f"If-Match: {tag}").json["code"] == "precondition_failed"


@pytest.mark.parametrize("name", OF_PACKAGE)
def test_without_the_package_its_files_are_not_found(ask, no_swagger, name):
    answer = ask("GET", f"/docs/{name}", OPEN)

    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert "extra `docs`" in answer.json["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/docs/swagger-ui.js",
        "/docs/swagger-ui-bundle.js/x",
        "/docs/../swagger_ui_bundle/__init__.py",
        "/docs/..%2f..%2f__init__.py",
        "/docs/%2e%2e/%2e%2e/__init__.py",
        "/docs//swagger-ui.js",
        "/docs/swagger-ui.css%00",
    ],
)
def test_no_other_file_of_the_package_is_served(ask, swagger, path):
    assert ask("GET", path).status in {400, 404}
    assert ask("GET", path, OPEN).status in {400, 401}


@pytest.mark.parametrize("path", ["/docs", "/docs/plain", "/docs/swagger-ui-bundle.js"])
def test_a_page_takes_reads_only(ask, swagger, path):
    answer = ask("POST", path, "Content-Length: 0")

    assert answer.status == 405
    assert answer.headers["allow"].replace(" ", "").split(",") == ["GET", "HEAD"]


@pytest.mark.parametrize("missing", OF_PACKAGE)
def test_a_package_that_lacks_a_file_is_as_good_as_none(ask, swagger, missing):
    (swagger / missing).unlink()

    assert find_swagger() is None
    assert b"/docs/page.js" in ask("GET", "/docs", OPEN).body


@pytest.mark.skipif(find_spec("swagger_ui_bundle") is None, reason="the extra `docs` is not installed")
def test_the_package_of_the_extra_is_found_and_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "swagger_ui_bundle", raising=False)

    directory = find_swagger()

    assert directory is not None and directory.name.startswith("swagger-ui-")
    assert "swagger_ui_bundle" not in sys.modules
