"""What has to be installed and imported before a gateway runs."""

from __future__ import annotations

import os
import statistics
import subprocess

from .figures import Figures
from .gateway import Subject

_IMPORTS = 5


def installed(subject: Subject) -> Figures:
    """Count what `pip install abstractgateway[http]` brings."""
    found: Figures = subject.program("weigh.py")
    return found


def imported(subject: Subject) -> Figures:
    """Import the library, and what serves it, each in fresh processes."""
    modules = {"import abstractgateway, ms": "abstractgateway", "import what serves it, ms": subject.app}
    return {
        name: statistics.median(_spent_ms(subject, module) for _ in range(_IMPORTS)) for name, module in modules.items()
    }


def _spent_ms(subject: Subject, module: str) -> float:
    code = f"import time; begin = time.perf_counter(); import {module}; print(time.perf_counter() - begin)"
    ran = subprocess.run([str(subject.python), "-c", code], check=True, cwd=os.sep, stdout=subprocess.PIPE, text=True)
    return 1000 * float(ran.stdout.split()[-1])
