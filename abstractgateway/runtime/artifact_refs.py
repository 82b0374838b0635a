"""References: the JSON values that stand for artifacts, as AbstractRuntime writes them."""

from __future__ import annotations

from ..jsonvalue import JsonObject

REF = "$artifact"


def artifact_ref(artifact_id: str) -> JsonObject:
    """Return the JSON value that stands for an artifact."""
    return {REF: artifact_id}


def is_artifact_ref(value: object) -> bool:
    """Say whether a JSON value stands for an artifact; it may say more about it in further names."""
    return isinstance(value, dict) and REF in value


def get_artifact_id(ref: JsonObject) -> str:
    """Return the id of the artifact that a reference stands for."""
    return str(ref[REF])
