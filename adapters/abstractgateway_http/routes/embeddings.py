"""Meaning: the registry of kinds and relations, and texts as vectors."""

from __future__ import annotations

from werkzeug.wrappers import Response

from ..fields import Field
from ..render import json_answer
from ..route import API, Answer, Call, Route
from ..sessions import anything
from ..shapes import OBJECT, named
from .inputs import TEXTS, optional_text


def get_semantics(call: Call) -> Response:
    """Return the registry of kinds of things and relations."""
    return json_answer(call.gateway.semantics.get())


def create_embeddings(call: Call) -> Response:
    """Make a vector of each text."""
    given = call.body
    answer = call.gateway.embeddings.embed(given["input"], provider=given["provider"], model=given["model"])
    return json_answer(answer)


def get_embeddings_config(call: Call) -> Response:
    """Return with what vectors are made, and whether that works."""
    return json_answer(call.gateway.embeddings.config())


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        f"{API}/semantics",
        get_semantics,
        session=anything,
        answers=(Answer("The registry, as the operator gave it.", OBJECT),),
        refusals=(501,),
    ),
    Route(
        "POST",
        f"{API}/embeddings",
        create_embeddings,
        scope="run",
        session=anything,
        answers=(Answer("The vectors, in the order of the texts.", named("Embeddings")),),
        body=(
            Field("input", TEXTS, required=True, about="A text, or a list of texts."),
            optional_text("provider", "The provider; another one than the configured one is refused."),
            optional_text("model", "The model; another one than the configured one is refused."),
        ),
        refusals=(400,),
    ),
    Route(
        "GET",
        f"{API}/embeddings/config",
        get_embeddings_config,
        session=anything,
        answers=(Answer("`ok` says whether vectors can be made.", named("EmbeddingsConfig")),),
    ),
)
