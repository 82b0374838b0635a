"""A server in a few lines of Python, which starts fast, speaks the older form of the protocol, and does odd things.

Its tools are `add` and those that have a function here; with an argument N it has N more.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

Message = dict[str, Any]


def say(message: Message) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


class Plain:
    def __init__(self, more: int) -> None:
        self._more = [f"tool_{number}" for number in range(more)]
        self._pipes: dict[Any, int] = {}

    def hear(self, message: Message) -> None:
        method, params = message.get("method"), message.get("params") or {}
        if method == "initialize":
            server = {"name": "plain", "version": "1"}
            capabilities = {"tools": {"listChanged": True}}
            version = params["protocolVersion"]
            self._answer(message, {"protocolVersion": version, "capabilities": capabilities, "serverInfo": server})
        elif method == "tools/list":
            self._answer(
                message, {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in self._names()]}
            )
        elif method == "tools/call":
            action = getattr(self, f"do_{params['name']}", None)
            result = action(message["id"], params.get("arguments") or {}) if action else f"called {params['name']}"
            if result is not None:
                self._answer(message, {"content": [{"type": "text", "text": result}]})
        elif method == "notifications/cancelled":
            os.write(self._pipes[params["requestId"]], b"cancelled")
        elif "id" in message:
            say({"id": message["id"], "error": {"code": -32601, "message": "no such method"}})

    def do_add(self, call: Any, arguments: Message) -> str:
        return str(arguments["a"] + arguments["b"])

    def do_die(self, call: Any, arguments: Message) -> None:
        print("going down with", os.environ.get("TOKEN"), file=sys.stderr, flush=True)
        os._exit(3)

    def do_hang(self, call: Any, arguments: Message) -> None:
        """Write `begun` to a pipe, and `cancelled` once the client says that it does not want the answer."""
        self._pipes[call] = os.open(arguments["pipe"], os.O_WRONLY)
        os.write(self._pipes[call], b"begun")

    def do_spoil(self, call: Any, arguments: Message) -> None:
        sys.stdout.write('{"jsonrpc": "2.0", "id": \n')
        sys.stdout.flush()

    def do_flood(self, call: Any, arguments: Message) -> None:
        """Write a line that does not end."""
        while True:
            os.write(1, b"x" * 65_536)

    def do_nonsense(self, call: Any, arguments: Message) -> None:
        say({"id": call, "result": {"content": "not a list"}})

    def do_refuse(self, call: Any, arguments: Message) -> None:
        say({"id": call, "error": {"code": -32602, "message": f"not with {os.environ.get('TOKEN')}"}})

    def do_grow(self, call: Any, arguments: Message) -> str:
        self._more.append(arguments["name"])
        say({"method": "notifications/tools/list_changed"})
        return "grown"

    def _names(self) -> list[str]:
        return [*(name[3:] for name in dir(self) if name.startswith("do_")), *self._more]

    def _answer(self, message: Message, result: Message) -> None:
        say({"id": message["id"], "result": result})


def main() -> None:
    if "ALIVE" in os.environ:
        os.write(os.open(os.environ["ALIVE"], os.O_WRONLY), b"begun")  # left open: it ends when the process does
    server = Plain(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print("[INFO] what is printed here is no message", flush=True)
    for line in sys.stdin:
        server.hear(json.loads(line))


main()
