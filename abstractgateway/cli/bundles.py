"""The commands `abstractgateway bundle …`: pack flows, and look at what is packed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundles.catalogue import Bundle, Catalogue, open_bundle
from ..bundles.compiled import compile_bundle
from ..bundles.naming import bundle_file_name
from ..bundles.packer import BundleWishes, PackedBundle, pack_bundle, pack_directory
from ..bundles.shared import SharedBundles
from ..compose import shelf_to_read
from ..config import GatewayConfig
from ..errors import Invalid
from ..jsonvalue import JsonObject, loads_foreign
from ..stores.shelf import Shelf
from ..visualflow.compiler import compile_flow
from .remote import show
from .samples import add_sample_command

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_bundle_commands(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `bundle` and its commands to a parser; each sets `command` to the function that does it."""
    bundle = commands.add_parser("bundle", help="pack flows into bundles, and look at bundles")
    chosen = bundle.add_subparsers(required=True, metavar="command")
    _add_pack(chosen)
    inspect = chosen.add_parser("inspect", help="print the manifest and the flows of a bundle as JSON")
    inspect.add_argument("path", type=Path, help="a .flow file, or a directory with the same tree")
    inspect.set_defaults(command=_inspect)
    validate = chosen.add_parser(
        "validate", help="say whether bundles and flows can be run, and what is odd about them"
    )
    validate.add_argument("paths", type=Path, nargs="+", help=".flow files, directories, or flows as .json")
    validate.add_argument("--json", action="store_true", help="print what is said of each as JSON")
    validate.set_defaults(command=_validate)
    listing = chosen.add_parser("list", help="list the bundles of a directory, or those that a gateway serves")
    listing.add_argument(
        "directory", type=Path, nargs="?", help="default: that of the settings, and with postgres the database, too"
    )
    listing.add_argument("--json", action="store_true", help="print them as JSON")
    listing.set_defaults(command=_list)
    add_sample_command(chosen)


