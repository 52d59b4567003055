"""The toy's steps: survey it, write it as ONNX, run it on other cases."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from mnnprep.evidence import catalog
from mnnprep.formats.toy.net import ToyNet, read
from mnnprep.model.files import file_ref, save_arrays
from mnnprep.model.messages import Exported, ExportJob, Replayed, ReplayJob, Survey, SurveyJob
from mnnprep.reference.replay import replay
from mnnprep.reference.survey import survey


def survey_file(job: SurveyJob) -> Survey:
    """Choose the cases and run the reference in numpy."""
    net = ToyNet(job.source.path)
    found = survey(net, job.wants)
    weights = Path(job.directory) / "weights.npz"
    tensors = {f"used/{i}.{n}": getattr(la, n) for i, la in enumerate(net.layers) for n in ("weight", "bias")}
    save_arrays(weights, tensors)
    return Survey(
        signature=found.signature,
        cases=found.write(Path(job.directory)),
        checks=[catalog.INFERENCE_MODE.passed(), *found.checks],
        noise=found.noise,
        exempt=found.exempt,
        weights=file_ref(weights),
        sweep=found.sweep,
        parameters=sum(a.size for a in tensors.values()),
    )


def export_file(job: ExportJob) -> Exported:
    """Write the net as ONNX: a MatMul, an Add and perhaps a Relu for each layer."""
    layers = read(Path(job.source.path))
    nodes, tensors, value = [], [], "x"
    for i, layer in enumerate(layers):
        tensors += [numpy_helper.from_array(getattr(layer, n), f"{i}.{n}") for n in ("weight", "bias")]
        nodes.append(helper.make_node("MatMul", [value, f"{i}.weight"], [f"{i}.product"]))
        nodes.append(helper.make_node("Add", [f"{i}.product", f"{i}.bias"], [f"{i}.sum"]))
        value = f"{i}.sum"
        if layer.relu:
            nodes.append(helper.make_node("Relu", [value], [f"{i}.relu"]))
            value = f"{i}.relu"
    nodes[-1].output[0] = "y"
    ends = (layers[0].weight.shape[0], layers[-1].weight.shape[1])
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", size])
        for n, size in zip("xy", ends, strict=True)
    ]
    graph = helper.make_graph(nodes, "toy", ports[:1], ports[1:], tensors)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", job.opset)], ir_version=8, producer_name="toy"
    )
    target = Path(job.directory) / "model.onnx"
    onnx.save(model, target)
    return Exported(
        format="onnx",
        opset=job.opset,
        files=[file_ref(target)],
        checks=[catalog.INFERENCE_MODE.passed(subject="artifact")],
    )


def replay_file(job: ReplayJob) -> Replayed:
    """Run the net on another source's cases."""
    return replay(ToyNet(job.source.path), job)
