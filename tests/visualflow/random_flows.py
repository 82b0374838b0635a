"""Flows that nobody would draw: nodes that compute, wired at random, in a line with branches and loops."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from abstractgateway.visualflow.node import Pure
from abstractgateway.visualflow.nodes.registry import REGISTRY
from tests.visualflow.conftest import flow, node

Json = dict[str, Any]

BY_CHANCE = frozenset({"random_int", "random_float", "get_random_element", "system_datetime"})
COMPUTING = sorted(name for name, row in REGISTRY.items() if isinstance(row.run, Pure) and name not in BY_CHANCE)
NAMES = ("v", "w.x", "w")
INPUTS = ("number", "text", "items", "thing")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([0.5, -1.25, 1e6]),
    st.sampled_from(["", "a", "a,b", "x y", "[1, 2]", '{"a": 1}', "{a}", "{{ a }}", "a.b", "true", "==", "ü"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "name"]), inner, max_size=3),
    max_leaves=5,
)
variables = st.fixed_dictionaries(
    {"number": st.integers(-5, 5), "text": st.text("ab,{} ", max_size=5), "items": st.lists(scalars, max_size=4)},
    optional={"thing": values},
)


@dataclass
class _Sketch:
    """A drawing under way: `ends` are the pins from which execution goes on, `sources` those that give values."""

    draw: Any
    kinds: list[str]
    nodes: list[Json] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def wire(self, node_id: str, pins: list[str]) -> Json:
        """Lead values to some pins and return defaults for some others."""
        defaults: Json = {}
        for pin in pins:
            kind = self.draw(st.integers(0, 3))
            if kind >= 2 and self.sources:
                self.edges.append(f"{self.draw(st.sampled_from(self.sources))} -> {node_id}/{pin}")
            elif kind == 1:
                defaults[pin] = self.draw(values)
        return defaults

    def compute(self) -> None:
        name, node_id = self.draw(st.sampled_from(self.kinds)), f"p{len(self.nodes)}"
        row = REGISTRY[name]
        defaults = self.wire(node_id, list(row.inputs))
        literal = self.draw(values)
        drawn = node(
            node_id, name, " ".join(row.inputs), " ".join(row.outputs), defaults=defaults, literalValue=literal
        )
        self.nodes.append(drawn)
        self.sources += [f"{node_id}/{pin}" for pin in row.outputs]

    def enter(self, drawn: Json) -> None:
        self.nodes.append(drawn)
        self.edges += [f"{end} > {drawn['id']}" for end in self.ends]

    def keep(self, source: str | None = None) -> None:
        """Store a value in one of few variables, so that it is overwritten and read again."""
        node_id = f"k{len(self.nodes)}"
        name = self.draw(st.sampled_from(NAMES))
        self.edges.append(f"{source or self.draw(st.sampled_from(self.sources))} -> {node_id}/value")
        self.enter(node(node_id, "set_var", "> name value", "> value", defaults={"name": name}))
        self.ends = [f"{node_id}/exec-out"]
        self.sources += [f"{node_id}/value", self.read(name)]

    def read(self, name: str) -> str:
        node_id = f"g{len(self.nodes)}"
        self.nodes.append(node(node_id, "get_var", "name", "value", defaults={"name": name}))
        return f"{node_id}/value"

    def branch(self) -> None:
        node_id = f"b{len(self.nodes)}"
        defaults = self.wire(node_id, ["condition"])
        self.enter(node(node_id, "if", "> condition", ">true >false", defaults=defaults))
        before = [f"{node_id}/false"]
        self.ends = [f"{node_id}/true"]
        self.keep()
        self.ends += before

    def repeat(self) -> None:
        node_id = f"l{len(self.nodes)}"
        defaults = self.wire(node_id, ["items"])
        if "items" not in defaults:
            self.edges = [edge for edge in self.edges if not edge.endswith(f"{node_id}/items")]
            self.edges.append(f"start/items -> {node_id}/items")
        self.enter(node(node_id, "loop", "> items", ">loop >done item index total", defaults=defaults))
        given = [f"{node_id}/{pin}" for pin in ("item", "index", "total")]
        self.sources += given * 3
        self.ends = [f"{node_id}/loop"]
        self.collect(self.draw(st.sampled_from(given)))
        self.compute()
        self.keep()
        self.ends = [f"{node_id}/done"]

    def collect(self, source: str) -> None:
        """Append a value to the list in a variable, as loops do that gather what they make."""
        node_id = f"c{len(self.nodes)}"
        self.nodes.append(node(node_id, "array_append", "array item", "result"))
        self.edges += [f"{self.read('all')} -> {node_id}/array", f"{source} -> {node_id}/item"]
        self.sources.append(f"{node_id}/result")
        store = f"k{len(self.nodes)}"
        self.edges.append(f"{node_id}/result -> {store}/value")
        self.enter(node(store, "set_var", "> name value", "> value", defaults={"name": "all"}))
        self.ends = [f"{store}/exec-out"]


@st.composite
def flows(draw: Any, without: frozenset[str] = frozenset(), segments: str = "ppppkkbl") -> Json:
    """Return a VisualFlow document that compiles; whether it ends well is another matter.

    `without` are types that do not occur; `segments` says how often it computes, keeps, branches and loops.
    """
    start = node("start", "on_flow_start", "", "> " + " ".join(INPUTS))
    sketch = _Sketch(
        draw,
        sorted({*COMPUTING} - without),
        [start],
        sources=[f"start/{name}" for name in INPUTS],
        ends=["start/exec-out"],
    )
    for kind in draw(st.lists(st.sampled_from(segments), min_size=3, max_size=9)):
        {"p": sketch.compute, "k": sketch.keep, "b": sketch.branch, "l": sketch.repeat}[kind]()
    sketch.compute()
    defaults = sketch.wire("end", ["one", "two", "three"])
    sketch.edges += [f"{sketch.read(name)} -> end/{name}" for name in (*NAMES, "all")]
    sketch.enter(node("end", "on_flow_end", f"> one two three all {' '.join(NAMES)}", defaults=defaults))
    return flow(sketch.nodes, sketch.edges)
