from __future__ import annotations

import json

import pytest

from abstractgateway.errors import Unavailable
from abstractgateway.service import GatewayService
from abstractgateway_http.server import GatewayServer
from tests.llm.provider import KEY, Provider, failed, said

from .conftest import LiveGateway, config_of


class Lengths:
    """An embedder of a program: the vector of a text is its length and a one."""

    provider, model = "Own", "lengths"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def embed(self, texts):
        self.asked.append(list(texts))
        return [[len(text), 1.0] for text in texts]


class Failing(Lengths):
    def __init__(self, failure) -> None:
        super().__init__()
        self.failure = failure

    def embed(self, texts):
        if isinstance(self.failure, Exception):
            raise self.failure
        return self.failure


@pytest.fixture
def with_embedder(tmp_path):
    opened = []

    def start(embedder=None, **settings) -> LiveGateway:
        config = config_of(flows_dir=tmp_path / "flows", data_dir=tmp_path / "data", **settings)
        service = GatewayService.open(config, embedder=embedder)
        opened.append(LiveGateway(service, GatewayServer(service).start()))
        return opened[-1]

    yield start
    for live in opened:
        live.server.stop()
        live.service.close()


def vectors(*found, **more):
    return said({"data": [{"index": place, "embedding": vector} for place, vector in enumerate(found)], **more})


def embed(live, given, **more):
    return live.ask("POST", "/embeddings", body={"input": given, **more})


def test_each_text_gets_a_vector(with_embedder):
    answer = embed(with_embedder(Lengths()), ["a", "bcd"])

    assert (answer.status, answer.json) == (
        200,
        {
            "object": "list",
            "provider": "Own",
            "model": "lengths",
            "dimension": 2,
            "data": [
                {"object": "embedding", "index": 0, "embedding": [1.0, 1.0]},
                {"object": "embedding", "index": 1, "embedding": [3.0, 1.0]},
            ],
        },
    )


def test_one_text_is_a_list_of_one(with_embedder):
    assert [item["embedding"] for item in embed(with_embedder(Lengths()), "abc").json["data"]] == [[3.0, 1.0]]


def test_no_texts_have_no_vectors_and_nobody_is_asked(with_embedder):
    embedder = Lengths()

    answer = embed(with_embedder(embedder), [])

    assert (answer.json["data"], answer.json["dimension"], embedder.asked) == ([], 0, [])


@pytest.mark.parametrize("pair", [{}, {"provider": "own"}, {"model": "lengths"}, {"provider": None, "model": ""}])
def test_the_configured_pair_may_be_named(with_embedder, pair):
    assert embed(with_embedder(Lengths()), "a", **pair).status == 200


@pytest.mark.parametrize(("pair", "field"), [({"provider": "other"}, "provider"), ({"model": "Lengths"}, "model")])
def test_another_pair_is_refused(with_embedder, pair, field):
    answer = embed(with_embedder(Lengths()), "a", **pair)

    assert (answer.status, answer.json["detail"].startswith(f"{field}: ")) == (400, True)


@pytest.mark.parametrize(
    ("body", "kind"), [({}, "missing"), ({"input": 5}, "string_type"), ({"input": ["a", 5]}, "string_type")]
)
def test_a_wrong_input_is_named(with_embedder, body, kind):
    answer = with_embedder(Lengths()).ask("POST", "/embeddings", body=body)

    assert answer.status == 422
    assert [(item["loc"], item["type"]) for item in answer.json["detail"]] == [(["body", "input"], kind)]


@pytest.mark.parametrize(
    "failure",
    [
        Unavailable("the machine is off"),
        RuntimeError("the machine is off"),
        [[1.0]],
        [[1.0], [1.0, 2.0]],
        [[], []],
        [[float("nan")], [1.0]],
        [["x"], [1.0]],
        [10**400, 1],
        None,
    ],
)
def test_what_an_embedder_cannot_do_is_told(with_embedder, failure):
    live = with_embedder(Failing(failure))

    answer = embed(live, ["a", "b"])

    assert (answer.status, answer.json["code"]) == (503, "embedding_failed")
    assert answer.json["detail"].startswith("Embedding generation failed: ")
    assert "retry-after" in answer.headers


def test_the_config_tells_that_it_does_not_work_and_why(with_embedder):
    config = with_embedder(Failing(RuntimeError("the machine is off"))).ask("GET", "/embeddings/config")

    assert (config.status, config.json) == (
        200,
        {
            "ok": False,
            "provider": "Own",
            "model": "lengths",
            "dimension": 0,
            "error": "Embedding generation failed: RuntimeError: the machine is off",
        },
    )


def test_the_config_tells_the_dimension_and_asks_for_it_once(with_embedder):
    embedder = Lengths()
    live = with_embedder(embedder)

    answers = [live.ask("GET", "/embeddings/config").json for _ in range(3)]

    assert answers == [{"ok": True, "provider": "Own", "model": "lengths", "dimension": 2}] * 3
    assert len(embedder.asked) == 1


def settings_of(provider: Provider, **more):
    return {
        "lmstudio_base_url": f"{provider.url}/v1",
        "lmstudio_api_key": KEY,
        "llm_retries": 0,
        "store_backend": "file",
        **more,
    }


