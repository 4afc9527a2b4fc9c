"""How fast the operator starts many runs at once, beside the least loop possible and JobSet.

    make bench-operator                          # needs KUBECONFIG, and nothing else on the cluster
    .venv/bin/python benchmarks/control_loop.py --runs 100 --loops bare operator --json

Each loop gets N objects in a namespace of its own, one after another as kubectl sends a file, or
from several --connections; their pods fit no node.
The time to the first Job runs from sending the object to the Job's event in a watch, both on this
program's clock: some milliseconds of delivery are in it, and JobSet's webhooks. `accepted` is the
time of the call that creates the object, `late` how late this program itself woke up. Calls, CPU
and memory are those until all pods are there and the loop is quiet; kopf's watches are no calls.
JobSet is left out where it is not served; JOBSET_CONTROLLER_PID names its controller.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from kubernetes.aio import config
from loops import BARE_CRD, JOBSET, LOOPS, ROOT, Loop
from rich.console import Console
from rich.table import Table
from trial import Measured, measure

from selfimprove_operator.cluster.errors import Missing
from selfimprove_operator.cluster.transport import Call, Resource, Transport

CRD: Final = ROOT / "crds" / "selfimprove.dev_selfimproveruns.yaml"
COLUMNS: Final = ("N", "loop", "accepted", "p50 s", "p95 s", "max s", "to bare", "late")
COLUMNS_AT_REST: Final = ("calls a run", "CPU s", "to bare", "MiB", "peak")


def main() -> None:
    """Measure every loop with every number of runs; print the table or JSON."""
    arguments = _arguments()
    _apply(BARE_CRD, CRD.read_text())
    measured = asyncio.run(_measured(arguments))
    if arguments.json:
        print(json.dumps([dataclasses.asdict(each) for each in measured], indent=2))
    else:
        _print(measured)


async def _measured(arguments: argparse.Namespace) -> list[Measured]:
    await config.load_kube_config(  # type: ignore[no-untyped-call]
        config_file=os.environ.get("KUBECONFIG")
    )
    transport = await Transport.connect(lambda *_: None)
    try:
        loops = [loop for loop in LOOPS if loop.name in arguments.loops]
        if JOBSET in loops and not await _is_served(transport, JOBSET):
            print("jobset is left out: the cluster serves no JobSets", file=sys.stderr)
            loops.remove(JOBSET)
        return [
            await measure(transport, each, runs, arguments.connections)
            for runs in arguments.runs
            for each in loops
        ]
    finally:
        await transport.close()


async def _is_served(transport: Transport, loop: Loop) -> bool:
    try:
        await transport.ask(Call("get", Resource(loop.resource.group_version, "")))
    except Missing:
        return False
    return True


def _apply(*manifests: str) -> None:
    """Apply CRDs and wait until they are served."""
    for command in (
        ("apply", "--server-side", "--force-conflicts", "-f", "-"),
        ("wait", "--for=condition=Established", "--timeout=30s", "-f", "-"),
    ):
        for manifest in manifests:
            subprocess.run(  # noqa: S603  our own manifests
                ("kubectl", *command),  # noqa: S607  found on PATH
                input=manifest,
                text=True,
                check=True,
                stdout=subprocess.DEVNULL,
            )


def _print(measured: Sequence[Measured]) -> None:
    """Print what was measured, with ratios to the bare loop where there is one."""
    table = Table(title="N runs created at once: time to the first Job; then the loop at rest")
    for name in (*COLUMNS, *COLUMNS_AT_REST):
        table.add_column(name, justify="right")
    bare = {each.runs: each for each in measured if each.loop == "bare"}
    for each in measured:
        table.add_row(str(each.runs), each.loop, *_cells(each, bare.get(each.runs)))
    Console(width=120).print(table)
    for each in measured:
        calls = ", ".join(f"{name} {count:.2f}" for name, count in each.calls.items())
        print(f"{each.runs} {each.loop}: {calls or 'calls are not counted'}")


def _cells(each: Measured, bare: Measured | None) -> list[str]:
    is_known = each.rss is not None
    return [
        *(f"{seconds:.3f}" for seconds in (each.accepted, each.p50, each.p95, each.max)),
        f"{each.p95 / bare.p95:.1f}" if bare else "",
        f"{each.late:.3f}",
        f"{sum(each.calls.values()):.2f}" if each.calls else "",
        f"{each.cpu:.1f}" if is_known else "",
        f"{each.cpu / bare.cpu:.1f}" if bare and is_known else "",
        *("" if size is None else f"{size:.0f}" for size in (each.rss, each.peak)),
    ]


def _arguments() -> argparse.Namespace:
    names = [loop.name for loop in LOOPS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--loops", nargs="+", choices=names, default=names)
    parser.add_argument("--connections", type=int, default=1, help="how many create at once")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
