"""A server made with the server side of the official library, for the tests to talk to.

`python server.py stdio` speaks on its standard input and output; `python server.py http` prints the port it listens on.
With `--tools 1000` it lists so many more tools, 100 to a page.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import anyio
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp.types import (
    AudioContent,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    ResourceLink,
    TextContent,
    TextResourceContents,
    Tool,
    ToolAnnotations,
)

PAGE = 100
NUMBERS = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]}


class Tools:
    """What the server can do, and the tools that were added since it was started."""

    def __init__(self, more: int) -> None:
        self.bus = InMemorySubscriptionBus()
        self.added: list[str] = []
        self._more = [f"tool_{number}" for number in range(more)]

    def listed(self) -> list[Tool]:
        reading = ToolAnnotations(title="Add numbers", read_only_hint=True)
        names = [name for name in dir(self) if name.startswith("do_")]
        own = [Tool(name=name[3:], input_schema={"type": "object"}) for name in names if name != "do_add"]
        odd = [Tool(name="odd.name/1", description="dots and slashes", input_schema={"type": "object"})]
        more = [Tool(name=name, input_schema={"type": "object"}) for name in (*self.added, *self._more)]
        return [Tool(name="add", description="Add.", input_schema=NUMBERS, annotations=reading), *own, *odd, *more]

    async def list_page(self, context: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        start = int(params.cursor) if params is not None and params.cursor else 0
        tools = self.listed()
        following = start + PAGE
        return ListToolsResult(
            tools=tools[start:following], next_cursor=str(following) if following < len(tools) else None
        )

    async def call(self, context: Any, params: CallToolRequestParams) -> CallToolResult:
        name = "odd" if params.name == "odd.name/1" else params.name
        action = getattr(self, f"do_{name}", None)
        if action is None:
            return text(f"called {name}")
        return await action(context, params.arguments or {})

    async def do_add(self, context: Any, arguments: dict[str, Any]) -> CallToolResult:
        total = arguments["a"] + arguments["b"]
        return CallToolResult(content=[TextContent(text=str(total))], structured_content={"sum": total})

    async def do_fail(self, context: Any, arguments: dict[str, Any]) -> CallToolResult:
        return CallToolResult(content=[TextContent(text=f"no such file; {os.environ.get('TOKEN')}")], is_error=True)

    async def do_die(self, context: Any, arguments: dict[str, Any]) -> CallToolResult:
        print("going down with", os.environ.get("TOKEN"), file=sys.stderr, flush=True)
        os._exit(3)

    async def do_hang(self, context: Any, arguments: dict[str, Any]) -> CallToolResult:
        """Write `begun` to a pipe, and `cancelled` once the client says that it does not want the answer."""
        pipe = os.open(arguments["pipe"], os.O_WRONLY)
        os.write(pipe, b"begun")
        try:
            await anyio.sleep_forever()
        finally:
            os.write(pipe, b"cancelled")
            os.close(pipe)
        return text("never")

    async def do_environment(self, context: Any, arguments: dict[str, Any]) -> CallToolResult:
        seen = {"environment": dict(os.environ), "directory": str(Path.cwd()), "pid": os.getpid()}
        return CallToolResult(content=[], structured_content=seen)

    async def do_long(self, context: Any, arguments: dict[str, Any]) -> CallToolResult:
        return text("x" * int(arguments["size"]))

    async def do_key(self, context: Any, arguments: dict[str, Any]) -> CallToolResult:
        return text(str((context.meta or {}).get("abstractgateway/idempotency_key")))

    async def do_header(self, context: Any, arguments: dict[str, Any]) -> CallToolResult:
        return text(context.request.headers.get("authorization", "none"))

    async def do_kinds(self, context: Any, arguments: dict[str, Any]) -> CallToolResult:
        blocks: list[ContentBlock] = [
            TextContent(text="see"),
            ImageContent(data="aGk=", mime_type="image/png"),
            AudioContent(data="aGk=" * int(arguments.get("times", 1)), mime_type="audio/wav"),
            ResourceLink(name="notes", uri="file:///notes.txt"),
            EmbeddedResource(resource=TextResourceContents(uri="file:///a.txt", text="inside", mime_type="text/plain")),
        ]
        return CallToolResult(content=blocks)

    async def do_grow(self, context: Any, arguments: dict[str, Any]) -> CallToolResult:
        self.added.append(arguments["name"])
        await context.session.send_tool_list_changed()
        await self.bus.publish(ToolsListChanged())
        return text("grown")

    async def do_odd(self, context: Any, arguments: dict[str, Any]) -> CallToolResult:
        return text("odd")


def text(words: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=words)])


def made(more: int) -> Server[Any]:
    tools = Tools(more)
    return Server(
        "tests",
        on_list_tools=tools.list_page,
        on_call_tool=tools.call,
        on_subscriptions_listen=ListenHandler(tools.bus),
    )


async def speak(server: Server[Any]) -> None:
    async with stdio_server() as (incoming, outgoing):
        options = server.create_initialization_options(NotificationOptions(tools_changed=True))
        await server.run(incoming, outgoing, options)


def listen(server: Server[Any], port: int) -> None:
    import uvicorn

    found = socket.create_server(("127.0.0.1", port))
    print(found.getsockname()[1], flush=True)
    config = uvicorn.Config(server.streamable_http_app(), log_level="critical", timeout_graceful_shutdown=0)
    asyncio.run(uvicorn.Server(config).serve(sockets=[found]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["stdio", "http"])
    parser.add_argument("--tools", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    if "ALIVE" in os.environ:
        os.write(os.open(os.environ["ALIVE"], os.O_WRONLY), b"begun")  # left open: it ends when the process does
    server = made(arguments.tools)
    if arguments.kind == "stdio":
        anyio.run(speak, server)
    else:
        listen(server, arguments.port)


if __name__ == "__main__":
    main()
