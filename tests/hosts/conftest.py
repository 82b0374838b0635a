from __future__ import annotations

from tests.bundles.conftest import manifest as manifest
from tests.bundles.conftest import pack as pack
