"""What a flow wants to be started with, as a JSON schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..jsonvalue import JsonObject

_JSON_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("string", "str", "text", "markdown", "path", "file", "directory"), "string"),
    **dict.fromkeys(("number", "float", "double"), "number"),
    **dict.fromkeys(("integer", "int"), "integer"),
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    **dict.fromkeys(("array", "list"), "array"),
    **dict.fromkeys(("object", "dict", "map", "json"), "object"),
}


def input_schema(pins: Iterable[JsonObject]) -> JsonObject:
    """Return `{version, inputs, defaults, input_data_schema}` of a flow's start pins; version 1 of the contract."""
    inputs = [{**pin, "required": "default" not in pin, "schema": _pin_schema(pin)} for pin in pins]
    required = [pin["id"] for pin in inputs if pin["required"]]
    whole: JsonObject = {
        "type": "object",
        "additionalProperties": True,
        "properties": {pin["id"]: pin["schema"] for pin in inputs},
    }
    return {
        "version": 1,
        "inputs": inputs,
        "defaults": {pin["id"]: pin["default"] for pin in inputs if "default" in pin},
        "input_data_schema": {**whole, "required": required} if required else whole,
    }


def _pin_schema(pin: JsonObject) -> JsonObject:
    kind = str(pin["type"])
    known = _JSON_TYPES.get(kind.strip().lower())
    schema: JsonObject = {"type": known} if known else {}
    schema["x-abstract-type"] = kind
    if pin["label"] != pin["id"]:
        schema["title"] = pin["label"]
    if "default" in pin:
        schema["default"] = pin["default"]
    return schema
