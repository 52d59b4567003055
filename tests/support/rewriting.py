"""Models before and after rules: made, rewritten, run in onnxruntime and in MNN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from evaluation.nets.mnn_models import SEED, Value, case
from mnnprep.conformance.table import load_table
from mnnprep.mnn.convert import CONVERT, ConvertJob
from mnnprep.mnn.run import RUN, MnnRunJob
from mnnprep.model.files import load_arrays
from mnnprep.repair.steps import Repaired, RepairJob, repair
from mnnprep.repair.table import all_rules
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.host import Host

Arrays = dict[str, Any]


def build(
    nodes: Sequence[Any],
    inputs: Sequence[Value],
    outputs: Sequence[Any],
    weights: Mapping[str, Any] | None = None,
    opset: int = 13,
) -> Any:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def repaired(model: Any, directory: Path, *rules: str, external: bool = False) -> tuple[Any, Repaired]:
    """The model after these rules (the same object where nothing fired), and the step's reply."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "out").mkdir()
    onnx.save(
        model, directory / "in.onnx", save_as_external_data=external, location="in.data", size_threshold=0
    )
    done = repair(
        RepairJob(model=str(directory / "in.onnx"), directory=str(directory / "out"), rules=list(rules))
    )
    assert bool(done.files) == bool(done.fired) == any((directory / "out").iterdir())
    if not done.files:
        return model, done
    result = onnx.load(done.files[0].path)
    onnx.shape_inference.infer_shapes(result, check_type=True, strict_mode=True)
    return result, done


def reference(model: Any, feeds: Sequence[Arrays]) -> list[Arrays]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [o.name for o in model.graph.output]
    return [dict(zip(names, session.run(names, feed), strict=True)) for feed in feeds]


def through_mnn(host: Host, model: Any, feeds: Sequence[Arrays], directory: Path) -> list[Arrays] | str:
    """What MNN computes, or why it does not."""
    directory.mkdir(parents=True)
    onnx.save(model, directory / "m.onnx")
    names = {o.name: o.name for o in model.graph.output}
    inputs = {i.name: i.name for i in model.graph.input}
    try:
        job = ConvertJob(
            model=str(directory / "m.onnx"), frontend="ONNX", uuid_seed=SEED, directory=str(directory)
        )
        made = host.run(CONVERT, job, timeout=60).value
        if made.file is None:
            return made.reason
        cases = [case(directory, i, feed) for i, feed in enumerate(feeds)]
        run = MnnRunJob(
            model=made.file.path,
            cases=cases,
            input_names=inputs,
            output_names=names,
            layouts={},
            directory=str(directory),
        )
        ran = host.run(RUN, run, timeout=60).value
    except StepFailed as failure:
        return failure.reason
    return (
        next(iter(ran.errors.values()))
        if ran.errors
        else [load_arrays(ran.outputs[str(i)].path) for i in range(len(feeds))]
    )


def close(found: list[Arrays] | str, expected: list[Arrays], tolerance: float) -> bool:
    if isinstance(found, str):
        return False
    return all(
        f[name].shape == e[name].shape
        and np.allclose(f[name].astype(float), e[name].astype(float), rtol=tolerance, atol=tolerance)
        for f, e in zip(found, expected, strict=True)
        for name in e
    )


def same_bits(a: list[Arrays], b: list[Arrays]) -> bool:
    pairs = [(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x]
    return all(p.dtype == q.dtype and p.shape == q.shape and p.tobytes() == q.tobytes() for p, q in pairs)


def written_out(model: Any, directory: Path, supported: bool = True) -> tuple[Any, Repaired]:
    directory.mkdir(parents=True)
    (directory / "out").mkdir()
    onnx.save(model, directory / "in.onnx")
    table = load_table()
    listed = list(table.frontends["ONNX"]) if supported and table is not None else None
    done = repair(
        RepairJob(
            model=str(directory / "in.onnx"),
            directory=str(directory / "out"),
            rules=all_rules(),
            supported=listed,
        )
    )
    return (onnx.load(done.files[0].path) if done.files else model), done
