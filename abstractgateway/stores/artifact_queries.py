"""What every artifact store answers on top of its port: texts, JSON values, searches, and deleting a run's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..errors import Conflict, Invalid, Unavailable
from ..jsonvalue import dumps, loads
from ..runtime.artifact_refs import get_artifact_id, is_artifact_ref
from ..runtime.offloading import is_owned_by_run
from .base import ArtifactMetadata, ArtifactStore, OpenArtifact


class ArtifactQueries(ABC):
    """The methods of AbstractRuntime's artifact stores beyond the port."""

    @abstractmethod
    def store(
        self,
        content: bytes,
        *,
        content_type: str = "application/octet-stream",
        run_id: str | None = None,
        tags: dict[str, str] | None = None,
        artifact_id: str | None = None,
    ) -> ArtifactMetadata: ...

    @abstractmethod
    def load(self, artifact_id: str) -> bytes | None: ...

    @abstractmethod
    def read(self, artifact_id: str, start: int = 0, length: int | None = None) -> bytes | None: ...

    @abstractmethod
    def get_metadata(self, artifact_id: str) -> ArtifactMetadata | None: ...

    @abstractmethod
    def list_by_run(self, run_id: str) -> list[ArtifactMetadata]: ...

    @abstractmethod
    def _remove(self, artifact_id: str) -> None:
        """Take a description away; the bytes stay until `gc`."""

    @abstractmethod
    def _all(self) -> list[ArtifactMetadata]:
        """Return what is known of every artifact, the newest first."""

    def open(self, artifact_id: str) -> OpenArtifact | None:
        """Return what reads parts of the bytes, or None for an unknown id. Raises `Unavailable` for a damaged one."""
        metadata = self.get_metadata(artifact_id)
        if metadata is None or self.read(artifact_id, 0, 0) is None:
            return None

        def read(start: int, length: int) -> bytes:
            found = self.read(artifact_id, start, length)
            if found is None:
                raise Unavailable(f"artifact {artifact_id!r} was deleted", code="artifact_damaged")
            return found

        return OpenArtifact(metadata, read, is_local=False)

    def store_text(self, text: str, *, content_type: str = "text/plain", **options: Any) -> ArtifactMetadata:
        """Keep a text as UTF-8; further names as for `store`."""
        return self.store(text.encode(), content_type=content_type, **options)

    def store_json(self, value: Any, **options: Any) -> ArtifactMetadata:
        """Keep the compact JSON of a value; further names as for `store`. Raises `Invalid` for one that has none."""
        return self.store(dumps(value, field="artifact"), content_type="application/json", **options)

    def load_text(self, artifact_id: str) -> str | None:
        """Return the text of an artifact, or None for an unknown id. Raises `Invalid` when it is not UTF-8."""
        content = self.load(artifact_id)
        try:
            return content.decode() if content is not None else None
        except UnicodeDecodeError as error:
            raise Invalid("artifact_id", f"{artifact_id!r} is not text: {error}") from error

    def load_json(self, artifact_id: str) -> Any:
        """Return the JSON value of an artifact, or None for an unknown id. Raises `Invalid` when it is not JSON."""
        content = self.load(artifact_id)
        return loads(content, field=f"artifact {artifact_id}") if content is not None else None

    def exists(self, artifact_id: str) -> bool:
        """Say whether there is an artifact with this id."""
        return self.get_metadata(artifact_id) is not None

    def list_all(self, limit: int | None = 1000) -> list[ArtifactMetadata]:
        """Return up to `limit` artifacts (None: all of them), the newest first. Reads every description."""
        return self._all()[: max(0, limit) if limit is not None else None]

    def search(
        self,
        *,
        run_id: str | None = None,
        content_type: str | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int = 1000,
    ) -> list[ArtifactMetadata]:
        """Return up to `limit` artifacts for which everything holds that is given, the newest first.

        All of the tags must be there. Without `run_id` every description is read.
        """
        wanted = dict(tags or {})
        found = [
            item
            for item in (self._all() if run_id is None else self.list_by_run(run_id))
            if (content_type is None or item.content_type == content_type) and wanted.items() <= item.tags.items()
        ]
        return found[: max(0, limit)]

    def delete(self, artifact_id: str) -> bool:
        """Forget an artifact; False for an unknown id. The bytes stay until `gc`.

        Raises `Conflict` for a value that was offloaded from a run's ledger or state: it goes with its run only.
        """
        known = self.get_metadata(artifact_id)
        if known is None:
            return False
        if is_owned_by_run(known.tags):
            raise Conflict(
                f"artifact {artifact_id!r} is a part of run {known.run_id!r}; delete the run's with delete_by_run"
            )
        self._remove(artifact_id)
        return True

    def delete_by_run(self, run_id: str, *, keep: Collection[str] = ()) -> int:
        """Forget all artifacts of a run but those to `keep`, and return how many there were; for runs that are gone.

        The ledger of the run may refer to them: nothing offloaded from it can be read back afterwards.
        """
        found = [item for item in self.list_by_run(run_id) if item.artifact_id not in keep]
        for item in found:
            self._remove(item.artifact_id)
        return len(found)


def resolve_artifact(ref: Any, store: ArtifactStore) -> bytes | None:
    """Return the bytes that a reference stands for; None when it is none, or when there is no such artifact."""
    return store.load(get_artifact_id(ref)) if is_artifact_ref(ref) else None


def newest_first(found: Iterable[ArtifactMetadata]) -> list[ArtifactMetadata]:
    """Return artifacts by the time they were stored, the newest first."""
    return sorted(found, key=lambda item: item.created_at, reverse=True)
