"""Files that are attached to a session: uploaded by a client, or taken from the operator's directories."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import posixpath
import re
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

from ..clock import Clock
from ..config import GatewayConfig
from ..errors import Invalid
from ..jsonvalue import JsonObject, dumps_canonical
from ..runtime.draft import Draft
from ..runtime.effects.memory.owners import open_session_owner
from ..runtime.runtime import transact
from ..stores.base import ArtifactMetadata, ArtifactStore, Stores
from .workspace import WorkspaceService

UNKNOWN_TYPE = "application/octet-stream"
_MOST_NAME_BYTES = 255
_PART = 262_144
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_CONTENT_TYPE = re.compile(r"[\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127}(?:\s*;[\x20-\x7e]{0,200})?", re.ASCII)

Transact = Callable[[Callable[[Draft], Any]], Any]
"""Applies a change to a draft of runs and makes it durable."""


class AttachmentService:
    """The use cases around attachments: they are artifacts of the run that holds what belongs to a session."""

    @staticmethod
    def of(config: GatewayConfig, stores: Stores, clock: Clock, workspace: WorkspaceService) -> AttachmentService:
        """Return the service on some stores, with the limits of the settings."""
        return AttachmentService(
            transact=partial(transact, stores, clock, max_inline_bytes=config.max_inline_bytes),
            artifacts=stores.artifacts,
            workspace=workspace,
            max_bytes=config.max_attachment_bytes,
        )

    def __init__(
        self, *, transact: Transact, artifacts: ArtifactStore, workspace: WorkspaceService, max_bytes: int
    ) -> None:
        self._transact = transact
        self._artifacts = artifacts
        self._workspace = workspace
        self._max_bytes = max_bytes

    def upload(
        self,
        source: BinaryIO,
        *,
        session_id: str,
        filename: str | None = None,
        content_type: str | None = None,
        part_filename: str | None = None,
        part_content_type: str | None = None,
    ) -> JsonObject:
        """Attach the bytes of a stream, durably, and return `{ok, run_id, attachment, metadata}`.

        The `part_` values are what the sender's program says of the file; they count where the others are not given.
        Raises `Invalid` for a blank session, a content type that is none, and more bytes than the settings allow.
        """
        session = _checked_session(session_id)
        name = _file_name(filename) or _file_name(part_filename) or "upload.bin"
        kind = _given_type(content_type) or _plausible_type(part_content_type) or _guessed_type(name)
        content = self._received(source)
        return self._attach(session, content, kind, target="client", origin="upload", path=f"client:{name}", name=name)

    def ingest(
        self,
        *,
        session_id: str,
        path: str,
        filename: str | None = None,
        content_type: str | None = None,
        **wishes: Any,
    ) -> JsonObject:
        """Attach a file of the operator's directories as it is now, durably; the answer is that of `upload`.

        `wishes` are the `workspace_` fields of a request. Raises as `upload`, `NotFound` for a missing file, and
        `Denied` for one that lies elsewhere, is hidden or ignored.
        """
        session = _checked_session(session_id)
        kind = _given_type(content_type)
        with self._workspace.open_file(path, wishes) as (file, shown):
            self._check_size(os.fstat(file.fileno()).st_size)
            content = file.read(self._max_bytes + 1)
        self._check_size(len(content))  # it may have grown meanwhile
        name = _file_name(filename) or _file_name(posixpath.basename(shown)) or "upload.bin"
        kind = kind or _guessed_type(name)
        return self._attach(session, content, kind, target="server", origin="workspace", path=shown, name=name)

    def _received(self, source: BinaryIO) -> bytes:
        """Return the bytes of a stream, of which there is never a second copy here."""
        content = source.read(self._max_bytes + 1)
        size = len(content)
        if size > self._max_bytes:
            while part := source.read(_PART):
                size += len(part)
        self._check_size(size)
        return content

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise Invalid(
                "", f"Attachment too large ({size} bytes > {self._max_bytes} bytes)", code="attachment_too_large"
            )

    def _attach(
        self, session_id: str, content: bytes, kind: str, *, target: str, origin: str, path: str, name: str
    ) -> JsonObject:
        digest = hashlib.sha256(content).hexdigest()
        owner_id: str = self._transact(lambda draft: open_session_owner(draft, session_id).state.run_id)
        tags = {
            "kind": "attachment",
            "target": target,
            "source": origin,
            "path": path,
            "filename": name,
            "session_id": session_id,
            "sha256": digest,
        }
        stored = self._stored(content, kind, owner_id, tags)
        return {
            "ok": True,
            "run_id": owner_id,
            "attachment": {
                "$artifact": stored.artifact_id,
                "target": target,
                "filename": name,
                "content_type": stored.content_type,
                "source_path": path,
                "sha256": digest,
            },
            "metadata": stored.to_dict(),
        }

    def _stored(self, content: bytes, kind: str, owner_id: str, tags: dict[str, str]) -> ArtifactMetadata:
        """Keep an attachment; the same bytes under another name or type are another one, which shares the bytes."""
        stored = self._artifacts.store(content, content_type=kind, run_id=owner_id, tags=tags)
        if (stored.content_type, stored.tags) == (kind, tags):
            return stored
        own_id = hashlib.sha256(dumps_canonical([owner_id, kind, tags])).hexdigest()[:32]
        return self._artifacts.store(content, content_type=kind, run_id=owner_id, tags=tags, artifact_id=own_id)


def _checked_session(session_id: str) -> str:
    session = session_id.strip()
    if not session:
        raise Invalid("", "session_id is required")
    return session


def _file_name(given: str | None) -> str:
    """Return the last name of a path that a sender tells, as it can be shown; empty when nothing is left."""
    name = _UNPRINTABLE.sub("", re.split(r"[/\\]", given or "")[-1]).strip()
    return "" if name in (".", "..") else name.encode("utf-8", "replace")[:_MOST_NAME_BYTES].decode("utf-8", "ignore")


def _given_type(given: str | None) -> str:
    kind = (given or "").strip().lower()
    if kind and not _CONTENT_TYPE.fullmatch(kind):
        raise Invalid("content_type", f"{kind!r} is no content type such as 'text/plain'")
    return kind


def _plausible_type(given: str | None) -> str:
    """Return the content type that a sender's program tells, unless it is none."""
    kind = (given or "").strip().lower()
    return kind if _CONTENT_TYPE.fullmatch(kind) else ""


def _guessed_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or UNKNOWN_TYPE
