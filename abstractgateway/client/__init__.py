"""A client of a gateway over HTTP, with the standard library alone.

from abstractgateway.client import GatewayClient

client = GatewayClient("http://127.0.0.1:8080", token="…")
run_id = client.start(bundle_id="hello", input_data={"prompt": "World"})
for entry in client.follow(run_id):
    print(entry.cursor, entry.record)
"""

from __future__ import annotations

from .client import GatewayClient
from .following import Entry

__all__ = ["Entry", "GatewayClient"]
