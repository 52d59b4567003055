"""Caffe to ONNX: one rule for each layer type, listed in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.caffe.caffemodel import Floats
from mnnprep.formats.caffe.geometry import layer_shapes
from mnnprep.formats.caffe.lower import arrange, pointwise, spatial, ssd
from mnnprep.formats.caffe.lower.builder import Builder, Lowering, Value
from mnnprep.formats.caffe.net import Net
from mnnprep.model.signature import TensorSpec

OPSET = 13
IR_VERSION = 8
PRODUCER = "mnnprep"

Rule = Callable[[Lowering], list[Value]]
RULES: dict[str, Rule] = {
    "Convolution": spatial.convolution,
    "ConvolutionDepthwise": spatial.convolution,
    "DepthwiseConvolution": spatial.convolution,
    "Deconvolution": spatial.convolution,
    "Pooling": spatial.pooling,
    "Crop": spatial.crop,
    "Interp": spatial.resize,
    "Upsample": spatial.resize,
    "InnerProduct": arrange.inner_product,
    "Concat": arrange.concat,
    "Slice": arrange.cut,
    "Reshape": arrange.reshape,
    "Flatten": arrange.flatten,
    "Permute": arrange.permute,
    "Reduction": arrange.reduction,
    "ReLU": pointwise.relu,
    "ReLU6": pointwise.relu6,
    "PReLU": pointwise.prelu,
    "ELU": pointwise.elu,
    "Sigmoid": pointwise.unary("Sigmoid"),
    "TanH": pointwise.unary("Tanh"),
    "AbsVal": pointwise.unary("Abs"),
    "BNLL": pointwise.unary("Softplus"),
    "Clip": pointwise.clip,
    "Power": pointwise.power,
    "Exp": pointwise.exp,
    "Log": pointwise.log,
    "Eltwise": pointwise.eltwise,
    "Scale": pointwise.scale,
    "Bias": pointwise.bias,
    "BatchNorm": pointwise.batch_norm,
    "Normalize": pointwise.normalize,
    "Softmax": pointwise.softmax,
    "LRN": pointwise.lrn,
    "PriorBox": ssd.prior_box,
    "DetectionOutput": ssd.detection_output,
}
# The shape of a top that depends on values: a name is an open dimension.
OPEN_SHAPES: dict[str, tuple[int | str, ...]] = {"DetectionOutput": (1, 1, "found", 7)}


def lower(
    net: Net, blobs: Mapping[str, list[Floats]], inputs: tuple[TensorSpec, ...], directory: Path
) -> Path:
    """Write *net* as ``directory/model.onnx``, opset 13, with the dynamic dimensions of *inputs*; its path.

    Raises:
        RefusedError: the type of a layer has no rule; all such layers are named.
    """
    foreign = [f"{la.name} ({la.type})" for la in net.layers if la.type not in RULES]
    if foreign:
        raise RefusedError(
            "these layers can't be written in ONNX by this version",
            seen=", ".join(foreign[:12]),
            next="prepare it with --to caffe, or replace the layers",
        )
    ir = require("onnx_ir")
    builder = Builder()
    dynamic = any(isinstance(extent, str) for spec in inputs for extent in spec.shape[2:])
    values = {
        s.name: ir.Value(name=s.name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(list(s.shape)))
        for s in inputs
    }
    graph_inputs = list(values.values())
    shapes: dict[str, tuple[int | str, ...]] = {}
    for layer, bottoms, tops in layer_shapes(net):
        if bottoms is None:
            raise RefusedError(
                f"the sizes before {layer.name} ({layer.type}) depend on values",
                seen=", ".join(layer.bottoms),
                next="use --to caffe",
            )
        builder.begin(layer.name)
        made = RULES[layer.type](
            Lowering(
                builder,
                layer,
                [values[b] for b in layer.bottoms],
                bottoms,
                tops or [],
                list(blobs.get(layer.name, [])),
                dynamic=dynamic,
            )
        )
        values |= dict(zip(layer.tops, made, strict=True))
        opened = OPEN_SHAPES.get(layer.type)
        shapes |= {top: opened or tuple((tops or [()])[i]) for i, top in enumerate(layer.tops)}
    return _save(
        net,
        builder,
        graph_inputs,
        values,
        shapes,
        any(isinstance(e, str) for s in inputs for e in s.shape),
        directory,
    )


def _save(
    net: Net,
    builder: Builder,
    inputs: list[Value],
    values: dict[str, Value],
    shapes: Mapping[str, tuple[int | str, ...]],
    open_: bool,
    directory: Path,
) -> Path:
    ir = require("onnx_ir")
    outputs = []
    for name in net.outputs:
        value = values[name]
        if value in inputs or value in outputs or value.const_value is not None:
            value = builder.node("Identity", value)
        value.name = name
        value.type = ir.TensorType(ir.DataType.FLOAT)
        value.shape = ir.Shape(
            [f"{name}_{axis}" if open_ or isinstance(e, str) else e for axis, e in enumerate(shapes[name])]
        )
        outputs.append(value)
    graph = ir.Graph(
        inputs,
        outputs,
        nodes=builder.nodes,
        initializers=list(builder.initializers.values()),
        opset_imports={"": OPSET},
        name=net.name or "net",
    )
    path = directory / "model.onnx"
    ir.save(ir.Model(graph, ir_version=IR_VERSION, producer_name=PRODUCER), path)
    return path
