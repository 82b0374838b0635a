"""The drawings of schedules as files, where AbstractGateway keeps them: `dynamic_flows/scheduled_<uuid>.json`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..errors import Unavailable
from ..jsonvalue import JsonObject
from ..stores.disk import Disk

DIRECTORY = "dynamic_flows"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class DrawnSchedules:
    """A directory with one file per schedule. What counts is the schedule's run; the files are for other programs."""

    def __init__(self, directory: Path, *, disk: Disk | None = None) -> None:
        self._directory = directory
        self._disk = disk or Disk()

    def write(self, workflow_id: str, document: JsonObject) -> None:
        """Keep a drawing durably, in place of an earlier one. Raises `Unavailable` when that cannot be done."""
        path = self._directory / f"{_UNSAFE.sub('_', workflow_id)}.json"
        body = json.dumps(document, indent=2, ensure_ascii=False).encode()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._disk.replace(path, body, is_durable=True)
            self._disk.sync_path(self._directory)
        except OSError as error:
            raise Unavailable(f"{path.name!r} cannot be written: {error}", code="store_failed") from error
