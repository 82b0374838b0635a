"""A tool that reads the files that were attached to a session."""

from __future__ import annotations

import io

from ..errors import Invalid, NotFound
from ..ids import is_safe_id
from ..runtime.effects.memory.owners import session_memory_id
from ..runtime.effects.tools import ToolContext
from ..runtime.models import RunState
from ..stores.base import ArtifactMetadata, ArtifactStore
from .files import numbered_lines
from .process import ToolFailed
from .table import BuiltinTool

MOST_BYTES = 26_214_400
_TEXTS = ("text/", "application/json", "application/xml", "application/yaml", "application/x-yaml")


class AttachmentTools:
    """The tool on attachments."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts

    def rows(self) -> tuple[BuiltinTool, ...]:
        line = {"type": "integer", "minimum": 1, "description": "Number of a line, from 1."}
        return (
            BuiltinTool(
                "open_attachment",
                "attachments",
                "Shows a text file that was attached to the session, with line numbers; without arguments, what there "
                "is.",
                "When the conversation mentions an attached file whose text you do not have.",
                {
                    "artifact_id": {"type": "string", "description": "The id of the attachment."},
                    "filename": {"type": "string", "description": "Its name; of several, the newest is meant."},
                    "start_line": line,
                    "end_line": line,
                },
                self.open_attachment,
                optional=("artifact_id", "filename", "start_line", "end_line"),
                examples=({"filename": "report.csv", "start_line": 1, "end_line": 40},),
            ),
        )

    def open_attachment(
        self,
        context: ToolContext,
        artifact_id: str | None = None,
        filename: str | None = None,
        start_line: int = 1,
        end_line: int | None = None,
    ) -> str:
        """Show an attachment of the run's session. Raises `NotFound` for one of another session."""
        known = self._attachments(context.run)
        if artifact_id is None and filename is None:
            return "\n".join(map(_described, known)) or "no file is attached to this session"
        found = next((item for item in known if _is_meant(item, artifact_id, filename)), None)
        if found is None:
            raise NotFound(f"no file {artifact_id or filename!r} is attached to this session", code="file_not_found")
        if not _is_text(found):
            raise ToolFailed(f"{_name(found)!r} is {found.content_type}, no text ({found.size_bytes} bytes)")
        if found.size_bytes > MOST_BYTES:
            raise Invalid("artifact_id", f"has {found.size_bytes} bytes, more than {MOST_BYTES}")
        content = self._artifacts.load(found.artifact_id)
        if content is None:
            raise NotFound(f"the content of {_name(found)!r} is gone", code="file_not_found")
        return numbered_lines(_name(found), io.BytesIO(content), start_line, end_line)

    def _attachments(self, run: RunState) -> list[ArtifactMetadata]:
        """Return what is attached to the session of a run, the newest first."""
        owner = session_memory_id(run.session_id) if run.session_id else ""
        if not is_safe_id(owner):
            return []
        return [item for item in self._artifacts.list_by_run(owner) if item.tags.get("kind") == "attachment"]


def _is_meant(item: ArtifactMetadata, artifact_id: str | None, filename: str | None) -> bool:
    if artifact_id is not None:
        return item.artifact_id == artifact_id
    return filename in (_name(item), item.tags.get("path"))


def _name(item: ArtifactMetadata) -> str:
    return item.tags.get("filename") or item.artifact_id


def _described(item: ArtifactMetadata) -> str:
    return f"{_name(item)}  (artifact_id {item.artifact_id}, {item.content_type}, {item.size_bytes} bytes)"


def _is_text(item: ArtifactMetadata) -> bool:
    kind = item.content_type.partition(";")[0].strip().lower()
    return kind.startswith(_TEXTS) or kind.endswith(("+json", "+xml"))
