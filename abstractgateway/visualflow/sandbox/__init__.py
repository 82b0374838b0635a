"""Code of drawn flows: checked when the flow is compiled, run in a process that can do nothing but compute.

The check gives errors with a line number early; it is not what keeps the gateway safe. The process is: it has no
network, no files, no other processes, a bounded memory, time and output, and it lives for one call.
"""

from __future__ import annotations

from .pool import CodePool as CodePool
from .pool import CodeRunner as CodeRunner
from .pool import shared_pool as shared_pool
from .process import CodeFailed as CodeFailed
from .process import CodeLimits as CodeLimits
from .process import TakesLong as TakesLong
from .program import Program as Program
from .program import code_problems as code_problems
from .program import compile_expression as compile_expression
from .program import compile_function as compile_function
from .program import is_for_newer_python as is_for_newer_python
from .vocabulary import MODULES as MODULES

__all__ = [
    "MODULES",
    "CodeFailed",
    "CodeLimits",
    "CodePool",
    "CodeRunner",
    "Program",
    "TakesLong",
    "code_problems",
    "compile_expression",
    "compile_function",
    "is_for_newer_python",
    "shared_pool",
]
