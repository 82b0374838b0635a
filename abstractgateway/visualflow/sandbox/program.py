"""Source text of a node, checked and compiled in the gateway and executed elsewhere."""

from __future__ import annotations

import ast
import marshal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType

from ...errors import Invalid
from .vocabulary import MODULES, REFUSED_ATTRIBUTES, REFUSED_CALLS

MAX_SOURCE = 100_000
"""Characters; parsing takes up to a hundred times their size in memory."""

_MAX_PROBLEMS = 20
_NEWER = " (Python 3.12 may read it)"


@dataclass(frozen=True)
class Program:
    """Compiled code: `code` is marshalled for the interpreter that made it, `function` is None for an expression."""

    code: bytes
    function: str | None


def code_problems(source: str, function: str | None) -> tuple[str, ...]:
    """Return what keeps a source text from being run, each with its line; nothing when it can be.

    `function` names the function that the text must define; None says that the text is an expression.
    """
    found = _examine(source, function)
    return () if isinstance(found, Program) else found


def is_for_newer_python(problems: tuple[str, ...]) -> bool:
    """Say whether all that is wrong is an f-string that newer versions of Python may read."""
    return bool(problems) and all(problem.endswith(_NEWER) for problem in problems)


def compile_function(source: str, function: str) -> Program:
    """Return the program that calls a function of a module text. Raises `Invalid("code", …)` with all its problems."""
    return _program(source, function, "code")


def compile_expression(source: str) -> Program:
    """Return the program that computes an expression. Raises `Invalid("expression", …)` with all its problems."""
    return _program(source, None, "expression")


def _program(source: str, function: str | None, field: str) -> Program:
    found = _examine(source, function)
    if not isinstance(found, Program):
        raise Invalid(field, "; ".join(found), code="code_invalid")
    return found


@lru_cache(maxsize=512)
def _examine(source: str, function: str | None) -> Program | tuple[str, ...]:
    mode = "exec" if function is not None else "eval"
    tree = _parse(source, mode)
    if isinstance(tree, str):
        return (tree,)
    problems = [f"line {line}: {text}" for line, text in _refusals(tree)]
    if function is not None and not _defines(tree, function):
        problems.append(f"defines no function {function!r}")
    compiled = _compile(tree, mode)
    if isinstance(compiled, str):
        problems.append(compiled)
    if problems or isinstance(compiled, str):
        return tuple(problems[:_MAX_PROBLEMS])
    return Program(marshal.dumps(compiled), function)


def _parse(source: str, mode: str) -> ast.Module | ast.Expression | str:
    if len(source) > MAX_SOURCE:
        return f"has {len(source)} characters; at most {MAX_SOURCE} are run"
    try:
        if mode == "eval":
            return ast.parse(source.strip(), "<code>", "eval")
        return ast.parse(source, "<code>", "exec")
    except SyntaxError as error:
        newer = _NEWER if sys.version_info < (3, 12) and error.msg.startswith("f-string") else ""
        return f"line {error.lineno or 1}: {error.msg}{newer}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"cannot be read: {error or 'it is nested too deeply'}"


def _compile(tree: ast.Module | ast.Expression, mode: str) -> CodeType | str:
    try:
        compiled: CodeType = compile(tree, "<code>", mode, dont_inherit=True, optimize=0)
        return compiled
    except SyntaxError as error:
        return f"line {error.lineno or 1}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"cannot be compiled: {error or 'it is nested too deeply'}"


def _defines(tree: ast.AST, function: str) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name == function:
            return True
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == function:
            return True
        if isinstance(node, ast.alias) and (node.asname or node.name) == function:
            return True
    return False


def _refusals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        for text in _refused(node):
            yield getattr(node, "lineno", 1), text


def _refused(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and _is_inner(node.attr):
        yield f"the attribute {node.attr!r} may not be used"
    elif isinstance(node, ast.Name) and _is_dunder(node.id) and node.id != "__name__":
        yield f"the name {node.id!r} may not be used"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REFUSED_CALLS:
        yield f"{node.func.id!r} may not be called"
    elif isinstance(node, ast.MatchClass):
        yield from (f"the attribute {name!r} may not be used" for name in node.kwd_attrs if _is_inner(name))
    elif isinstance(node, ast.Import):
        yield from (_not_importable(alias.name) for alias in node.names if alias.name not in MODULES)
    elif isinstance(node, ast.ImportFrom) and (node.level or node.module not in MODULES):
        yield _not_importable("." * node.level + (node.module or ""))


def _not_importable(name: str) -> str:
    return f"{name!r} cannot be imported; these can: {', '.join(MODULES)}"


def _is_inner(name: str) -> bool:
    return _is_dunder(name) or name in REFUSED_ATTRIBUTES


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
