"""Language models and tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from ...errors import Invalid
from ...jsonvalue import JsonObject, loads
from ...runtime.models import Effect, EffectType
from .. import memory_sources
from ..agent_tools import offered
from ..conversation import active_messages, leading_system, messages_in, sendable
from ..flow import Node
from ..memory_sources import MEMORY_PINS, memory_settings, source_params
from ..node import Ask, Inputs, NodeType, Site
from ..state import Step
from ..values import as_list, as_names, as_object, first_present, first_text

META_SCHEMA = "abstractflow.llm_call.v1.meta"
UNSET_MARKERS = frozenset({"default", "__default__", "__abstractcore_default__", "abstractcore.default"})
_INPUT_LIMIT = ("max_in_tokens", "max_input_tokens")
_OUTPUT_LIMIT = ("max_out_tokens", "max_output_tokens")
_SCHEMA_PINS = ("resp_schema", "response_schema")
_CONTEXT_PINS = ("use_context", "include_context")

MODEL_PINS = (*_INPUT_LIMIT, *_OUTPUT_LIMIT, *_SCHEMA_PINS, *_CONTEXT_PINS, *MEMORY_PINS)
"""Pins of every node that calls a model, besides those that its drawing usually shows."""


def wanted_model(inputs: Inputs, config: JsonObject) -> JsonObject:
    """Return the provider and model a node asks for; what is unset or marked as default is left out."""
    found: JsonObject = {}
    for name in ("provider", "model"):
        text = first_text(inputs.get(name), config.get(name))
        if text is not None and text.lower() not in UNSET_MARKERS:
            found[name] = text
    return found


def wanted_tools(inputs: Inputs, config: JsonObject) -> list[Any]:
    """Return tool names and specifications: those of the pin, even none, else those of the node's settings."""
    listed = inputs.get("tools") if isinstance(inputs.get("tools"), list) else config.get("tools")
    items = listed if isinstance(listed, list) else []
    specs = [item for item in items if isinstance(item, dict)]
    return [*(as_names(items) or []), *specs]


def wanted_schema(inputs: Inputs) -> JsonObject | None:
    """Return the JSON schema that the answer must have, taken out of the form that model APIs wrap it in.

    Raises `Invalid` for what is no object, nor the JSON text of one.
    """
    schema = first_present(inputs, _SCHEMA_PINS)
    if isinstance(schema, str) and schema.strip():
        schema = loads(schema, field="resp_schema")
    if not schema:
        return None
    if not isinstance(schema, dict):
        raise Invalid("resp_schema", f"{schema!r} is not a JSON schema")
    wrapped = as_object(schema.get("json_schema")) if schema.get("type") == "json_schema" else {}
    inner = as_object(wrapped.get("schema")) or schema
    reference = inner.get("$ref")
    if isinstance(reference, str) and reference.startswith("abstractsemantics:"):
        raise Invalid("resp_schema", f"{reference!r} is a schema that is not known here; give the schema itself")
    return inner


def sampling(inputs: Inputs, config: JsonObject) -> JsonObject:
    """Return temperature (0.7 unless set) and, when it is set and not negative, the seed."""
    temperature = _number(inputs.get("temperature"), _number(config.get("temperature"), 0.7))
    seed = _number(inputs.get("seed"), _number(config.get("seed"), -1))
    params: JsonObject = {"temperature": temperature}
    if seed >= 0:
        params["seed"] = int(seed)
    return params


def token_limits(inputs: Inputs, config: JsonObject) -> JsonObject:
    """Return `max_input_tokens` and `max_output_tokens` where they are set to a positive number."""
    limits: JsonObject = {}
    for name, pins in (("max_input_tokens", _INPUT_LIMIT), ("max_output_tokens", _OUTPUT_LIMIT)):
        given = first_present(inputs, pins)
        limit = _number(given if given is not None else config.get(name), 0)
        if limit > 0:
            limits[name] = int(limit)
    return limits


def wants_context(inputs: Inputs, config: JsonObject) -> bool:
    """Say whether the run's conversation is part of the call."""
    given = first_present(inputs, _CONTEXT_PINS)
    return bool(given if given is not None else first_present(config, _CONTEXT_PINS))


def thinking_and_cache(inputs: Inputs) -> JsonObject:
    """Return the `params` of the pins `thinking` and `prompt_cache_binding`: a key, or an object with one.

    Raises `Invalid` for a binding without a key.
    """
    found = {"thinking": inputs["thinking"]} if inputs.get("thinking") not in (None, "") else {}
    binding = inputs.get("prompt_cache_binding")
    if binding in (None, "", {}):
        return found
    key = first_text(binding, as_object(binding).get("key"), as_object(binding).get("prompt_cache_key"))
    if key is None:
        raise Invalid("prompt_cache_binding", f"{binding!r} is neither a key nor an object with a text 'key'")
    return {**found, "prompt_cache_key": key}


