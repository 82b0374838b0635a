"""The commands `abstractgateway runs schedule` and `runs next`: have a flow run at times, and see at which."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import Invalid, NotFound
from .inputs import add_inputs, count, inputs_of
from .remote import print_table, run_of, show

if TYPE_CHECKING:
    from ..client import GatewayClient

_OVERLAPS = ("skip", "queue", "cancel_previous", "allow")


def add_schedule_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `schedule` and `next` to the commands of `runs`; `add` makes the parser of one."""
    parser = add("schedule", _schedule, "have a flow run at times, and print the id of the schedule", needs_run=False)
    parser.add_argument("bundle", help="a bundle, such as 'ask' or 'ask@0.1.0'; or <bundle>:<flow>")
    parser.add_argument("--interval", help="how far the times are apart, such as 30s, 15m, 1.5h or 2d")
    parser.add_argument("--cron", help="instead of an interval: five fields, or a name such as @daily")
    parser.add_argument("--timezone", help="the zone of --cron, such as Europe/Paris (default: UTC)")
    parser.add_argument("--start-at", help="the first time, ISO 8601 (default: now)")
    parser.add_argument("--repeat-count", type=count, help="after how many executions it ends (default: never)")
    parser.add_argument("--repeat-until", help="the time, ISO 8601, after which there is none (default: never)")
    parser.add_argument("--overlap", choices=_OVERLAPS, help="when the execution before is not over (default: skip)")
    parser.add_argument("--catch-up", type=float, metavar="SECONDS", help="how late a missed time is made up for")
    parser.add_argument("--jitter", type=float, metavar="SECONDS", help="how much later an execution may begin")
    add_inputs(parser)
    parser.add_argument("--session", help="the session of the schedule (default: one of its own)")
    parser.add_argument("--key", help="the same key again makes no second schedule")
    times = add("next", _next, "show the next times of a schedule")
    times.add_argument("--count", type=count, default=10, help="how many (default: %(default)s)")


def _schedule(client: GatewayClient, arguments: argparse.Namespace) -> None:
    bundle, _, flow = arguments.bundle.partition(":")
    run_id = client.schedule(
        idempotency_key=arguments.key,
        bundle_id=bundle,
        flow_id=flow or _default_flow(client, bundle),
        input_data=inputs_of(arguments),
        interval=arguments.interval,
        cron=arguments.cron,
        timezone=arguments.timezone,
        start_at=arguments.start_at,
        repeat_count=arguments.repeat_count,
        repeat_until=arguments.repeat_until,
        overlap=arguments.overlap,
        catch_up=arguments.catch_up,
        jitter=arguments.jitter,
        session_id=arguments.session,
    )
    if arguments.json:
        show({"run_id": run_id})
    else:
        print(run_id)


def _default_flow(client: GatewayClient, bundle: str) -> str:
    """Return the flow of a bundle that is meant when none is named."""
    bundle_id, at, version = bundle.partition("@")
    listed = [item for item in client.bundles(all_versions=bool(at))["items"] if item["bundle_id"] == bundle_id]
    found = next((item for item in listed if not at or item["bundle_version"] == version), None)
    if found is None:
        raise NotFound(f"there is no bundle {bundle!r} that can be started")
    flow = found["default_entrypoint"]
    if not flow:
        names = ", ".join(str(item["flow_id"]) for item in found["entrypoints"])
        raise Invalid("bundle", f"{bundle!r} has several flows; name one as {bundle}:<flow>: {names}")
    return str(flow)


def _next(client: GatewayClient, arguments: argparse.Namespace) -> None:
    times = client.next_times(run_of(client, arguments.run), count=arguments.count)
    if arguments.json:
        show(times)
        return
    rows = [[str(item["local_time"]), str(item["due_at"])] for item in times["items"]]
    if times["paused"]:
        print("paused: these times pass unless it is resumed")
    if rows:
        print_table((f"TIME ({times['timezone']})", "DUE (UTC)"), rows)
    else:
        print("no further time")
