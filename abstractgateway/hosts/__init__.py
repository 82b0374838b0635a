"""Hosts know which workflow drives a run."""

from __future__ import annotations

from .base import WorkflowHost as WorkflowHost
from .bundle_host import BundleHost as BundleHost
from .flow_set import FlowSet as FlowSet
from .several import Hosts as Hosts
from .started_flows import HostedWorkflows as HostedWorkflows
from .started_flows import StartedFlows as StartedFlows
from .visualflow_host import VisualflowHost as VisualflowHost

__all__ = ["BundleHost", "FlowSet", "HostedWorkflows", "Hosts", "StartedFlows", "VisualflowHost", "WorkflowHost"]
