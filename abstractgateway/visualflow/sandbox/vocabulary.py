"""What code of drawn flows may name: builtins and modules that compute and nothing else."""

from __future__ import annotations

MODULES = (
    "base64",
    "bisect",
    "collections",
    "collections.abc",
    "copy",
    "datetime",
    "decimal",
    "fractions",
    "functools",
    "heapq",
    "itertools",
    "json",
    "math",
    "random",
    "re",
    "statistics",
    "string",
    "textwrap",
    "unicodedata",
)
"""They are loaded before the process is closed; what they load later must be loaded by then as well."""

BUILTINS = (
    *("abs", "all", "any", "ascii", "bin", "bool", "bytearray", "bytes", "callable", "chr", "classmethod", "complex"),
    *("dict", "divmod", "enumerate", "filter", "float", "format", "frozenset", "hasattr", "hash", "hex", "int"),
    *("isinstance", "issubclass", "iter", "len", "list", "map", "max", "min", "next", "object", "oct", "ord", "pow"),
    *("property", "range", "repr", "reversed", "round", "set", "slice", "sorted", "staticmethod", "str", "sum"),
    *("super", "tuple", "type", "zip", "Ellipsis", "NotImplemented", "__build_class__"),
)
"""Besides these: every exception class, `import` of the modules above, and `print`, which prints nothing."""

REFUSED_CALLS = frozenset({"exec", "eval", "compile", "__import__", "open", "input", "globals", "locals", "vars"})

REFUSED_ATTRIBUTES = frozenset(
    {
        *("gi_frame", "gi_code", "cr_frame", "cr_code", "ag_frame", "ag_code", "tb_frame", "tb_next"),
        *("f_back", "f_builtins", "f_code", "f_globals", "f_locals"),
    }
)
