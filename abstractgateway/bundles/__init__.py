"""Workflow bundles: `.flow` archives with a manifest and VisualFlow documents."""

from __future__ import annotations

from .archive import Archive as Archive
from .archive import ArchiveLimits as ArchiveLimits
from .archive import open_archive as open_archive
from .catalogue import Bundle as Bundle
from .catalogue import Catalogue as Catalogue
from .catalogue import LoadError as LoadError
from .catalogue import bundle_files as bundle_files
from .catalogue import file_stamp as file_stamp
from .catalogue import latest_version as latest_version
from .catalogue import open_bundle as open_bundle
from .catalogue import split_bundle_ref as split_bundle_ref
from .manifest import Entrypoint as Entrypoint
from .manifest import Manifest as Manifest
from .manifest import parse_manifest as parse_manifest

__all__ = [
    "Archive",
    "ArchiveLimits",
    "Bundle",
    "Catalogue",
    "Entrypoint",
    "LoadError",
    "Manifest",
    "bundle_files",
    "file_stamp",
    "latest_version",
    "open_archive",
    "open_bundle",
    "parse_manifest",
    "split_bundle_ref",
]
