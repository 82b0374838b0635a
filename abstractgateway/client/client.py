"""The client: what a gateway can be asked over HTTP, as methods."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import quote

from ..errors import Unavailable
from ..ids import new_hex
from ..jsonvalue import JsonObject
from .connection import Request, Server
from .following import Entry, Following, OnAway, OnDelta
from .forms import form_of

API = "/api/gateway"
_CHUNK_BYTES = 1 << 20
_LOOK_S = 0.05
_LONGEST_LOOK_S = 1.0


class GatewayClient:
    """A gateway at a URL, asked with a token. May be used by several threads; closing it is optional.

    What the gateway refuses is raised as an embedded one would: `NotFound`, `Conflict`, `Denied`, `Invalid`. While it
    cannot be reached, or says that it cannot answer now, requests are repeated for `patience_s` seconds before
    `Unavailable` is raised; starts and commands carry a key of their own, so that none is done twice. `timeout_s` is
    for how long one request may be silent.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        token: str | None = None,
        *,
        timeout_s: float = 30.0,
        patience_s: float = 10.0,
    ) -> None:
        self._server = Server(url, token=token, timeout_s=timeout_s, patience_s=patience_s)

    def start(
        self,
        *,
        bundle_id: str | None = None,
        bundle_version: str | None = None,
        flow_id: str | None = None,
        input_data: JsonObject | None = None,
        session_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Start a run and return its id; it is durable then. The same `idempotency_key` again starts no second run."""
        body: JsonObject = {
            "bundle_id": bundle_id,
            "bundle_version": bundle_version,
            "flow_id": flow_id,
            "input_data": input_data or {},
            "session_id": session_id,
        }
        key = idempotency_key or new_hex()
        return str(self._post("runs/start", body, Idempotency_Key=key)["run_id"])

    def schedule(self, *, idempotency_key: str | None = None, **fields: Any) -> str:
        """Have a flow run at times, and return the id of the run that sees to it; it is durable then.

        Fields are those of `POST /runs/schedule`: `bundle_id`, `flow_id`, `interval` or `cron`, `timezone`, ….
        """
        key = idempotency_key or new_hex()
        return str(self._post("runs/schedule", fields, Idempotency_Key=key)["run_id"])

    def next_times(self, run_id: str, *, count: int = 10) -> JsonObject:
        """Return the next times of a schedule: `{timezone, paused, items}`. Raises `Conflict` for another run."""
        times: JsonObject = self._get(f"runs/{_part(run_id)}/schedule/next", count=count)
        return times

    def get(self, run_id: str) -> JsonObject:
        """Return a run: its summary, `output` and `blocked_by`. Raises `NotFound` for an unknown one."""
        run: JsonObject = self._get(f"runs/{_part(run_id)}")
        return run

    def list(self, *, page_size: int = 100, **filters: Any) -> Iterator[JsonObject]:
        """Return runs, the most recently changed first, reading page after page as they are asked for.

        Filters are those of `GET /runs`: `status`, `workflow_id`, `session_id`, `parent_run_id`, `root_only`, ….
        """
        cursor: str | None = None
        while True:
            page = self._get("runs", limit=page_size, cursor=cursor, **filters)
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def wait(self, run_id: str, *, patience_s: float | None = None) -> JsonObject:
        """Return a run once it has ended, however long that takes. `patience_s` as for `follow`."""
        for _ in self.follow(run_id, patience_s=patience_s):
            continue
        return self.get(run_id)

    def ledger(self, run_id: str, after: int = 0, *, page_size: int = 1000) -> Iterator[Entry]:
        """Return the records after a cursor that there are now; an unknown run has none."""
        while True:
            page = self._get(f"runs/{_part(run_id)}/ledger", after=after, limit=page_size)
            for cursor, record in enumerate(page["items"], start=after + 1):
                yield Entry(cursor, record)
            if len(page["items"]) < page_size:
                return
            after = page["next_after"]

    def follow(
        self,
        run_id: str,
        after: int = 0,
        *,
        heartbeat_s: float = 5.0,
        patience_s: float | None = None,
        on_delta: OnDelta | None = None,
        on_away: OnAway | None = None,
    ) -> Iterator[Entry]:
        """Return the records after a cursor, then each new one, until the run has ended; every one once, in order.

        A lost connection is opened again where it was lost, for as long as it takes, or until the gateway has been
        away for `patience_s` seconds: then `Unavailable` is raised. `on_delta` is called with what models have said
        so far (`{run_id, content, …}`), which is not kept; `on_away` with the error when the gateway goes away, and
        with None when it is back. Raises `NotFound` for an unknown run.
        """
        reader = Following(
            self._server,
            run_id,
            after,
            heartbeat_s=heartbeat_s,
            patience_s=patience_s,
            on_delta=on_delta,
            on_away=on_away,
        )
        return reader.entries()

    def command(self, run_id: str, type: str, payload: JsonObject | None = None, *, command_id: str = "") -> str:
        """Submit a command and return its id; it is stored durably then. `outcome` says what became of it."""
        chosen = command_id or new_hex()
        body = {"command_id": chosen, "run_id": run_id, "type": type, "payload": payload or {}}
        self._post("commands", body)
        return chosen

    def answer(self, run_id: str, payload: JsonObject, *, wait_key: str | None = None) -> str:
        """Answer what a run waits for; a question takes `{"response": …}`. Returns the command's id."""
        return self.command(run_id, "resume", {"payload": payload, **({"wait_key": wait_key} if wait_key else {})})

    def pause(self, run_id: str, *, reason: str | None = None) -> str:
        """Pause a run and all below it. Returns the command's id."""
        return self.command(run_id, "pause", {"reason": reason} if reason else {})

    def resume(self, run_id: str) -> str:
        """Let a paused run and all below it go on. Returns the command's id."""
        return self.command(run_id, "resume")

    def cancel(self, run_id: str, *, reason: str | None = None) -> str:
        """Cancel a run and all below it. Returns the command's id."""
        return self.command(run_id, "cancel", {"reason": reason} if reason else {})

    def emit_event(self, name: str, payload: Any = None, *, session_id: str, scope: str = "session") -> str:
        """Emit an event to the listeners of a session, or of a wider scope. Returns the command's id."""
        return self.command(session_id, "emit_event", {"name": name, "payload": payload, "scope": scope})

    def outcome(self, command_id: str, *, wait_s: float = 10.0) -> JsonObject:
        """Return what became of a command: `{status, reason, …}`; `pending` when it is still so after `wait_s`."""
        deadline, pause, path = time.monotonic() + wait_s, _LOOK_S, f"{API}/commands/{_part(command_id)}"
        while True:
            # A server that does not know the preference answers at once; then it is asked again and again.
            wait = {"Prefer": f"wait={max(1, math.ceil(deadline - time.monotonic()))}"} if wait_s > 0 else {}
            found: JsonObject = self._server.send(Request("GET", path, headers=wait)).json()
            left = deadline - time.monotonic()
            if found["status"] != "pending" or left <= 0:
                return found
            self._server.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_LOOK_S)

    def bundles(self, **wishes: bool) -> JsonObject:
        """Return the bundles; wishes are `all_versions` and `include_deprecated`."""
        listed: JsonObject = self._get("bundles", **wishes)
        return listed

    def upload_bundle(self, content: bytes, *, overwrite: bool = False) -> JsonObject:
        """Install a bundle and return what was installed; one that would not load is `Invalid`.

        A version that is there already is a `Conflict` unless it may be overwritten.
        """
        installed: JsonObject = self._upload("bundles/upload", {"overwrite": overwrite}, "bundle.flow", content)
        return installed

    def attach(self, session_id: str, content: bytes, *, file_name: str, content_type: str | None = None) -> JsonObject:
        """Store a file for the runs of a session and return the reference that inputs and messages take."""
        fields: JsonObject = {"session_id": session_id, "filename": file_name, "content_type": content_type}
        attached: JsonObject = self._upload("attachments/upload", fields, file_name, content)["attachment"]
        return attached

    def artifacts(self, run_id: str, *, limit: int = 200) -> Any:
        """Return the artifacts of a run, the newest first."""
        return self._get(f"runs/{_part(run_id)}/artifacts", limit=limit)["items"]

    def download(self, run_id: str, artifact_id: str, target: BinaryIO) -> int:
        """Write the bytes of an artifact to a file and return their number.

        Raises `Unavailable` when the connection is lost meanwhile; what was written is then a part.
        """
        path = f"{API}/runs/{_part(run_id)}/artifacts/{_part(artifact_id)}/content"
        try:
            with self._server.open(Request("GET", path)) as response:
                wanted, written = response.getheader("content-length"), 0
                while piece := response.read(_CHUNK_BYTES):
                    written += target.write(piece)
        except OSError as error:
            raise self._server.unreachable(error) from error
        if wanted is not None and written != int(wanted):
            raise Unavailable(f"the connection was lost after {written} of {wanted} bytes", code="unreachable")
        return written

    def close(self) -> None:
        """Close the connections that are kept; the client may be used again."""
        self._server.close()

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _get(self, path: str, **query: Any) -> Any:
        return self._server.send(Request("GET", f"{API}/{path}", query)).json()

    def _post(self, path: str, body: JsonObject, **headers: str) -> Any:
        return self._server.send(Request.with_json(f"{API}/{path}", body, is_repeatable=True, **headers)).json()

    def _upload(self, path: str, fields: JsonObject, file_name: str, content: bytes) -> Any:
        body, kind = form_of(fields, file_name=file_name, content=content)
        request = Request("POST", f"{API}/{path}", {}, body, {"Content-Type": kind}, is_repeatable=False)
        return self._server.send(request).json()


def _part(text: str) -> str:
    """Return a text as one part of a path."""
    return quote(text, safe="")
