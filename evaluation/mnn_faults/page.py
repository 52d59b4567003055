"""Write docs/mnn-faults.md from the models that show the faults.

    python -m evaluation.mnn_faults

``tests/test_mnn_faults.py`` gives every model to MNN and fails where MNN has become right.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

from evaluation.mnn_faults import FAULTS
from evaluation.mnn_faults.fault import Fault
from evaluation.places import ROOT

PAGE = ROOT / "docs" / "mnn-faults.md"
MEASURED = "3.6.1"  # the MNN that the table was written for
HEAD = (
    "# Faults of MNN\n\n"
    f"What MNN {MEASURED} on x86_64 gets wrong in ONNX models, each cut down to a model of one or a few nodes"
    " (`evaluation/mnn_faults/`), and the rule that\n"
    "repairs it ([adding a rule](adding-a-rule.md)); {open} of {all} have none. MNN's converter reports"
    " success for nearly all of them. `prepare` calls a\n"
    "model proven only if it is right in MNN, whether a rule is known or not. Operators that the converter"
    " refuses are in [operators](operators.md).\n\n"
    "This page is generated (`python -m evaluation.mnn_faults`), and `tests/test_mnn_faults.py` runs every"
    " line: it fails where MNN has become right.\n\n"
    "| operator | form | MNN | right | rule |\n| --- | --- | --- | --- | --- |\n"
)


def page() -> str:
    """The whole page."""
    ordered = sorted(FAULTS, key=lambda fault: (fault.operator, fault.form))
    head = HEAD.format(open=sum(not fault.rule for fault in FAULTS), all=len(FAULTS))
    return head + "".join(map(line, ordered))


def line(fault: Fault) -> str:
    """A fault as a row of the table."""
    rule = f"`{fault.rule}`" if fault.rule else "none"
    return f"| {fault.operator} | {fault.form} | {fault.does} | {fault.right} | {rule} |\n"


def main() -> int:
    if version("MNN") != MEASURED:
        sys.exit(
            f"the page is of MNN {MEASURED}; this is {version('MNN')}: run tests/test_mnn_faults.py first"
        )
    PAGE.write_text(page())
    print(PAGE)
    return 0
