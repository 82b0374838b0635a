"""What a store found broken and went on without: logged, and kept for whoever asks."""

from __future__ import annotations

import logging
from dataclasses import dataclass

_log = logging.getLogger(__name__)

MOST = 1000
"""A directory full of damaged files must not fill the memory as well; the log has all of them."""


@dataclass(frozen=True)
class Problem:
    """One thing that is broken: `where` names the file, run or artifact, `why` what is wrong and what was done."""

    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


class Problems(list[Problem]):
    """The problems of one store, oldest first, each noted once."""

    def note(self, where: str, why: str) -> None:
        """Log a problem and keep it."""
        problem = Problem(where, why)
        if problem in self:
            return
        _log.warning("%s", problem)
        if len(self) < MOST:
            self.append(problem)
