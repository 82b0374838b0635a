"""The workflows of a directory of bundles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..bundles.catalogue import Bundle, LoadError, index_bundles, latest_version, split_bundle_ref
from ..bundles.compiled import compile_bundle
from ..bundles.namespace import namespaced_id
from ..bundles.source import BundleDirectory, BundleSource, Place
from ..errors import Invalid, NotFound, Unavailable
from ..jsonvalue import JsonObject
from ..runtime.models import WorkflowSpec
from ..visualflow.sandbox import CodeRunner
from .base import some_of, unknown_workflow
from .drawing import model_defaults, node_index, start_inputs
from .watched import Watched

_NOT_DEPRECATED: JsonObject = {"deprecated": False, "deprecated_at": None, "deprecated_reason": None}


@dataclass(frozen=True)
class _Loaded:
    """A bundle with everything that was compiled from it."""

    bundle: Bundle
    workflows: Mapping[str, WorkflowSpec]
    listeners: Mapping[str, tuple[WorkflowSpec, ...]]
    defaults: JsonObject


@dataclass(frozen=True)
class _Index:
    """All bundles at one moment; a new one replaces it as a whole."""

    bundles: Mapping[str, Mapping[str, _Loaded]]
    workflows: Mapping[str, _Loaded]
    load_errors: tuple[LoadError, ...]


class BundleHost:
    """Serves the flows of the bundles in a directory, or of another source, and notices when these change.

    Workflow ids are `id@version:flow`; `id:flow`, which older runs have, means the latest version. A bundle that
    cannot be read or compiled is listed with its error and affects no other. Safe to use from many threads.
    """

    def __init__(self, source: BundleSource | str | Path, *, code_runner: CodeRunner | None = None) -> None:
        self.source = BundleDirectory(source) if isinstance(source, (str, Path)) else source
        self._seen = self.source.newest()
        self._watched: Watched[Place, _Loaded | LoadError, _Index] = Watched(
            lambda: self.source.stamps(), lambda place: _compiled(self.source.load(place), code_runner), _build_index
        )

    @property
    def _index(self) -> _Index:
        return self._watched.index

    def refresh(self) -> bool:
        """Read the bundles again that have changed; say whether any did, came or went."""
        told = self.source.told
        has_changed = self._watched.refresh()
        self._seen = max(self._seen, told)
        return has_changed

    def look(self) -> None:
        """Notice bundles that another process has put there or taken away, at the cost of one `stat`."""
        with suppress(Unavailable):  # those that are known do meanwhile
            self._watched.look(self.source.directory)
            if self.source.told > self._seen:
                self.refresh()

    def workflow(self, workflow_id: str) -> WorkflowSpec:
        """Return the workflow of an id, looking into the directory again when it is not known."""
        found = self._find(workflow_id)
        if found is None:
            self.refresh()  # another thread may have done so this moment: look again in any case
            found = self._find(workflow_id)
        if found is None:
            raise unknown_workflow(workflow_id, self._flow_ids())
        loaded, full_id = found
        return loaded.workflows[full_id]

    def resolve(self, *, bundle_id: str | None, bundle_version: str | None, flow_id: str | None) -> str:
        """Return the workflow id of a request; see `WorkflowHost.resolve`."""
        parts = (_clean(bundle_id), _clean(bundle_version), _clean(flow_id))
        self._catch_up()
        try:
            return _Resolver(self._index, *parts).workflow_id()
        except (NotFound, Invalid):
            self.refresh()
            return _Resolver(self._index, *parts).workflow_id()

    def listeners(self, workflow_id: str) -> tuple[WorkflowSpec, ...]:
        """Return the workflows that listen beside a workflow."""
        found = self._find(workflow_id)
        return found[0].listeners.get(found[1], ()) if found else ()

    def runtime_defaults(self, workflow_id: str) -> JsonObject:
        """Return the model pair of the bundle that a workflow belongs to, or an empty object."""
        found = self._find(workflow_id)
        return dict(found[0].defaults) if found else {}

    def start_pins(self, workflow_id: str) -> list[JsonObject]:
        """Return the inputs of a workflow. Raises `NotFound` for an unknown one."""
        return start_inputs(self.document(workflow_id))

    def document(self, workflow_id: str) -> JsonObject:
        """Return the drawing of a workflow as it is in its bundle. Raises `NotFound` for an unknown one."""
        found = self._find(workflow_id)
        flow_id = found[1][len(found[0].bundle.ref) + 1 :] if found else ""
        if found is None or flow_id not in found[0].bundle.flows:
            raise unknown_workflow(workflow_id, self._flow_ids())
        return found[0].bundle.flows[flow_id]

    def list_bundles(self, *, all_versions: bool = False) -> JsonObject:
        """Return the bundles by id, the latest version of each or all of them, and the files that could not be used."""
        self._catch_up()
        index = self._index
        chosen = [
            loaded
            for _, versions in sorted(index.bundles.items())
            for version, loaded in sorted(versions.items())
            if all_versions or version == _latest(versions)
        ]
        only = next(iter(index.bundles)) if len(index.bundles) == 1 else None
        return {
            "items": [_list_item(loaded.bundle) for loaded in chosen],
            "default_bundle_id": only,
            "load_errors": [error.to_dict() for error in index.load_errors],
        }

    def get_bundle(self, bundle_id: str, bundle_version: str | None = None) -> JsonObject:
        """Return one bundle with the inputs and nodes of its entrypoints.

        Raises `NotFound` for an unknown bundle or version, `Invalid` when the two arguments name different versions.
        """
        name, version = split_bundle_ref(bundle_id)
        version = _agreed(version, _clean(bundle_version), "bundle_version conflicts with bundle_id")
        self._catch_up()
        versions = self._index.bundles.get(name)
        chosen = version or (_latest(versions) if versions else None)
        if not versions or chosen is None or chosen not in versions:
            ref = f"{name}@{version}" if version else name
            raise NotFound(f"Bundle {ref!r} not found", code="bundle_not_found")
        return _detail(versions[chosen].bundle)

    def _catch_up(self) -> None:
        """See what was acknowledged anywhere before this moment."""
        if self.source.newest() > self._seen:
            self.refresh()

    def _find(self, workflow_id: str) -> tuple[_Loaded, str] | None:
        index = self._index
        if workflow_id in index.workflows:
            return index.workflows[workflow_id], workflow_id
        bundle_id, colon, flow_id = workflow_id.partition(":")
        versions = index.bundles.get(bundle_id) if colon else None
        if not versions:
            return None
        loaded = versions[_latest(versions)]
        full_id = namespaced_id(loaded.bundle.ref, flow_id)
        return (loaded, full_id) if full_id in loaded.workflows else None

    def _flow_ids(self) -> list[str]:
        return _flow_ids(_usable(self._index))


def _usable(index: _Index) -> list[Bundle]:
    return [loaded.bundle for versions in index.bundles.values() for loaded in versions.values()]


def _flow_ids(bundles: Iterable[Bundle]) -> list[str]:
    return [namespaced_id(bundle.ref, flow) for bundle in bundles for flow in bundle.flows]


@dataclass(frozen=True)
class _Resolver:
    """The rules by which bundle, version and flow of a request become a workflow id."""

    index: _Index
    bundle_id: str
    bundle_version: str
    flow_id: str

    def workflow_id(self) -> str:
        if not self.bundle_id and not self.flow_id:
            raise Invalid("", "flow_id is required (or provide bundle_id to start a bundle entrypoint)")
        name, version = split_bundle_ref(self.bundle_id)
        wanted = _agreed(version, self.bundle_version or None, "bundle_version conflicts with bundle_id")
        prefix, colon, flow = self.flow_id.partition(":")
        owner, owner_version = split_bundle_ref(prefix)
        if colon and owner in self.index.bundles:
            if name and name != owner:
                raise Invalid("", "flow_id bundle prefix does not match bundle_id")
            other = "bundle_version" if self.bundle_version else "bundle_id"
            wanted = _agreed(owner_version, wanted, f"flow_id version does not match {other}")
            return self._in_bundle(owner, wanted, flow)
        if colon:
            return self._verbatim()
        return self._in_bundle(name or self._only_bundle(), wanted, self.flow_id)

    def _verbatim(self) -> str:
        if self.bundle_id or self.bundle_version:
            raise self._missing()
        if self.flow_id not in self.index.workflows:
            raise self._missing()
        return self.flow_id

    def _only_bundle(self) -> str:
        names = sorted(self.index.bundles)
        if not names:
            raise self._missing()
        if len(names) > 1:
            listed = ", ".join(names)
            raise Invalid("", f"bundle_id is required when multiple bundles are loaded ({listed})")
        return names[0]

    def _in_bundle(self, name: str, version: str | None, flow: str) -> str:
        versions = self.index.bundles.get(name, {})
        loaded = versions.get(version or (_latest(versions) if versions else ""))
        if loaded is None:
            raise self._missing()
        chosen = flow or _entrypoint(loaded.bundle)
        if chosen not in loaded.bundle.flows:
            raise self._missing()
        return namespaced_id(loaded.bundle.ref, chosen)

    def _missing(self) -> NotFound:
        bundles = _usable(self.index)
        if self.flow_id:
            known = some_of(_flow_ids(bundles))
            return NotFound(f"Flow {self.flow_id!r} not found; known: {known}", code="flow_not_found")
        known = some_of(bundle.ref for bundle in bundles)
        return NotFound(f"Bundle not found; known: {known}", code="bundle_not_found")


def _entrypoint(bundle: Bundle) -> str:
    entrypoints = bundle.manifest.entrypoints
    if len(entrypoints) == 1:
        return entrypoints[0].flow_id
    if bundle.manifest.default_entrypoint:
        return bundle.manifest.default_entrypoint
    names = ", ".join(item.flow_id for item in entrypoints)
    raise Invalid("", f"Bundle {bundle.ref!r} has {len(entrypoints)} entrypoints; specify flow_id ({names})")


def _build_index(items: Mapping[Place, _Loaded | LoadError]) -> _Index:
    usable = {id(item.bundle): item for item in items.values() if isinstance(item, _Loaded)}
    named, doubles = index_bundles(item.bundle for item in usable.values())
    bundles = {name: {ver: usable[id(bundle)] for ver, bundle in versions.items()} for name, versions in named.items()}
    errors = [item for item in items.values() if isinstance(item, LoadError)]
    workflows = {
        workflow_id: loaded
        for versions in bundles.values()
        for loaded in versions.values()
        for workflow_id in loaded.workflows
    }
    return _Index(bundles, workflows, tuple(sorted([*errors, *doubles], key=lambda item: item.file)))


def _compiled(item: Bundle | LoadError, code_runner: CodeRunner | None) -> _Loaded | LoadError:
    if isinstance(item, LoadError):
        return item
    try:
        compiled = compile_bundle(item, code_runner=code_runner)
    except Invalid as error:
        return LoadError(item.file, item.ref, error.why)
    workflows = {spec.workflow_id: spec for flow in compiled.values() for spec in flow.all_workflows}
    listeners = {flow.workflow.workflow_id: flow.listeners for flow in compiled.values() if flow.listeners}
    return _Loaded(item, workflows, listeners, model_defaults(item.flows.values()))


def _latest(versions: Mapping[str, _Loaded]) -> str:
    return latest_version(item.bundle for item in versions.values())


def _agreed(first: str | None, second: str | None, conflict: str) -> str | None:
    if first and second and first != second:
        raise Invalid("", f"{conflict} ({first!r} is not {second!r})")
    return first or second


def _clean(text: str | None) -> str:
    return text.strip() if isinstance(text, str) else ""


def _list_item(bundle: Bundle) -> JsonObject:
    manifest = bundle.manifest
    return {
        "bundle_id": manifest.bundle_id,
        "bundle_version": manifest.bundle_version,
        "bundle_ref": bundle.ref,
        "created_at": manifest.created_at,
        "default_entrypoint": manifest.default_entrypoint,
        "entrypoints": [
            {
                "flow_id": item.flow_id,
                "name": item.name,
                "description": item.description,
                "interfaces": list(item.interfaces),
                **_NOT_DEPRECATED,
            }
            for item in manifest.entrypoints
        ],
    }


def _detail(bundle: Bundle) -> JsonObject:
    shown = _list_item(bundle)
    shown["entrypoints"] = [
        {
            "flow_id": item["flow_id"],
            "workflow_id": namespaced_id(bundle.ref, item["flow_id"]),
            **{key: value for key, value in item.items() if key in ("name", "description", "interfaces")},
            "inputs": start_inputs(bundle.flows[item["flow_id"]]),
            "node_index": node_index(bundle.flows[item["flow_id"]]),
            **_NOT_DEPRECATED,
        }
        for item in shown["entrypoints"]
    ]
    return {**shown, "flows": sorted(bundle.flows), "metadata": bundle.manifest.metadata}
