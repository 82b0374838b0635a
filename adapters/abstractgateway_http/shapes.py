"""The shapes of answers, as JSON schemas. Objects may gain further keys; those that are named are always there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def shape(**properties: Schema) -> Schema:
    """Return the schema of an object that has these keys."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def with_optional(schema: Schema, **properties: Schema) -> Schema:
    """Return the schema of an object that may also have these keys."""
    return {**schema, "properties": {**schema["properties"], **properties}}


def listed(items: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def maybe(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def keyed(values: Schema) -> Schema:
    """Return the schema of an object with any keys and values of one shape."""
    return {"type": "object", "additionalProperties": values}


def named(name: str) -> Schema:
    """Return a reference to a schema of `COMPONENTS`."""
    return {"$ref": f"#/components/schemas/{name}"}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
ANYTHING: Schema = {}

_BUNDLE_NAME = {"bundle_id": TEXT, "bundle_version": TEXT, "bundle_ref": TEXT}
_RELOADED = {"gateway_reloaded": FLAG, "gateway_reload_error": maybe(TEXT)}
_ENTRYPOINT = {
    "flow_id": TEXT,
    "name": maybe(TEXT),
    "description": TEXT,
    "interfaces": listed(TEXT),
}
_DEPRECATION = {"deprecated": FLAG, "deprecated_at": maybe(TEXT), "deprecated_reason": maybe(TEXT)}
_BUNDLE = {**_BUNDLE_NAME, "created_at": TEXT, "default_entrypoint": maybe(TEXT)}
_SUMMARY = {
    "run_id": TEXT,
    "workflow_id": TEXT,
    "status": {"enum": ["running", "waiting", "completed", "failed", "cancelled"]},
    "current_node": maybe(TEXT),
    "created_at": TEXT,
    "updated_at": TEXT,
    "actor_id": maybe(TEXT),
    "session_id": maybe(TEXT),
    "parent_run_id": maybe(TEXT),
    "error": maybe(TEXT),
    "flow_warnings": maybe(listed(TEXT)),
    "paused": FLAG,
    "pause_reason": maybe(TEXT),
    "paused_at": maybe(TEXT),
    "resumed_at": maybe(TEXT),
    "waiting": maybe(OBJECT),
    "is_scheduled": FLAG,
    "schedule": maybe(OBJECT),
    "limits": maybe(OBJECT),
    "revision": COUNT,
}
_PIN = {"id": TEXT, "label": TEXT, "type": TEXT}
_ARTIFACT = {
    "artifact_id": TEXT,
    "content_type": TEXT,
    "size_bytes": COUNT,
    "created_at": TEXT,
    "tags": keyed(TEXT),
}

_MADE_ARTIFACT = {"$artifact": TEXT, "content_type": TEXT, "filename": TEXT, "sha256": TEXT, "size_bytes": COUNT}
_ANSWERED = {"ok": FLAG, "run_id": TEXT, "provider": maybe(TEXT), "model": maybe(TEXT), "generated_at": TEXT}
_MADE = {"ok": FLAG, "run_id": TEXT, "request_id": TEXT}
_MEDIA_MODEL = {"available": FLAG, "provider": maybe(TEXT), "model": maybe(TEXT)}
_CACHE_KIND = shape(supported=FLAG, mode=TEXT)

COMPONENTS: Mapping[str, Schema] = {
    "Error": shape(
        detail={"anyOf": [TEXT, listed(named("FieldProblem"))]},
        code=TEXT,
        request_id=TEXT,
    ),
    "FieldProblem": shape(type=TEXT, loc=listed({"type": ["string", "integer"]}), msg=TEXT, input=ANYTHING),
    "BundleList": shape(
        items=listed(shape(**_BUNDLE, entrypoints=listed(shape(**_ENTRYPOINT, **_DEPRECATION)))),
        default_bundle_id=maybe(TEXT),
        load_errors=listed(shape(file=TEXT, bundle_ref=maybe(TEXT), error=TEXT)),
    ),
    "Bundle": shape(
        **_BUNDLE,
        entrypoints=listed(
            shape(
                **_ENTRYPOINT,
                **_DEPRECATION,
                workflow_id=TEXT,
                inputs=listed(shape(**_PIN)),
                node_index=keyed(shape(type=TEXT, label=TEXT)),
            )
        ),
        flows=listed(TEXT),
        metadata=OBJECT,
    ),
    "BundleInstalled": shape(
        ok=FLAG,
        **_BUNDLE_NAME,
        sha256=TEXT,
        default_entrypoint=maybe(TEXT),
        entrypoints=listed(shape(**_ENTRYPOINT)),
        **_RELOADED,
    ),
    "BundleRemoved": shape(ok=FLAG, bundle_ref=TEXT, removed=COUNT, **_RELOADED),
    "BundlesReloaded": shape(ok=FLAG, bundle_ids=listed(TEXT), count=COUNT),
    "Deprecated": shape(ok=FLAG, bundle_id=TEXT, flow_id=TEXT, deprecated_at=TEXT),
    "Undeprecated": shape(ok=FLAG, bundle_id=TEXT, flow_id=TEXT, removed=FLAG),
    "Flow": shape(**_BUNDLE_NAME, flow_id=TEXT, workflow_id=TEXT, flow=OBJECT),
    "InputSchema": shape(
        **_BUNDLE_NAME,
        flow_id=TEXT,
        workflow_id=TEXT,
        version=COUNT,
        inputs=listed(shape(**_PIN, required=FLAG, schema=OBJECT)),
        defaults=OBJECT,
        input_data_schema=OBJECT,
    ),
    "MadeFlow": shape(workflow_id=TEXT, flow=OBJECT, source={"enum": ["dynamic"]}),
    "ScheduleTimes": shape(
        run_id=TEXT,
        timezone=TEXT,
        paused=FLAG,
        items=listed(shape(nominal_time=TEXT, local_time=TEXT, due_at=TEXT)),
    ),
    "Started": with_optional(shape(run_id=TEXT), run=named("Run")),
    "Run": shape(
        **_SUMMARY,
        ledger_len=COUNT,
        output=ANYTHING,
        blocked_by=maybe(OBJECT),
        usage=shape(tokens=COUNT, model_calls=COUNT, tool_calls=COUNT, wall_s=maybe({"type": "number"})),
        budget=maybe(keyed(shape(limit={"type": "number"}, used={"type": "number"}))),
    ),
    "RunList": with_optional(shape(items=listed(shape(**_SUMMARY))), next_cursor=TEXT),
    "InputData": shape(
        run_id=TEXT,
        workflow_id=TEXT,
        bundle_id=maybe(TEXT),
        flow_id=maybe(TEXT),
        pin_ids=listed(TEXT),
        input_data=OBJECT,
        workspace=OBJECT,
    ),
    "HistoryBundle": shape(
        version=COUNT,
        generated_at=TEXT,
        root_run_id=TEXT,
        run=OBJECT,
        workflow_snapshot=maybe(OBJECT),
        input_data=OBJECT,
        ledgers=keyed(OBJECT),
        timeline=listed(OBJECT),
        session=maybe(OBJECT),
    ),
    "LedgerPage": shape(items=listed(named("LedgerRecord")), next_after=COUNT),
    "LedgerPages": shape(runs=keyed(named("LedgerPage"))),
    "LedgerRecord": shape(run_id=TEXT, step_id=TEXT, node_id=TEXT, status=TEXT, effect=maybe(OBJECT)),
    "Receipt": with_optional(shape(accepted=FLAG, duplicate=FLAG, seq=COUNT), outcome=named("CommandOutcome")),
    "CommandOutcome": shape(
        command_id=TEXT,
        run_id=TEXT,
        type=TEXT,
        seq=COUNT,
        status={"enum": ["pending", "applied", "rejected"]},
        reason=maybe(TEXT),
        applied_at=maybe(TEXT),
    ),
    "KnowledgeFound": shape(
        ok=FLAG,
        scope=TEXT,
        owner_id=maybe(TEXT),
        count=COUNT,
        items=listed(named("Statement")),
        warnings=maybe(listed(TEXT)),
        store=with_optional(shape(backend=TEXT, require_vector=FLAG), path=TEXT),
    ),
    "Statement": with_optional(
        shape(
            assertion_id=TEXT,
            subject=TEXT,
            predicate=TEXT,
            object=TEXT,
            scope=TEXT,
            observed_at=TEXT,
            provenance=OBJECT,
            attributes=OBJECT,
        ),
        owner_id=TEXT,
        valid_from=TEXT,
        valid_until=TEXT,
        confidence={"type": "number"},
    ),
    "Visualflow": with_optional(
        shape(id=TEXT),
        name=TEXT,
        description=TEXT,
        interfaces=listed(TEXT),
        nodes=listed(OBJECT),
        edges=listed(OBJECT),
        entryNode=maybe(TEXT),
        created_at=TEXT,
        updated_at=TEXT,
    ),
    "Published": shape(ok=FLAG, **_BUNDLE_NAME, bundle_path=TEXT, **_RELOADED, warnings=listed(TEXT)),
    "Attached": shape(
        ok=FLAG,
        run_id=TEXT,
        attachment=shape(
            **dict.fromkeys(("$artifact", "target", "filename", "content_type", "source_path", "sha256"), TEXT)
        ),
        metadata=named("Artifact"),
    ),
    "WorkspacePolicy": shape(
        ok=FLAG,
        policy=shape(
            target=TEXT,
            mounts=listed(shape(name=TEXT)),
            max_attachment_bytes=COUNT,
            client_workspace_scope_overrides=FLAG,
            allowed_access_modes=listed(TEXT),
        ),
    ),
    "FilesFound": with_optional(
        shape(items=listed(with_optional(shape(path=TEXT, size_bytes=COUNT), mount=TEXT))), error=TEXT
    ),
    "FileText": shape(path=TEXT, content=TEXT),
    "Embeddings": shape(
        object=TEXT,
        provider=TEXT,
        model=TEXT,
        dimension=COUNT,
        data=listed(shape(object=TEXT, index=COUNT, embedding=listed({"type": "number"}))),
    ),
    "EmbeddingsConfig": with_optional(shape(ok=FLAG, provider=TEXT, model=TEXT, dimension=COUNT), error=TEXT),
    "ToolList": shape(
        items=listed(
            shape(
                name=TEXT,
                description=TEXT,
                parameters=OBJECT,
                required_args=listed(TEXT),
                examples=listed(OBJECT),
                toolset=TEXT,
            )
        ),
        tool_mode=TEXT,
    ),
    "ProviderList": with_optional(
        shape(
            items=listed(shape(name=TEXT, display_name=TEXT, status=TEXT, models=listed(TEXT))),
            default_provider=maybe(TEXT),
            default_model=maybe(TEXT),
        ),
        default_source=TEXT,
        default_error=TEXT,
        error=TEXT,
    ),
    "ModelList": with_optional(shape(provider=TEXT, models=listed(TEXT)), error=TEXT),
    "ModelCapabilities": shape(model=TEXT, capabilities=OBJECT),
    "GpuMetrics": with_optional(
        shape(supported=FLAG, utilization_gpu_pct=maybe({"type": "number"}), gpus=listed(OBJECT)),
        reason=TEXT,
        source=TEXT,
    ),
    "RunSummary": shape(**_ANSWERED, summary=TEXT),
    "RunAnswer": shape(**_ANSWERED, answer=TEXT),
    "ChatThread": shape(
        ok=FLAG,
        run_id=TEXT,
        workflow_id=TEXT,
        thread_id=TEXT,
        created_at=TEXT,
        duplicate=FLAG,
        title=TEXT,
        message_count=COUNT,
        chat_artifact=shape(**_MADE_ARTIFACT),
    ),
    "SpeechMade": shape(**_MADE, audio_artifact=shape(**_MADE_ARTIFACT)),
    "TranscriptMade": shape(**_MADE, text=TEXT, transcript_artifact=shape(**_MADE_ARTIFACT)),
    "ImageMade": shape(
        **_MADE,
        supported=FLAG,
        image_artifact=maybe(shape(**_MADE_ARTIFACT)),
        event_name=TEXT,
        code=maybe(TEXT),
        error=maybe(TEXT),
    ),
    "Voices": shape(**_MEDIA_MODEL, voices=listed(OBJECT)),
    "MediaModels": shape(**_MEDIA_MODEL, models=listed(OBJECT)),
    "PromptCache": with_optional(
        shape(supported=FLAG, operation=TEXT, provider=TEXT, model=TEXT, capabilities=_CACHE_KIND),
        key=TEXT,
        items=listed(OBJECT),
        code=TEXT,
        error=TEXT,
    ),
    "SessionPromptCache": with_optional(
        shape(
            ok=FLAG,
            supported=FLAG,
            operation=TEXT,
            mode=TEXT,
            session_id=TEXT,
            namespace=TEXT,
            prompt_cache_key=TEXT,
            runtime_hint=OBJECT,
            identity=OBJECT,
            capabilities=_CACHE_KIND,
        ),
        code=TEXT,
        error=TEXT,
        unused=listed(TEXT),
    ),
    "ArtifactList": shape(items=listed(shape(**_ARTIFACT))),
    "Artifact": shape(**_ARTIFACT, blob_id=TEXT, run_id=maybe(TEXT)),
}
