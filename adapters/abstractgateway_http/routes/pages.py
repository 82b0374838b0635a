"""The pages that describe the routes: Swagger UI where it is installed, and a page of our own."""

from __future__ import annotations

from werkzeug.wrappers import Response

from abstractgateway.errors import NotFound

from ..console import FAVICON, UI_SCRIPT, UI_STYLE, asset, find_swagger
from ..render import PAGE_POLICY, PAGE_POLICY_WITH_IMAGES, file_answer, page_answer
from ..route import Answer, Call, Handler, Route
from ..shapes import TEXT

HTML = "text/html; charset=utf-8"
SCRIPT = "text/javascript; charset=utf-8"
STYLE = "text/css; charset=utf-8"


def docs(call: Call) -> Response:
    """Show every route, with forms that try them: in Swagger UI with the extra `docs`, else as `/docs/plain` does."""
    return plain(call) if find_swagger() is None else page_answer(asset("swagger.html"), HTML, PAGE_POLICY_WITH_IMAGES)


def plain(call: Call) -> Response:
    """Show every route on a page of our own, with forms that try them."""
    return page_answer(asset("page.html"), HTML, PAGE_POLICY)


def plain_script(call: Call) -> Response:
    """Return the script of the plain page."""
    return page_answer(asset("page.js"), SCRIPT, PAGE_POLICY)


def plain_style(call: Call) -> Response:
    """Return the style sheet of the plain page."""
    return page_answer(asset("page.css"), STYLE, PAGE_POLICY)


def swagger_start(call: Call) -> Response:
    """Return the script that starts Swagger UI."""
    return page_answer(asset("swagger.js"), SCRIPT, PAGE_POLICY)


def swagger_script(call: Call) -> Response:
    """Return the script of Swagger UI, with the extra `docs`."""
    return _of_swagger(call, UI_SCRIPT, SCRIPT)


def swagger_style(call: Call) -> Response:
    """Return the style sheet of Swagger UI, with the extra `docs`."""
    return _of_swagger(call, UI_STYLE, STYLE)


def swagger_icon(call: Call) -> Response:
    """Return the icon of Swagger UI, with the extra `docs`."""
    return _of_swagger(call, FAVICON, "image/png")


def _of_swagger(call: Call, name: str, content_type: str) -> Response:
    directory = find_swagger()
    if directory is None:
        raise NotFound("Swagger UI is not installed; it comes with the extra `docs`")
    return file_answer(call.request, directory / name, content_type)


def _page(path: str, handler: Handler, *refusals: int) -> Route:
    answers = (Answer("The file.", TEXT, "text/html"),)
    return Route("GET", path, handler, answers, refusals=refusals, needs_token=False, is_listed=False)


ROUTES: tuple[Route, ...] = (
    _page("/docs", docs),
    _page("/redoc", docs),
    _page("/docs/plain", plain),
    _page("/docs/page.js", plain_script),
    _page("/docs/page.css", plain_style),
    _page("/docs/swagger.js", swagger_start),
    _page(f"/docs/{UI_SCRIPT}", swagger_script, 404, 412),
    _page(f"/docs/{UI_STYLE}", swagger_style, 404, 412),
    _page(f"/docs/{FAVICON}", swagger_icon, 404, 412),
)
