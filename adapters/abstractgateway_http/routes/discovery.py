"""Discovery: what this gateway has, what clients may rely on, and how busy the machine is."""

from __future__ import annotations

from werkzeug.wrappers import Response

from ..render import json_answer
from ..route import API, Answer, Call, Route
from ..sessions import anything
from ..shapes import OBJECT, named, shape
from .inputs import required_text, switch


def discover_capabilities(call: Call) -> Response:
    """Say what is installed and configured, and which contracts clients may rely on."""
    return json_answer(call.gateway.discovery.capabilities())


def discover_tools(call: Call) -> Response:
    """List the tools that agents and flows may call."""
    return json_answer(call.gateway.discovery.tools())


def discover_providers(call: Call) -> Response:
    """List the model providers that are known, and the default model."""
    return json_answer(call.gateway.discovery.providers(**call.query))


def discover_provider_models(call: Call) -> Response:
    """List the models that a provider says it has."""
    return json_answer(call.gateway.discovery.provider_models(call.path["provider_name"]))


def discover_model_capabilities(call: Call) -> Response:
    """Say what is published about a model."""
    return json_answer(call.gateway.discovery.model_capabilities(**call.query))


def get_gpu_metrics(call: Call) -> Response:
    """Say how busy the graphics processors of the machine are, where it has some that tell."""
    return json_answer(call.gateway.host_metrics.gpu())


_DISCOVERY = f"{API}/discovery"

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        f"{_DISCOVERY}/capabilities",
        discover_capabilities,
        answers=(Answer("The capabilities, version 1 of the contracts.", shape(capabilities=OBJECT)),),
        session=anything,
    ),
    Route(
        "GET",
        f"{_DISCOVERY}/tools",
        discover_tools,
        answers=(Answer("The tools, by name.", named("ToolList")),),
        session=anything,
    ),
    Route(
        "GET",
        f"{_DISCOVERY}/providers",
        discover_providers,
        answers=(Answer("The providers, by name.", named("ProviderList")),),
        query=(switch("include_models", "Whether each is asked for its models as well."),),
        session=anything,
    ),
    Route(
        "GET",
        f"{_DISCOVERY}/providers/{{provider_name}}/models",
        discover_provider_models,
        answers=(Answer("The models, by name; `error` says why there are none.", named("ModelList")),),
        session=anything,
    ),
    Route(
        "GET",
        f"{_DISCOVERY}/models/capabilities",
        discover_model_capabilities,
        answers=(Answer("What is known; the rest is null.", named("ModelCapabilities")),),
        query=(required_text("model_name", "The name of the model."),),
        session=anything,
    ),
    Route(
        "GET",
        f"{API}/host/metrics/gpu",
        get_gpu_metrics,
        answers=(Answer("`supported` says whether there are any.", named("GpuMetrics")),),
        session=anything,
    ),
)
