"""VisualFlow: the JSON that the visual editor draws, compiled to workflows that the kernel runs."""

from __future__ import annotations

from .compiler import CompiledFlow as CompiledFlow
from .compiler import compile_flow as compile_flow

__all__ = ["CompiledFlow", "compile_flow"]