def test_the_provider_of_the_settings_is_asked_as_openai_is(with_embedder):
    with Provider(vectors([0.5, 1], [2, 3])) as provider:
        live = with_embedder(**settings_of(provider, embedding_provider="LMStudio", embedding_model="small"))

        answer = embed(live, ["a", "b"])

    assert [item["embedding"] for item in answer.json["data"]] == [[0.5, 1.0], [2.0, 3.0]]
    assert (answer.json["provider"], answer.json["model"], answer.json["dimension"]) == ("lmstudio", "small", 2)
    request = provider.requests[0]
    assert request.path == "/v1/embeddings"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {"model": "small", "input": ["a", "b"], "encoding_format": "float"}


def test_the_places_of_an_answer_count(with_embedder):
    data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    with Provider(said({"data": data})) as provider:
        answer = embed(with_embedder(**settings_of(provider)), ["a", "b"])

    assert [item["embedding"] for item in answer.json["data"]] == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (failed(401, "bad key"), "bad key"),
        (failed(500, "out of order"), "out of order"),
        (said({"data": []}), "0 vectors for 1 texts"),
        (said({"data": [{"index": 0, "embedding": "AAAA"}]}), "lacks a vector of numbers"),
        (said({"data": [{"index": 7, "embedding": [1.0]}]}), "lacks a vector of numbers"),
        (said({"data": 5}), "0 vectors for 1 texts"),
        (said([1]), "not an object"),
        (None, "connection"),
    ],
)
def test_what_a_provider_refuses_is_told_without_the_key(with_embedder, reply, reason):
    with Provider(reply) as provider:
        live = with_embedder(**settings_of(provider))
        answer = embed(live, "a")
        config = live.ask("GET", "/embeddings/config")

    assert (answer.status, answer.json["code"]) == (503, "embedding_failed")
    assert reason in answer.json["detail"]
    assert (config.status, config.json["ok"]) == (200, False)
    assert KEY not in answer.body.decode() + config.body.decode()


@pytest.mark.parametrize("provider", ["anthropic", "nobody"])
def test_a_provider_without_embeddings_says_so(with_embedder, provider):
    answer = embed(with_embedder(embedding_provider=provider, anthropic_api_key=KEY), "a")

    assert (answer.status, "makes no embeddings here" in answer.json["detail"]) == (503, True)


def test_without_settings_a_local_provider_is_meant_and_nothing_is_kept(with_embedder, tmp_path):
    with Provider(vectors([1.0])) as provider:
        config = with_embedder(**settings_of(provider)).ask("GET", "/embeddings/config").json

    assert config == {
        "ok": True,
        "provider": "lmstudio",
        "model": "text-embedding-nomic-embed-text-v1.5@q6_k",
        "dimension": 1,
    }
    assert not (tmp_path / "data" / "gateway_embeddings.json").exists()


def test_the_pair_of_the_settings_is_kept_for_later(with_embedder, tmp_path):
    with Provider(vectors([1.0])) as provider:
        chosen = {"embedding_provider": "LMStudio", "embedding_model": "small"}
        first = with_embedder(**settings_of(provider, **chosen)).ask("GET", "/embeddings/config").json

    kept = json.loads((tmp_path / "data" / "gateway_embeddings.json").read_text())
    assert kept == {"provider": "lmstudio", "model": "small"} == {name: first[name] for name in ("provider", "model")}


def test_a_stored_pair_is_used_and_the_settings_win_over_it(with_embedder, tmp_path):
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "gateway_embeddings.json"
    path.write_text('{"provider": "lmstudio", "model": "stored"}')

    with Provider(vectors([1.0])) as provider:
        stored = embed(with_embedder(**settings_of(provider, runner_enabled=False)), "a").json
        wished = embed(with_embedder(**settings_of(provider, embedding_model="new", runner_enabled=False)), "a").json

    assert (stored["model"], wished["model"]) == ("stored", "new")
    assert json.loads(path.read_text()) == {"provider": "lmstudio", "model": "new"}


@pytest.mark.parametrize("content", ["{", "[]", '{"provider": 5, "model": " "}'])
def test_a_stored_pair_that_nobody_can_read_counts_as_none(with_embedder, tmp_path, content):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "gateway_embeddings.json").write_text(content)

    with Provider(vectors([1.0])) as provider:
        answer = embed(with_embedder(**settings_of(provider)), "a")

    assert answer.json["model"] == "text-embedding-nomic-embed-text-v1.5@q6_k"


def test_without_a_registry_semantics_say_how_to_give_one(with_embedder):
    answer = with_embedder().ask("GET", "/semantics")

    assert (answer.status, answer.json["code"]) == (501, "semantics_not_configured")
    assert "ABSTRACTGATEWAY_SEMANTICS_FILE" in answer.json["detail"]
    assert "retry-after" not in answer.headers


def test_the_registry_of_the_settings_is_shown_as_it_is_now(with_embedder, tmp_path):
    path = tmp_path / "registry.json"
    path.write_text('{"version": 1, "predicates": [{"id": "schema:knows"}]}')
    live = with_embedder(semantics_file=path)

    first = live.ask("GET", "/semantics")
    path.write_text('{"version": 2}')

    assert (first.status, first.json) == (200, {"version": 1, "predicates": [{"id": "schema:knows"}]})
    assert live.ask("GET", "/semantics").json == {"version": 2}


@pytest.mark.parametrize("content", [None, "{", "[]", '{"a": NaN}'])
def test_a_registry_that_cannot_be_read_is_told_without_its_path(with_embedder, tmp_path, content):
    path = tmp_path / "registry.json"
    if content is not None:
        path.write_text(content)

    answer = with_embedder(semantics_file=path).ask("GET", "/semantics")

    assert (answer.status, answer.json["code"]) == (503, "semantics_unusable")
    assert str(tmp_path) not in answer.body.decode()
