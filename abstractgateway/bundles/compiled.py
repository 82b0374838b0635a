"""All flows of a bundle, compiled under the workflow ids that they have in it."""

from __future__ import annotations

from ..errors import Invalid
from ..visualflow.compiler import CompiledFlow, compile_flow
from ..visualflow.sandbox import CodeRunner
from .catalogue import Bundle
from .namespace import namespaced_flow, namespaced_id


def compile_bundle(bundle: Bundle, *, code_runner: CodeRunner | None = None) -> dict[str, CompiledFlow]:
    """Return what each flow of a bundle compiles to, by flow id.

    A reference to a flow that is not in the bundle gives a warning. Raises `Invalid("flow", …)` with the problems of
    all flows, each beginning with the flow's id.
    """
    compiled: dict[str, CompiledFlow] = {}
    problems: list[str] = []
    known = frozenset(namespaced_id(bundle.ref, flow_id) for flow_id in bundle.flows)
    for flow_id, document in bundle.flows.items():
        try:
            compiled[flow_id] = compile_flow(
                namespaced_flow(document, bundle.ref, flow_id, bundle.flows),
                workflow_id=namespaced_id(bundle.ref, flow_id),
                code_runner=code_runner,
                known_flows=known,
            )
        except Invalid as error:
            problems.append(f"flow {flow_id!r} does not compile: {error.why}")
    if problems:
        raise Invalid("flow", "; ".join(problems), code="flow_invalid")
    return compiled
