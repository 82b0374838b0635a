"""What `scripts/bench` and `scripts/streams-at-scale` are made of: gateway processes, readers of streams, figures."""

from __future__ import annotations
