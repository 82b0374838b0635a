"""The `manifest.json` of a bundle, format version "1"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Invalid
from ..jsonvalue import JsonObject, check_json

FORMAT_VERSION = "1"


@dataclass(frozen=True)
class Entrypoint:
    """A flow that is meant to be started from outside."""

    flow_id: str
    name: str | None = None
    description: str = ""
    interfaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself; the paths in `flows` and `assets` are safe and relative."""

    bundle_id: str
    bundle_version: str
    entrypoints: tuple[Entrypoint, ...]
    flows: Mapping[str, str]
    created_at: str = ""
    default_entrypoint: str | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    assets: Mapping[str, str] = field(default_factory=dict)
    metadata: JsonObject = field(default_factory=dict)

    @property
    def bundle_ref(self) -> str:
        return f"{self.bundle_id}@{self.bundle_version}"


def parse_manifest(document: Any) -> Manifest:
    """Return the manifest of a JSON value. Raises `Invalid("manifest", …)` listing every problem at once."""
    if not isinstance(document, dict):
        raise Invalid("manifest", f"is a JSON {type(document).__name__}, not an object")
    check_json(document, field="manifest")
    problems: list[str] = []
    _check_format(document, problems)
    bundle_id = _text(document, "bundle_id", "bundleId")
    if not bundle_id:
        problems.append("'bundle_id' is missing")
    entrypoints = _entrypoints(document.get("entrypoints"), problems)
    manifest = Manifest(
        bundle_id=bundle_id,
        bundle_version=_text(document, "bundle_version", "bundleVersion") or "0.0.0",
        entrypoints=entrypoints,
        flows=_paths(document, "flows", problems),
        created_at=_text(document, "created_at", "createdAt"),
        default_entrypoint=_default_entrypoint(document, entrypoints, problems),
        artifacts=_paths(document, "artifacts", problems),
        assets=_paths(document, "assets", problems),
        metadata=_object(document.get("metadata")),
    )
    if problems:
        raise Invalid("manifest", "; ".join(problems), code="manifest_invalid")
    return manifest


def is_safe_path(path: str) -> bool:
    """Say whether a path stays inside its bundle: relative, no drive, no `.` or `..` segment."""
    if not path.strip() or path[0] in "/\\" or "\0" in path:
        return False
    segments = path.replace("\\", "/").split("/")
    return ":" not in segments[0] and not any(segment in (".", "..") for segment in segments)


def _check_format(document: JsonObject, problems: list[str]) -> None:
    version = document.get("bundle_format_version", document.get("bundleFormatVersion"))
    if str(version).strip() != FORMAT_VERSION:
        problems.append(f"'bundle_format_version' is {version!r}; only {FORMAT_VERSION!r} can be read")


def _text(document: JsonObject, *names: str) -> str:
    for name in names:
        value = document.get(name)
        if value is not None:
            return str(value).strip() if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    return ""


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _entrypoints(value: Any, problems: list[str]) -> tuple[Entrypoint, ...]:
    items = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    if not items:
        problems.append("'entrypoints' lists no flow")
    found: dict[str, Entrypoint] = {}
    for item in items:
        flow_id = _text(item, "flow_id", "flowId")
        if not flow_id:
            problems.append("an entrypoint has no 'flow_id'")
        elif flow_id in found:
            problems.append(f"two entrypoints name the flow {flow_id!r}")
        else:
            found[flow_id] = _entrypoint(flow_id, item)
    return tuple(found.values())


def _entrypoint(flow_id: str, item: JsonObject) -> Entrypoint:
    name, description, interfaces = item.get("name"), item.get("description"), item.get("interfaces")
    listed = interfaces if isinstance(interfaces, list) else []
    return Entrypoint(
        flow_id=flow_id,
        name=name.strip() if isinstance(name, str) and name.strip() else None,
        description=description if isinstance(description, str) else "",
        interfaces=tuple(text.strip() for text in listed if isinstance(text, str) and text.strip()),
    )


def _default_entrypoint(document: JsonObject, entrypoints: tuple[Entrypoint, ...], problems: list[str]) -> str | None:
    names = ("default_entrypoint", "defaultEntrypoint", "default_entrypoint_flow_id", "defaultEntrypointFlowId")
    chosen = next((text for name in names if (text := _text(document, name))), None)
    known = [entrypoint.flow_id for entrypoint in entrypoints]
    if chosen is not None and chosen not in known:
        problems.append(f"'default_entrypoint' is {chosen!r}, which is none of the entrypoints {known}")
    return chosen


def _paths(document: JsonObject, name: str, problems: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, path in _object(document.get(name)).items():
        if not key.strip():
            problems.append(f"{name!r} has a blank key")
        elif not isinstance(path, str) or not is_safe_path(path):
            problems.append(f"{name!r} gives {key!r} the path {path!r}, which is not a path inside the bundle")
        else:
            found[key] = path.replace("\\", "/")
    return found
