"""How busy the graphics processors of the machine are."""

from __future__ import annotations

import csv
import math
import shutil
import subprocess
import threading

from ..clock import Clock
from ..jsonvalue import JsonObject

_COMMAND = "nvidia-smi"
_COLUMNS = ("index", "name", "utilization.gpu", "memory.used", "memory.total", "temperature.gpu")
_FIELDS = ("index", "name", "utilization_gpu_pct", "memory_used_mb", "memory_total_mb", "temperature_c")
_TIMEOUT_S = 2.0
_FRESH_S = 2.0
_MOST_GPUS = 64


class HostMetrics:
    """Asks `nvidia-smi`, found on a search path of programs, at most once in two seconds."""

    def __init__(self, *, clock: Clock, path: str) -> None:
        self._clock = clock
        self._path = path
        self._lock = threading.Lock()
        self._known: JsonObject | None = None
        self._asked_at = 0.0

    def gpu(self) -> JsonObject:
        """Return `{supported, source, utilization_gpu_pct, gpus}`, or `{supported: false, reason}`."""
        with self._lock:
            now = self._clock.monotonic()
            if self._known is None or now - self._asked_at >= _FRESH_S:
                self._known, self._asked_at = self._asked(), now
            return self._known

    def _asked(self) -> JsonObject:
        program = shutil.which(_COMMAND, path=self._path)
        if program is None:
            return _unsupported(f"{_COMMAND} is not installed")
        command = [program, f"--query-gpu={','.join(_COLUMNS)}", "--format=csv,noheader,nounits"]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
            return _unsupported(f"{_COMMAND} did not answer ({type(error).__name__})")
        return _read(ran.stdout)


def _read(text: str) -> JsonObject:
    rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if len(row) == len(_FIELDS)]
    gpus = [{field: _value(field, text) for field, text in zip(_FIELDS, row, strict=True)} for row in rows[:_MOST_GPUS]]
    if not gpus:
        return _unsupported(f"{_COMMAND} tells of no graphics processor")
    shares = [gpu["utilization_gpu_pct"] for gpu in gpus]
    busy = [share for share in shares if isinstance(share, float)]
    mean = round(sum(busy) / len(busy), 1) if busy else None
    return {"supported": True, "source": _COMMAND, "utilization_gpu_pct": mean, "gpus": gpus}


def _value(field: str, text: str) -> str | int | float | None:
    if field == "name":
        return text.strip()
    try:
        number = int(text) if field == "index" else float(text)
    except ValueError:
        return None  # such as `[N/A]`
    return number if math.isfinite(number) else None


def _unsupported(reason: str) -> JsonObject:
    return {"supported": False, "reason": reason, "utilization_gpu_pct": None, "gpus": []}