def odd_pins(known: Iterable[str]) -> Callable[[Node], str | None]:
    """Return what advises about input pins that a node has no use for."""
    names = frozenset(known)

    def advise(node: Node) -> str | None:
        odd = sorted({*node.data_inputs, *node.pin_defaults} - names)
        return f"has input pins that do nothing: {', '.join(odd)}" if odd else None

    return advise


def _number(value: Any, default: float) -> float:
    try:
        return default if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return default


def _llm_call(site: Site) -> Callable[[Inputs, Step], JsonObject]:
    node_id, config = site.node.id, site.node.config("effectConfig")

    def payload(inputs: Inputs, step: Step) -> JsonObject:
        model = wanted_model(inputs, config)
        step.section("llm_calls")[node_id] = model
        params = {**sampling(inputs, config), **source_params(memory_settings(inputs, step))}
        return {
            **_conversation(inputs, config, step, node_id),
            **model,
            "tools": offered(wanted_tools(inputs, config)),
            "params": {**params, **thinking_and_cache(inputs)},
            **token_limits(inputs, config),
            **_structure(inputs, config),
            **_extras(inputs, config),
        }

    return payload


def _look_ups(site: Site) -> Callable[[Inputs, Step, bool], Effect | None]:
    node_id = site.node.id

    def before(inputs: Inputs, step: Step, is_new: bool) -> Effect | None:
        settings, prompt = memory_settings(inputs, step), inputs.get("prompt")
        if is_new:
            memory_sources.forget(step, node_id)
        if not memory_sources.wants_look_up(settings):
            return None
        if is_new:
            memory_sources.begin(step, node_id, settings, prompt)
        return memory_sources.next_look_up(step, node_id, settings, prompt)

    return before


def _conversation(inputs: Inputs, config: JsonObject, step: Step, node_id: str) -> JsonObject:
    """A call is a prompt, or a list of messages that ends with it when there is a conversation to go on with."""
    prompt, include = _text(inputs.get("prompt")), wants_context(inputs, config)
    system = memory_sources.with_statements(step, node_id, _optional_text(inputs.get("system")))
    messages = memory_sources.recalled(step, node_id, history(inputs, config, step))
    if not messages:
        return {"prompt": prompt, "system_prompt": system, "include_context": include}
    leading = leading_system(messages)
    told = [{"role": "system", "content": system}] if system else []
    asked = [{"role": "user", "content": prompt}] if prompt else []
    whole = sendable([*messages[:leading], *told, *messages[leading:], *asked])
    return {"messages": whole, "include_context": include}


def history(inputs: Inputs, config: JsonObject, step: Step) -> list[JsonObject]:
    """Return the messages that a call goes on with: those of its `context`, else the run's where it wants them."""
    explicit = messages_in(inputs.get("context"))
    return explicit or (active_messages(step.vars) if wants_context(inputs, config) else [])


def _structure(inputs: Inputs, config: JsonObject) -> JsonObject:
    schema = wanted_schema(inputs)
    if schema is None:
        return {}
    found: JsonObject = {"response_schema": schema, "response_schema_name": "LLM_StructuredOutput"}
    if config.get("structured_output_fallback") is not None:
        found["structured_output_fallback"] = config["structured_output_fallback"]
    return found


def _extras(inputs: Inputs, config: JsonObject) -> JsonObject:
    found: JsonObject = {}
    media = as_object(inputs.get("context")).get("attachments")
    if isinstance(media, list) and media:
        found["media"] = media
    output = first_present({**config, **{k: v for k, v in inputs.items() if v is not None}}, ("output", "outputs"))
    if isinstance(output, (str, dict, list)) and output:
        found["output"] = output
    return found


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _optional_text(value: Any) -> str | None:
    return None if value is None else str(value)


