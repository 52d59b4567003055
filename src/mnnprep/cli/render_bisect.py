"""The terminal's view of a bisection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnnprep.bundle.manifest_view import number
from mnnprep.safety.printable import plain
from mnnprep.text import listed

if TYPE_CHECKING:
    from rich.console import Console

    from mnnprep.diagnose.bisecting.record import Bisection

HEADS = {
    "agrees": "nothing found",
    "node": "found: one node",
    "fused": "found: nodes that MNN merged into one",
    "context": "found: nodes that are wrong together with their neighbours",
    "gradual": "no single node",
    "stale": "the bundle's converted model is a different one",
    "unresolved": "not resolved",
}


def show_bisection(console: Console, found: Bisection, target: str) -> None:
    """The finding, what it rests on, and what to do with it."""

    def say(text: str) -> None:
        console.print(plain(text), markup=False, highlight=False, soft_wrap=True)

    say(HEADS[found.outcome])
    say(f"  {found.message}")
    if found.cause:
        say(f"  {found.cause}")
    if found.outcome == "agrees":
        return
    if found.nodes:
        say("")
        say(f"  node{'s' * (len(found.nodes) != 1)}      {', '.join(found.nodes)}")
    if found.where:
        say(f"  inside    {found.where}")
    if found.value:
        say(f"  value     {found.value}, case {found.case}")
    for label, excess in (("error", found.excess), ("upstream", found.upstream), ("alone", found.alone)):
        if excess is not None:
            say(f"  {label:9} {number(excess)} times the tolerance")
    for row in found.growth:
        say(f"  grows     {row.node}: from {number(row.before)} to {number(row.after)}")
    same = f"the same in {listed([*map(str, found.explained)])}" if found.explained else ""
    other = f"begins elsewhere in {listed([*map(str, found.unexplained)])}" if found.unexplained else ""
    if same or other:
        say(f"  cases     {'; '.join(filter(None, (same, other)))}")
    if found.artifact_differs:
        say(
            "  note      the artifact itself does not compute the same as the source, in the cases"
            f" {found.artifact_differs}; this is not MNN's fault"
        )
    say(f"  cost      {found.conversions} conversions, {found.runs} runs, of {found.model_nodes} nodes")
    if found.repro:
        say("")
        say(f"  {target}: {', '.join(found.repro)}")
        say(f"  replay it: python {target}/replay.py")
    elif found.made_here and not target:
        say("")
        say("  write a piece of the model that shows it: -o DIR")
