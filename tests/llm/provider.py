"""A model provider on loopback that says, byte for byte, what a test wants it to say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-a-secret-key-of-a-test-0123456789"
PATIENCE_S = 15.0


@dataclass
class Reply:
    """An answer: its parts are sent one by one, and with `is_cut` fewer bytes come than were announced."""

    parts: Iterable[bytes] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    is_cut: bool = False


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    content: bytes = b""
    method: str = "POST"


Script = Callable[[Request], Reply | None]


class Provider:
    """Serves while the block lasts; replies are used one after the other, the last of them again and again.

    A reply of None closes the connection without an answer.
    """

    def __init__(self, *replies: Reply | None, script: Script | None = None) -> None:
        self.requests: list[Request] = []
        self._replies = list(replies)
        self._script = script
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [request.body for request in self.requests]

    def __enter__(self) -> Provider:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE_S)

    def _reply(self, request: Request) -> Reply | None:
        with self._lock:
            self.requests.append(request)
            if self._script is not None:
                return self._script(request)
            return self._replies[min(len(self.requests), len(self._replies)) - 1]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = json.loads(content) if headers.get("content-type") == "application/json" else {}
                request = Request(self.path, headers, body, content, self.command)
                reply = provider._reply(request)
                self.close_connection = reply is None or reply.is_cut
                if reply is not None:
                    send(self, reply)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Say nothing."""

        return Handler


def send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    handler.send_response(reply.status)
    for name, value in {"Content-Type": "application/json", **reply.headers}.items():
        handler.send_header(name, value)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    try:
        for part in reply.parts:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            handler.wfile.flush()
        if not reply.is_cut:
            handler.wfile.write(b"0\r\n\r\n")
    except OSError:
        handler.close_connection = True  # the reader has had enough


def said(value: Any, status: int = 200, **headers: str) -> Reply:
    """A JSON answer."""
    return Reply([json.dumps(value).encode()], status, {name.replace("_", "-"): text for name, text in headers.items()})


def failed(status: int, message: str = "no", **headers: str) -> Reply:
    return said({"error": {"message": message, "type": "t"}}, status, **headers)


def streamed(events: Iterable[Any], *, is_cut: bool = False, has_end: bool = True) -> Reply:
    """An answer as server-sent events."""

    def parts() -> Iterator[bytes]:
        for event in events:
            yield f"event: {event.get('type', 'chunk')}\ndata: {json.dumps(event)}\n\n".encode()
        if has_end and not is_cut:
            yield b"data: [DONE]\n\n"

    return Reply(parts(), headers={"Content-Type": "text/event-stream; charset=utf-8"}, is_cut=is_cut)


def chat(content: Any = "hello", *, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion of OpenAI."""
    return {
        "id": "chatcmpl-1",
        "model": "m-2026",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    }


def chunk(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "model": "m-2026", "choices": [choice]}


def chat_chunks(*texts: str) -> list[dict[str, Any]]:
    usage = {
        "id": "chatcmpl-1",
        "choices": [],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    }
    return [chunk(role="assistant"), *(chunk(content=text) for text in texts), chunk("stop"), usage]


def tool_call(name: str, arguments: str, identity: str = "call_1") -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def message(*blocks: dict[str, Any], stop_reason: str = "end_turn") -> dict[str, Any]:
    """A message of Anthropic."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": list(blocks),
        "stop_reason": stop_reason,
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}
