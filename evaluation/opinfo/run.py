"""torch's own databases of operators and modules through `prepare`: what exports is proven, or why not.

    python -m evaluation.opinfo [--database ops|modules] [--samples 3] [--only TEXT] [--resume FILE]

Each of the first samples of OpInfo (float32 and int64) and ModuleInfo (float32) is a model that takes the
sample's tensors. It is prepared to ONNX, given its inputs as torch draws them; what is proven is asked about
with further draws, run by MNN alone and compared with what eager torch gives for them.
Needs expecttest (the extra ``evaluation``). All samples take some hours on one core; ``--resume FILE`` keeps
what is there.
Exit code: 0; 1 when something was called proven that the oracle calls wrong, or mnnprep itself failed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from evaluation.opinfo.draw import draw
from evaluation.proved.loop import common_options, report, run_all
from evaluation.proved.row import Row
from evaluation.proved.run import Judge
from mnnprep.model.request import Request, make_wants

SOURCE = "evaluation.opinfo.samples:model"
DATABASES = ("ops", "modules")
IMPORTED = ("torch.testing._internal.common_methods_invocations", "torch.onnx")  # takes seconds each time


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=DATABASES, action="append", default=[])
    parser.add_argument("--samples", type=int, default=3, metavar="N", help="of each entry and dtype")
    common_options(parser)
    options = parser.parse_args()
    from evaluation.opinfo.samples import names

    databases = options.database or DATABASES
    every = [name for database in databases for name in names(database, options.samples)]
    rows = run_all(every, one, options, IMPORTED)
    return report({d: [r for r in rows if r.group == d] for d in databases}, options)


def one(name: str, judge: Judge) -> Row:
    """One sample: drawn, prepared, judged."""
    with tempfile.TemporaryDirectory(dir=judge.scratch) as directory:
        drawn = draw(name, Path(directory))
        group = name.partition("/")[0]
        if drawn.skipped:
            return Row(name=name, group=group, verdict="skipped", reason=drawn.skipped)
        wants = make_wants(samples=str(drawn.samples))
        request = Request(source=SOURCE, to="onnx", factory_args={"name": name}, wants=wants)
        return judge.judge(name, group, request, drawn.fresh)
