"""Names of bundles: what they are made of, and the file name that goes with them."""

from __future__ import annotations

import re

from ..errors import Invalid

_NOT_IN_ID = re.compile(r"[^A-Za-z0-9_-]+")
_NOT_IN_VERSION = re.compile(r"[^A-Za-z0-9._-]+")
_DASHES = re.compile(r"-{2,}")


def clean_bundle_id(text: str) -> str:
    """Return a text as a bundle id: letters, digits, `_` and `-`; empty when nothing is left."""
    return _DASHES.sub("-", _NOT_IN_ID.sub("-", text.strip())).strip("-")


def clean_version(text: str) -> str:
    """Return a text as a bundle version: letters, digits, `.`, `_` and `-`; empty when nothing is left."""
    return _DASHES.sub("-", _NOT_IN_VERSION.sub("-", text.strip())).strip("-")


def check_bundle_name(bundle_id: str, version: str) -> None:
    """Raise `Invalid`, proposing the right form, unless both can be used as they are."""
    for field, given, clean in (
        ("bundle_id", bundle_id, clean_bundle_id(bundle_id)),
        ("bundle_version", version, clean_version(version)),
    ):
        if not given or given != clean or not clean.strip("."):
            proposal = f"; use {clean!r}" if clean.strip(".") else "; use letters, digits, '_' and '-'"
            raise Invalid(field, f"{given!r} cannot name a bundle{proposal}")


def bundle_file_name(bundle_id: str, version: str) -> str:
    """Return the name of a bundle's file: `id@version.flow`."""
    return f"{bundle_id}@{version}.flow"
