"""Print how many packages `abstractgateway[http]` needs in this interpreter's environment, and their megabytes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

REQUIREMENT = re.compile(r"([\w.-]+)\s*(?:\[([\w.,\s-]*)\])?")
EXTRA = re.compile(r"extra\s*==\s*['\"]([\w.-]+)['\"]")


def needed(name: str, extra: str) -> list[metadata.Distribution]:
    """Return what is installed of a package, its extra, and all that they require in turn."""
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    wanted = [(name, ""), (name, extra)]
    while wanted:
        name, extra = one = wanted.pop()
        if one in seen:
            continue
        seen.add(one)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform
            continue
        found[distribution.metadata["Name"].lower()] = distribution
        wanted += requirements(distribution, extra)
    return list(found.values())


def requirements(distribution: metadata.Distribution, extra: str) -> Iterator[tuple[str, str]]:
    """Return the names, each with nothing or one of its extras, that a distribution requires for one of its own."""
    for line in distribution.requires or ():
        requirement, _, marker = line.partition(";")
        extras, found = EXTRA.findall(marker), REQUIREMENT.match(requirement.strip())
        if found and (extra in extras if extras else not extra):
            yield found[1], ""
            yield from ((found[1], each.strip()) for each in (found[2] or "").split(",") if each.strip())


def size(distribution: metadata.Distribution) -> int:
    """Return the bytes of what is installed; of an editable install, those of the packages it points to."""
    files = [Path(str(file.locate())) for file in distribution.files or ()]
    if '"editable": true' in (distribution.read_text("direct_url.json") or ""):
        files = [path for name in (distribution.read_text("top_level.txt") or "").split() for path in sources(name)]
    return sum(path.stat().st_size for path in files if path.is_file())


def sources(package: str) -> Iterator[Path]:
    spec = util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations is not None
    for path in Path(spec.submodule_search_locations[0]).rglob("*"):
        if path.suffix != ".pyc" or f".{sys.implementation.cache_tag}." in path.name:
            yield path


distributions = needed("abstractgateway", "http")
print(json.dumps({"packages": len(distributions), "installed, MB": sum(map(size, distributions)) / 1e6}))
