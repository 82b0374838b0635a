"""The flows that are measured, packed as bundles."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).resolve().parents[2] / "docs" / "samples"
LOOP, ASKER, TICKER = "bench-loop", "bench-asker", "bench-ticker"

Flow = dict[str, Any]


def write_bundles(directory: Path) -> Path:
    """Fill a directory with the sample bundles and the flows below, and return it."""
    for sample in SAMPLES.glob("*.flow"):
        shutil.copy(sample, directory)
    for name, flow in ((LOOP, _loop()), (ASKER, _asker()), (TICKER, _ticker())):
        _pack(directory, name, flow)
    return directory


def _loop() -> Flow:
    """Show a message `count` times."""
    say = _node("say", "answer_user", [_INTO, _pin("message")], [_OUT])
    return _repeating(say, _wire("for", "index", "say", "message"))


def _asker() -> Flow:
    """Ask `count` times, one question after the other."""
    return _repeating(_ask())


def _ticker() -> Flow:
    """Ask once, then show a `text` `count` times with a pause of `pause_s` seconds before each."""
    start = _node("start", "on_flow_start", [], [_OUT, _pin("count"), _pin("pause_s"), _pin("text")])
    rest = _node("rest", "wait_until", [_INTO, _pin("duration")], [_OUT], pinDefaults={"durationType": "seconds"})
    say = _node("say", "answer_user", [_INTO, _pin("message")], [_OUT])
    edges = [
        _then("start", "ask"),
        _then("ask", "for"),
        _wire("for", "loop", "rest", "exec-in"),
        _wire("start", "pause_s", "rest", "duration"),
        _then("rest", "say"),
        _wire("start", "text", "say", "message"),
    ]
    return _flow([start, _ask(), rest, say], edges)


def _repeating(body: Flow, *edges: Flow) -> Flow:
    start = _node("start", "on_flow_start", [], [_OUT, _pin("count")])
    return _flow([start, body], [_then("start", "for"), _wire("for", "loop", body["id"], "exec-in"), *edges])


def _flow(nodes: list[Flow], edges: list[Flow]) -> Flow:
    """Return a flow of these nodes, a loop as often as its start says by `count`, and an end after the loop."""
    nodes = [*nodes, _for(), _node("end", "on_flow_end", [_INTO], [])]
    edges = [*edges, _wire("start", "count", "for", "end"), _wire("for", "done", "end", "exec-in")]
    return {"id": "flow", "name": "flow", "nodes": nodes, "edges": edges, "entryNode": "start"}


def _pin(name: str, kind: str = "any") -> Flow:
    return {"id": name, "label": name, "type": kind}


_INTO, _OUT = _pin("exec-in", "execution"), _pin("exec-out", "execution")


def _node(name: str, kind: str, inputs: list[Flow], outputs: list[Flow], **data: Any) -> Flow:
    place = {"x": 0, "y": 0}
    data = {"nodeType": kind, "inputs": inputs, "outputs": outputs, **data}
    return {"id": name, "type": kind, "position": place, "data": data}


def _ask() -> Flow:
    return _node("ask", "ask_user", [_INTO, _pin("prompt")], [_OUT, _pin("response")], pinDefaults={"prompt": "Go?"})


def _for() -> Flow:
    bounds = [_INTO, _pin("start"), _pin("end"), _pin("step")]
    loop = [_pin("loop", "execution"), _pin("done", "execution"), _pin("i"), _pin("index"), _pin("total")]
    return _node("for", "for", bounds, loop, pinDefaults={"start": 0, "step": 1})


def _wire(source: str, out: str, target: str, into: str) -> Flow:
    name = f"{source}-{out}-{target}-{into}"
    return {"id": name, "source": source, "sourceHandle": out, "target": target, "targetHandle": into}


def _then(source: str, target: str) -> Flow:
    return _wire(source, "exec-out", target, "exec-in")


def _pack(directory: Path, name: str, flow: Flow) -> None:
    manifest = {
        "bundle_format_version": "1",
        "bundle_id": name,
        "bundle_version": "1.0.0",
        "created_at": "2026-01-01T00:00:00+00:00",
        "entrypoints": [{"flow_id": "flow", "name": name}],
        "flows": {"flow": "flows/flow.json"},
    }
    with zipfile.ZipFile(directory / f"{name}@1.0.0.flow", "w") as bundle:
        bundle.writestr("manifest.json", json.dumps(manifest))
        bundle.writestr("flows/flow.json", json.dumps(flow))