def compact_json(value: Any) -> str:
    """Return the minified JSON text that a structured answer is shown as."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _present_llm(node: Node, wired: frozenset[str]) -> Callable[[Any, Step], Any]:
    legacy = frozenset({"result", "raw", "gen_time", "ttft_ms"}) & (wired | set(node.data_outputs))
    node_id = node.id

    def present(raw: Any, step: Step) -> JsonObject:
        result = as_object(raw)
        data = result.get("data")
        asked = as_object(step.temp("llm_calls").get(node_id))
        shown: JsonObject = {
            "response": compact_json(data) if isinstance(data, (dict, list)) else _text(result.get("content")),
            "success": True,
            "meta": _llm_meta(result, asked),
            "tool_calls": as_list(result.get("tool_calls")),
            "data": data,
        }
        shown.update({name: result[name] for name in _MEDIA_OUTPUTS if result.get(name) is not None})
        shown.update({name: raw if name in ("result", "raw") else result.get(name) for name in legacy})
        return shown

    return present


_MEDIA_OUTPUTS = ("outputs", "resources", "artifact_id", "artifact_ref")


def _llm_meta(result: JsonObject, asked: JsonObject) -> JsonObject:
    mode = (
        "structured"
        if isinstance(result.get("data"), (dict, list))
        else "media"
        if result.get("outputs")
        else "unstructured"
    )
    meta: JsonObject = {
        "schema": META_SCHEMA,
        "version": 1,
        "output_mode": mode,
        "tool_calls": len(as_list(result.get("tool_calls"))),
    }
    trace = result.get("trace_id")
    optional = {
        "provider": asked.get("provider") or result.get("provider"),
        "model": asked.get("model") or result.get("model"),
        "trace": {"trace_id": trace} if trace else None,
        "refusal": as_object(result.get("metadata")).get("refusal"),
        **{name: result.get(name) for name in ("finish_reason", "usage", "gen_time", "ttft_ms")},
    }
    return {**meta, **{name: value for name, value in optional.items() if value is not None}}


def _listed_calls(value: Any, step: Step, pin: str) -> list[JsonObject]:
    """Return the calls of a pin; what is none is left out, with a warning, and a call without an id gets one later."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            step.warn(f"{pin} is no JSON and was taken for no calls: {error}")
            return []
    items = as_list(None if value == "" else value)
    calls = [item for item in items if isinstance(item, dict)]
    if len(calls) < len(items):
        step.warn(f"{pin} has items that are no calls; they were left out")
    if any(not (call.get("call_id") or call.get("id")) for call in calls):
        step.warn(f"{pin} has calls without a call_id; they got one")
    return calls


def _allowed(inputs: Inputs, config: JsonObject) -> JsonObject:
    for listed in (inputs.get("allowed_tools"), config.get("allowed_tools"), config.get("allowedTools")):
        names = as_names(listed)
        if names is not None:
            return {"allowed_tools": names}
    return {}


def _tool_calls(pin: str) -> Callable[[Site], Callable[[Inputs, Step], JsonObject]]:
    def build(site: Site) -> Callable[[Inputs, Step], JsonObject]:
        config, is_single = site.node.config("effectConfig"), pin == "tool_call"

        def payload(inputs: Inputs, step: Step) -> JsonObject:
            calls = _listed_calls(inputs.get(pin), step, pin)
            return {"tool_calls": calls[:1] if is_single else calls, **_allowed(inputs, config)}

        return payload

    return build


def _outcomes(raw: Any) -> tuple[list[JsonObject], bool]:
    executed = as_object(raw)
    if executed.get("mode") != "executed":
        return [], False
    results = [item for item in as_list(executed.get("results")) if isinstance(item, dict)]
    return results, all(item.get("success") is True for item in results)


def _present_many(_node: Node, _wired: frozenset[str]) -> Callable[[Any, Step], Any]:
    def present(raw: Any, _step: Step) -> JsonObject:
        results, success = _outcomes(raw)
        return {"results": results, "success": success, "raw": raw}

    return present


def _present_one(_node: Node, _wired: frozenset[str]) -> Callable[[Any, Step], Any]:
    def present(raw: Any, _step: Step) -> JsonObject:
        results, success = _outcomes(raw)
        first = results[0] if results else {}
        value = first.get("output") if first.get("success") is True else first.get("error")
        return {"result": value, "success": bool(results) and success, "raw": raw}

    return present


_LLM_PINS = (
    *("use_context", "context", "memory", "provider", "model", "system", "prompt", "tools", "prompt_cache_binding"),
    *("max_in_tokens", "temperature", "seed", "thinking", "resp_schema"),
)

TYPES = (
    NodeType(
        "llm_call",
        "models",
        Ask(EffectType.LLM_CALL, _llm_call, _present_llm, "response", _look_ups),
        _LLM_PINS,
        ("response", "success", "meta", "tool_calls"),
        "Calls a language model once.",
        {"temperature": 0.7, "seed": -1},
        advise=odd_pins((*_LLM_PINS, *MODEL_PINS, "output", "outputs")),
    ),
    NodeType(
        "tool_calls",
        "models",
        Ask(EffectType.TOOL_CALLS, _tool_calls("tool_calls"), _present_many, "results"),
        ("tool_calls", "allowed_tools"),
        ("results", "success", "raw"),
        "Runs tool calls, of the allowed tools only.",
    ),
    NodeType(
        "call_tool",
        "models",
        Ask(EffectType.TOOL_CALLS, _tool_calls("tool_call"), _present_one, "result"),
        ("tool_call", "allowed_tools"),
        ("result", "success", "raw"),
        "Runs one tool call.",
    ),
)
