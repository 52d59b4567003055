"""Random graphs of NNSmith through `prepare`: what is proven is right.

    python -m evaluation.random_graphs [--graphs 2000] [--first 0] [--resume FILE] [--jobs 1] [--show]

NNSmith (its package, the extra ``evaluation``) finds valid graphs of its operators by seed; they are exported
to ONNX and prepared. What is proven is asked about with inputs that the proof never saw, run by MNN alone and
compared with what onnxruntime gives for the file with no optimization.
``--write SEED DIR`` writes one graph with its inputs; ``--resume FILE --cut DIR`` cuts those in FILE that
differ down to the node at fault.
Exit code: 0; 1 when something was called proven that the oracle calls wrong, or mnnprep itself failed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from evaluation.proved.loop import chosen, common_options, report, run_all
from evaluation.proved.row import Row, kept
from evaluation.proved.run import Judge
from evaluation.random_graphs.generate import generate
from mnnprep.model.request import Request, make_wants

GRAPHS = 2000
GROUP = "random graphs"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graphs", type=int, default=GRAPHS)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--write", nargs=2, metavar=("SEED", "DIR"), help="write one graph, and end")
    parser.add_argument("--cut", type=Path, metavar="DIR", help="write what makes kept graphs differ there")
    common_options(parser)
    options = parser.parse_args()
    if options.write:
        seed, directory = int(options.write[0]), Path(options.write[1])
        directory.mkdir(parents=True)
        print(generate(seed, directory).skipped or directory / "model.onnx")
        return 0
    if options.cut:
        from evaluation.random_graphs.cutting import cut

        rows = kept(options.resume).values()
        cut([r.name for r in rows if r.verdict == "differs" and chosen(r.name, options.only)], options.cut)
        return 0
    names = [f"graph/{seed}" for seed in range(options.first, options.first + options.graphs)]
    return report({GROUP: run_all(names, one, options)}, options)


def one(name: str, judge: Judge) -> Row:
    """One graph: generated, prepared, judged."""
    with tempfile.TemporaryDirectory(dir=judge.scratch) as directory:
        made = generate(int(name.partition("/")[2]), Path(directory))
        if made.skipped:
            return Row(name=name, group=GROUP, verdict="skipped", reason=made.skipped)
        request = Request(source=str(made.model), wants=make_wants(samples=str(made.samples)))
        return judge.judge(name, GROUP, request, made.fresh)
