from __future__ import annotations

import pytest

from abstractgateway.bundles.versions import BundleVersions, bumped


@pytest.mark.parametrize(
    ("version", "following"),
    [
        ("0.0.0", "0.0.1"),
        ("1.2.9", "1.2.10"),
        ("1.2", "1.2.1"),
        ("4", "4.0.1"),
        ("1.2.3.4", "1.2.4"),
        ("", "0.0.1"),
        ("beta", "beta.1"),
        ("1.x", "1.x.1"),
    ],
)
def test_the_third_number_goes_up_and_what_is_no_number_gets_one(version: str, following: str) -> None:
    assert bumped(version) == following


def test_a_bundle_without_versions_begins_at_zero() -> None:
    assert BundleVersions().following() == "0.0.0"
    assert BundleVersions().lineage("0.0.0") == {"origin_bundle_version": "0.0.0"}


def test_versions_that_are_taken_are_passed_over() -> None:
    versions = BundleVersions({"beta": "2026-01-02", "beta.1": "2026-01-01"}, "beta", frozenset({"beta.1.1"}))

    assert versions.following() == "beta.1.1.1"


def test_the_origin_is_the_version_that_was_made_first() -> None:
    versions = BundleVersions({"0.0.2": "2026-01-02", "0.0.9": "2026-01-01"}, "0.0.9")

    assert versions.lineage("1.0.0") == {"origin_bundle_version": "0.0.9", "previous_bundle_version": "0.0.9"}
