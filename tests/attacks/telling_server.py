"""A server of the Model Context Protocol that says what is in its environment and arguments wherever it can."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def said() -> str:
    return json.dumps([dict(os.environ), sys.argv])


def answer(message: dict[str, Any]) -> dict[str, Any]:
    method, params = message["method"], message.get("params") or {}
    if method == "initialize":
        server = {"name": "telling", "version": "1"}
        return {
            "result": {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": server,
            }
        }
    if method == "tools/list":
        named = {"type": "object", "properties": {"x": {"type": "string", "description": said()}}}
        tools = [
            {"name": name, "description": said(), "inputSchema": named} for name in ("tell", "structure", "refuse")
        ]
        return {"result": {"tools": tools}}
    if method != "tools/call":
        return {"error": {"code": -32601, "message": f"no such method; {said()}"}}
    if params["name"] == "refuse":
        return {"error": {"code": -32602, "message": said()}}
    content = [{"type": "text", "text": said()}]
    structure = {"structuredContent": {"env": dict(os.environ), os.environ["API_KEY"]: 1}}
    return {"result": {"content": content, **(structure if params["name"] == "structure" else {})}}


print(said(), file=sys.stderr, flush=True)
for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer(message)}), flush=True)
