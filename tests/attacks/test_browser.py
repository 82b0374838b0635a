"""What pages of other sites can do to a gateway on this machine, shown with a real browser.

The gateway asks for no token here, so nothing but the rules about hosts, origins and content types is in the way.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from abstractgateway_http.console import find_swagger
from tests.attacks.browser import Browser, Page, find_browser, opened_browser
from tests.attacks.target import API, Target, attacked
from tests.cli.processes import TOKEN

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium on this machine")

EVIL = "evil.example"
START = {"bundle_id": "hello", "input_data": {}}
SENT = "async (url, options) => { try { const r = await fetch(url, options); return [r.type, r.status]; }"
SENT += " catch (error) { return ['failed', error.name]; } }"

# Opens the form of a GET route, sends it, and waits until its answer is shown to the end.
CALLED = """async (path) => {
  const isIt = (shown) => shown.querySelector(".path").textContent === path;
  const route = [...document.querySelectorAll("details")].find(isIt);
  route.open = true;
  const until = async (look) => { while (!look()) await new Promise((done) => setTimeout(done, 20)); };
  await until(() => route.querySelector("form"));
  route.querySelector("form").requestSubmit();
  const answer = route.querySelector("pre");
  await until(() => /^[0-9]{3} /.test(answer.textContent));
  return answer.textContent;
}"""

# What a selector finds, as soon as it is there; for the scripts below.
FOUND = """window.found = async (within, selector) => {
  for (const until = Date.now() + 20000; Date.now() < until; await new Promise((done) => setTimeout(done, 20)))
    if (within.querySelector(selector)) return within.querySelector(selector);
  throw new Error(`there is no ${selector} in: ${document.body.innerText.slice(0, 300)}`);
}"""

# Opens a route in Swagger UI, sends it as it stands, and waits for the status of its answer.
EXECUTED = """async (path) => {
  await found(document, ".opblock");
  const isIt = (block) => block.querySelector(".opblock-summary-path").dataset.path === path;
  const route = [...document.querySelectorAll(".opblock-get")].find(isIt);
  if (!route.classList.contains("is-open")) {
    route.querySelector(".opblock-summary-control").click();
    (await found(route, ".try-out__btn")).click();
  }
  (await found(route, ".execute")).click();
  const status = await found(route, ".live-responses-table tbody .response-col_status");
  const shown = status.textContent;
  (await found(route, ".btn-clear")).click();
  return shown;
}"""
AUTHORIZED = """async (token) => {
  (await found(document, ".btn.authorize")).click();
  const input = await found(document, ".auth-container input");
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(input, token);
  input.dispatchEvent(new Event("input", { bubbles: true }));
  (await found(document, ".auth-btn-wrapper .authorize")).click();
  (await found(document, ".auth-btn-wrapper .btn-done")).click();
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def open_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A gateway that asks for no token."""
    settings = {"PROTECT_READ": "0", "PROTECT_WRITE": "0"}
    with attacked(tmp_path_factory.mktemp("attacked"), **settings) as target:
        yield target


class EmptyPages(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if self.path.endswith(".js") else "text/html")
        self.end_headers()
        self.wfile.write(b"window.evil = true" if self.path.endswith(".js") else b"<title>evil</title><body></body>")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def evil() -> Iterator[str]:
    """The address of another site."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), EmptyPages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{EVIL}:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def evil_page(browser: Browser, evil: str) -> Page:
    return browser.page().open(evil + "/")


def sent(page: Page, url: str, **options: Any) -> list[Any]:
    found: list[Any] = page.run(f"({SENT})({json.dumps(url)}, {json.dumps(options)})")
    return found


def runs(target: Target) -> list[Any]:
    status, answer = target.ask(f"{API}/runs")
    assert status == 200
    found: list[Any] = answer["items"]
    return found


def url_of(target: Target, path: str, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{target.port}{path}"


def test_the_gateway_is_open_to_who_is_not_a_page(open_gateway: Target) -> None:
    """Otherwise the refusals below would prove nothing."""
    before = len(runs(open_gateway))

    status, _ = open_gateway.ask(f"{API}/runs/start", START, token="none")

    assert status == 200
    assert len(runs(open_gateway)) == before + 1


def test_a_name_that_was_rebound_to_this_machine_reaches_nothing(browser: Browser, open_gateway: Target) -> None:
    before = runs(open_gateway)
    page = browser.page().open(url_of(open_gateway, "/docs", EVIL))

    read = sent(page, f"{API}/runs")
    written = sent(
        page, f"{API}/runs/start", method="POST", body=json.dumps(START), headers={"Content-Type": "application/json"}
    )

    assert "host_not_allowed" in page.run("document.body.innerText")
    assert [read, written] == [["basic", 403]] * 2
    assert runs(open_gateway) == before


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_simple_request_of_another_site_starts_nothing(
    evil_page: Page, open_gateway: Target, content_type: str
) -> None:
    before = runs(open_gateway)
    options = {
        "method": "POST",
        "mode": "no-cors",
        "body": json.dumps(START),
        "headers": {"Content-Type": content_type},
    }

    assert sent(evil_page, url_of(open_gateway, f"{API}/runs/start"), **options) == ["opaque", 0]

    assert runs(open_gateway) == before


def test_a_request_that_needs_leave_does_not_get_it(evil_page: Page, open_gateway: Target) -> None:
    before = runs(open_gateway)
    options = {"method": "POST", "body": json.dumps(START), "headers": {"Content-Type": "application/json"}}

    assert sent(evil_page, url_of(open_gateway, f"{API}/runs/start"), **options) == ["failed", "TypeError"]

    assert runs(open_gateway) == before


def test_a_form_of_another_site_starts_nothing(browser: Browser, evil: str, open_gateway: Target) -> None:
    before = runs(open_gateway)
    page = browser.page().open(evil + "/")
    # The body of a form in text/plain can be made to be JSON.
    name, _, value = json.dumps(START | {"x": "="}).rpartition("=")
    page.run(
        "(() => { const form = document.createElement('form'), input = document.createElement('input');"
        f"form.method = 'post'; form.enctype = 'text/plain'; form.target = 'answer';"
        f"form.action = {json.dumps(url_of(open_gateway, f'{API}/runs/start'))};"
        f"input.name = {json.dumps(name)}; input.value = {json.dumps(value)};"
        "const frame = document.createElement('iframe'); frame.name = 'answer';"
        "form.append(input); document.body.append(frame, form);"
        "return new Promise(done => { frame.onload = () => done(true); form.submit(); }); })()"
    )

    assert runs(open_gateway) == before


def test_another_site_reads_no_answer(evil_page: Page, open_gateway: Target) -> None:
    for path in (f"{API}/runs", "/api/health", "/openapi.json"):
        assert sent(evil_page, url_of(open_gateway, path)) == ["failed", "TypeError"]


def test_an_event_source_of_another_site_hears_nothing(evil_page: Page, open_gateway: Target) -> None:
    _, started = open_gateway.ask(f"{API}/runs/start", START)
    url = url_of(open_gateway, f"{API}/runs/{started['run_id']}/ledger/stream")

    heard = evil_page.run(
        f"new Promise(done => {{ const source = new EventSource({json.dumps(url)});"
        "source.onmessage = source.onopen = () => done('heard');"
        "source.addEventListener('step', () => done('heard'));"
        "source.onerror = () => { done('refused'); source.close(); }; })"
    )

    assert heard == "refused"


@pytest.mark.parametrize("frame", ["sandboxed", "data"])
def test_a_page_without_an_origin_reads_and_starts_nothing(evil_page: Page, open_gateway: Target, frame: str) -> None:
    before = runs(open_gateway)
    url = json.dumps(url_of(open_gateway, f"{API}/runs/start"))
    script = (
        f"fetch({url}, {{method: 'POST', mode: 'no-cors', body: '{{}}'}}).then(r => r.type, e => e.name)"
        f".then(a => fetch({url.replace('/start', '')}).then(r => a + r.status, e => a + ' ' + e.name))"
        ".then(a => parent.postMessage(a + ' ' + self.origin, '*'))"
    )
    html = json.dumps(f"<script>{script}</script>").replace("</", "<\\/")
    place = f"f.sandbox = 'allow-scripts'; f.srcdoc = {html};"
    if frame == "data":
        place = f"f.src = 'data:text/html,' + encodeURIComponent({html});"

    told = evil_page.run(
        "new Promise(done => { onmessage = event => done(event.data);"
        f"const f = document.createElement('iframe'); {place} document.body.append(f); }})"
    )

    assert told == "opaque TypeError null"
    assert runs(open_gateway) == before


@pytest.mark.parametrize("path", ["/docs", "/docs/plain"])
def test_a_page_of_the_routes_cannot_be_framed(
    browser: Browser, evil_page: Page, open_gateway: Target, path: str
) -> None:
    health, docs = (url_of(open_gateway, path) for path in ("/api/health", path))
    for url in (health, docs):
        evil_page.run(
            "new Promise(done => { const f = document.createElement('iframe');"
            f"f.onload = f.onerror = () => done(true); f.src = {json.dumps(url)}; document.body.append(f); }})"
        )

    shown = browser.frame_texts()
    assert "healthy" in shown[health]
    assert "AbstractGateway" not in shown[docs]


@pytest.mark.parametrize("path", ["/docs", "/docs/plain"])
def test_a_page_of_the_routes_runs_no_script_but_its_own(
    browser: Browser, evil: str, open_gateway: Target, path: str
) -> None:
    page = browser.page().open(url_of(open_gateway, path))

    page.run(
        "new Promise(done => { const inline = document.createElement('script'); inline.textContent = 'window.evil = 1';"
        "const foreign = document.createElement('script');"
        f"foreign.src = {json.dumps(evil + '/x.js')}; foreign.onload = foreign.onerror = () => done(true);"
        "document.body.append(inline, foreign); })"
    )

    assert page.run("window.evil") is None
    assert sent(page, evil + "/") == ["failed", "TypeError"]


def test_the_plain_page_lists_every_route_and_calls_one_with_the_token(browser: Browser, target: Target) -> None:
    page = browser.page().open(url_of(target, "/docs/plain"))
    _, document = target.ask("/openapi.json")
    page.run(
        "new Promise(done => { const look = () => document.querySelector('details') ? done(1) : setTimeout(look, 20);"
        "look(); })"
    )
    listed = page.run("[...document.querySelectorAll('details .path')].map(shown => shown.textContent)")

    answers = []
    for token in ("", TOKEN):
        page.run(f"document.getElementById('token').value = {json.dumps(token)}")
        page.run("document.getElementById('authorize').requestSubmit()")
        answers.append(page.run(f"({CALLED})({json.dumps(f'{API}/runs')})"))

    assert sorted(set(listed)) == sorted(document["paths"])
    assert [answer.partition(" ")[0] for answer in answers] == ["401", "200"]
    assert page.run("localStorage.length + sessionStorage.length + document.cookie.length") == 0


@pytest.mark.skipif(find_swagger() is None, reason="the extra `docs` is not installed")
def test_swagger_ui_lists_every_route_and_calls_one_with_the_token(browser: Browser, target: Target) -> None:
    page = browser.page()
    heard = page.listen("Log.enable", "Runtime.enable", "Network.enable")
    page.open(url_of(target, "/docs"))
    page.run(FOUND)
    _, document = target.ask("/openapi.json")

    answers = [page.run(f"({EXECUTED})({json.dumps(f'{API}/runs')})")]
    page.run(f"({AUTHORIZED})({json.dumps(TOKEN)})")
    answers.append(page.run(f"({EXECUTED})({json.dumps(f'{API}/runs')})"))
    listed = page.run("[...document.querySelectorAll('.opblock-summary-path')].map(shown => shown.dataset.path)")

    assert sorted(set(listed)) == sorted(document["paths"])
    assert answers == ["401", "200"]
    assert page.run("document.querySelector('tr[data-param-name=cursor] .parameter__type').textContent") == "string"
    assert page.run("document.querySelectorAll('.errors-wrapper').length") == 0
    assert page.run("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    asked = {event["params"]["request"]["url"] for event in heard if event["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith((url_of(target, "/"), "data:"))} == set()
    # The refusal without a token is the one thing that the browser itself notes.
    noted = [event["params"]["entry"] for event in heard if event["method"] == "Log.entryAdded"]
    assert [entry["source"] for entry in noted] == ["network"] and "401" in noted[0]["text"]
    assert not [event for event in heard if event["method"].startswith(("Runtime.exception", "Runtime.console"))]


@pytest.mark.skipif(find_swagger() is None, reason="the extra `docs` is not installed")
@pytest.mark.parametrize(
    ("schema", "older"),
    [
        ({"type": "string"}, {"type": "string"}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "string", "nullable": True}),
        ({"anyOf": [{"$ref": "#/x"}, {"type": "null"}]}, {"anyOf": [{"$ref": "#/x"}], "nullable": True}),
        ({"anyOf": [{"type": "string"}, {"$ref": "#/x"}]}, {"anyOf": [{"type": "string"}, {"$ref": "#/x"}]}),
        ({"type": ["string", "array"]}, {"anyOf": [{"type": "string"}, {"type": "array"}]}),
        ({"type": ["string", "null"], "description": "x"}, {"type": "string", "nullable": True, "description": "x"}),
        ({"exclusiveMinimum": 0, "maximum": 9}, {"minimum": 0, "exclusiveMinimum": True, "maximum": 9}),
        (
            {"properties": {"type": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}},
            {"properties": {"type": {"type": "integer", "nullable": True}}},
        ),
    ],
)
def test_swagger_ui_is_shown_schemas_in_the_words_of_openapi_3_0(
    browser: Browser, open_gateway: Target, schema: dict[str, Any], older: dict[str, Any]
) -> None:
    page = browser.page().open(url_of(open_gateway, "/docs"))

    assert page.run(f"inOlderWords({json.dumps(schema)})") == older
