"""Places inside `run.vars`, written as `a.b.c` or, where names contain dots, as the JSON pointer `/a/b/c`."""

from __future__ import annotations

from typing import Any

from ..jsonvalue import JsonObject

_CONTAINERS = (dict, list, tuple)


def split_path(path: str) -> list[str]:
    """Return the names a path consists of; `~1` and `~0` in a pointer stand for `/` and `~`."""
    if path.startswith("/"):
        return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
    return path.split(".")


def store_at(vars: JsonObject, path: str, value: Any) -> None:
    """Put a value at a place, making the objects on the way; anything else on the way is replaced by an object."""
    *parents, last = split_path(path)
    place = vars
    for name in parents:
        inner = place.get(name)
        if not isinstance(inner, dict):
            inner = place[name] = {}
        place = inner
    place[last] = value


def namespace(vars: JsonObject, name: str) -> JsonObject:
    """Return the object at `vars[name]`, put there when it is missing or not an object."""
    found = vars.get(name)
    if not isinstance(found, dict):
        found = vars[name] = {}
    return found


def copied(value: Any) -> Any:
    """Return a JSON value that shares nothing with the given one."""
    if isinstance(value, dict):
        return {key: copied(item) if isinstance(item, _CONTAINERS) else item for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [copied(item) if isinstance(item, _CONTAINERS) else item for item in value]
    return value