def _add_pack(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    pack = commands.add_parser("pack", help="pack a flow and all flows that it runs into one bundle")
    pack.add_argument("root", type=Path, help="the flow as .json, or a directory with the tree of a bundle")
    pack.add_argument("--out", type=Path, help="the file to write (default: <id>@<version>.flow)")
    pack.add_argument("--flows-dir", type=Path, help="where the other flows are (default: beside the root)")
    pack.add_argument("--bundle-id", default="", help="default: the id of the root flow")
    pack.add_argument("--bundle-version", default="0.0.0", help="default: %(default)s")
    pack.add_argument("--entrypoint", action="append", default=[], help="a flow that may be started; may be repeated")
    pack.add_argument("--default-entrypoint", help="the one that is started when a request names none")
    pack.add_argument("--created-at", help="default: when the flows were changed last")
    pack.add_argument("--json", action="store_true", help="print what was packed as JSON")
    pack.set_defaults(command=_pack)


def _pack(arguments: argparse.Namespace) -> None:
    packed = pack_directory(arguments.root) if arguments.root.is_dir() else _packed_flow(arguments)
    manifest = packed.manifest
    name = bundle_file_name(str(manifest["bundle_id"]), str(manifest.get("bundle_version") or "0.0.0"))
    target = arguments.out or Path(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(packed.content)
    except OSError as error:
        raise Invalid("out", f"{str(target)!r} cannot be written: {error.strerror or error}") from error
    if arguments.json:
        show({"file": str(target), "flows": sorted(manifest["flows"]), "warnings": list(packed.warnings)})
        return
    _print_warnings(packed.warnings)
    print(f"packed {len(manifest['flows'])} flows into {target}")


def _packed_flow(arguments: argparse.Namespace) -> PackedBundle:
    wishes = BundleWishes(
        bundle_id=arguments.bundle_id,
        bundle_version=arguments.bundle_version,
        entrypoints=tuple(arguments.entrypoint),
        default_entrypoint=arguments.default_entrypoint,
        created_at=arguments.created_at,
    )
    return pack_bundle(arguments.root, flows_dir=arguments.flows_dir, wishes=wishes)


def _inspect(arguments: argparse.Namespace) -> None:
    bundle = open_bundle(arguments.path)
    manifest = bundle.manifest
    shown = {
        "bundle_ref": bundle.ref,
        "created_at": manifest.created_at,
        "default_entrypoint": manifest.default_entrypoint,
        "entrypoints": [
            {"flow_id": item.flow_id, "name": item.name, "interfaces": list(item.interfaces)}
            for item in manifest.entrypoints
        ],
        "flows": {
            flow_id: {
                "path": manifest.flows[flow_id],
                "name": document.get("name"),
                "nodes": len(document.get("nodes") or []),
                "sha256": bundle.flow_hash(flow_id),
            }
            for flow_id, document in sorted(bundle.flows.items())
        },
        "metadata": manifest.metadata,
    }
    print(json.dumps(shown, indent=2, ensure_ascii=False))


def _validate(arguments: argparse.Namespace) -> None:
    told = [_told_of(path) for path in arguments.paths]
    wrong = [f"{item['path']}: {item['error']}" for item in told if item["error"] is not None]
    if arguments.json:
        show(told)
    else:
        for item in told:
            _print_warnings(f"{item['path']}: {text}" for text in item["warnings"])
            if item["error"] is None:
                print(f"{item['path']}: can be run")
    if wrong:
        raise Invalid("", "\n".join(text.replace("; ", "\n  ") for text in wrong), code="bundle_invalid")


def _told_of(path: Path) -> JsonObject:
    """Return what there is to say of a bundle or a flow: its warnings, or why it cannot be run."""
    try:
        return {"path": str(path), "warnings": _checked(path), "error": None}
    except Invalid as error:
        return {"path": str(path), "warnings": [], "error": str(error)}


def _checked(path: Path) -> list[str]:
    """Return the warnings of a bundle or a flow. Raises `Invalid` for what cannot be run."""
    if path.suffix == ".json":
        try:
            return list(compile_flow(loads_foreign(path.read_bytes(), field="flow")).warnings)
        except OSError as error:
            raise Invalid("flow", f"cannot be read: {error.strerror or error}") from error
    compiled = compile_bundle(open_bundle(path))
    return [f"flow {flow_id!r}: {text}" for flow_id, flow in compiled.items() for text in flow.warnings]


def _list(arguments: argparse.Namespace) -> None:
    config = GatewayConfig.from_env()
    with shelf_to_read(config) if arguments.directory is None else nullcontext() as shelf:
        catalogue = served_bundles(arguments.directory or Path(config.flows_dir), shelf)
    found = [bundle for _, versions in sorted(catalogue.bundles.items()) for _, bundle in sorted(versions.items())]
    if arguments.json:
        show([_as_json(bundle) for bundle in found])
    else:
        for bundle in found:
            names = ", ".join(item.name or item.flow_id for item in bundle.manifest.entrypoints)
            print(f"{bundle.ref}  {names}  ({bundle.file}{' in the database' if bundle.is_shared else ''})")
    if not found:
        print(
            f"no bundle in {arguments.directory or _places(config)}; make one with: abstractgateway bundle pack",
            file=sys.stderr,
        )
    for problem in catalogue.load_errors:
        print(f"{problem.file} is not usable: {problem.error}", file=sys.stderr)


def _places(config: GatewayConfig) -> str:
    return f"the database and {config.flows_dir}" if config.store_backend == "postgres" else str(config.flows_dir)


def served_bundles(directory: Path, shelf: Shelf | None) -> Catalogue:
    """Return the bundles of a directory, and those of the shelf, where there is one, before them.

    Raises `Unavailable` when it cannot be read.
    """
    return SharedBundles(shelf, directory).catalogue() if shelf is not None else Catalogue(directory)


def _as_json(bundle: Bundle) -> JsonObject:
    flows = sorted(bundle.flows)
    return {"bundle_ref": bundle.ref, "file": bundle.file, "in_database": bundle.is_shared, "flows": flows}


def _print_warnings(warnings: Iterable[str]) -> None:
    for text in warnings:
        print(f"warning: {text}", file=sys.stderr)
