"""TensorFlow's SAME padding of convolutions whose stride is larger than their kernel.

TensorFlow pads nothing where the last window ends before the input does (tensorflow/core/framework/
common_shape_fns.cc: the padding is never negative).  tf2onnx writes ``auto_pad`` SAME_UPPER, which
onnxruntime and MNN take as a negative padding there: the windows begin inside.  Written with the padding that
TensorFlow takes, computed from the sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mnnprep.deps import require

if TYPE_CHECKING:
    import onnx

FAR = np.iinfo(np.int32).max


def as_tensorflow_pads(model: onnx.ModelProto) -> list[str]:
    """Give every such Conv of the main graph TensorFlow's padding; the names of the nodes that were."""
    helper = require("onnx.helper")
    kernels = {tensor.name: list(tensor.dims[2:]) for tensor in model.graph.initializer}
    changed = []
    for index, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type != "Conv":
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        kernel = list(attributes.get("kernel_shape", ())) or kernels.get(node.input[1])
        if attributes.get("auto_pad") != b"SAME_UPPER" or not kernel:
            continue
        dilations = attributes.get("dilations", [1] * len(kernel))
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        strides = list(attributes.get("strides", [1] * len(kernel)))
        if not any(s > k for s, k in zip(strides, reach, strict=True)):
            continue
        node.attribute.remove(next(a for a in node.attribute if a.name == "auto_pad"))
        new = _padded(node, reach, strides)
        for made in reversed(new):
            model.graph.node.insert(index, made)
        changed.append(node.name)
    return changed[::-1]


def _padded(conv: onnx.NodeProto, reach: list[int], strides: list[int]) -> list[onnx.NodeProto]:
    """The nodes before *conv* that pad its input, and make it take them.

    Of each axis the last window covers ``(size - 1) % stride + 1`` places; what the window lacks is the
    padding, of which the smaller half stands at the beginning.  The input is padded by the most that this can
    be, and cut where it begins; more at the end than a window lacks gives no further window.
    """
    helper, numpy_helper = require("onnx.helper"), require("onnx.numpy_helper")
    rank, stem, new = len(reach), f"{conv.name or conv.output[0]}/same", list[Any]()

    def op(op_type: str, *inputs: str) -> str:
        name = f"{stem}/{len(new)}"
        new.append(helper.make_node(op_type, list(inputs), [name], name=name))
        return name

    def constant(numbers: Sequence[int] | float) -> str:
        name = f"{stem}/{len(new)}"
        dtype = np.float32 if isinstance(numbers, float) else np.int64
        held = numpy_helper.from_array(np.asarray(numbers, dtype), name)
        new.append(helper.make_node("Constant", [], [name], name=name, value=held))
        return name

    most = [(k - 1) // 2 for k in reach]
    x = conv.input[0]
    if max(reach) > 1:
        axes = constant(range(2, rank + 2))
        one, zero, two = constant([1] * rank), constant([0] * rank), constant([2] * rank)
        stride = constant(strides)
        last = op("Sub", op("Slice", op("Shape", x), constant([2]), constant([rank + 2])), one)
        rest = op("Sub", last, op("Mul", op("Div", last, stride), stride))
        lacking = op("Sub", constant([k - 1 for k in reach]), rest)
        before = op("Div", op("Max", lacking, zero), two)
        pads = constant([0, 0, *most, 0, 0, *(k - 1 for k in reach)])
        wide = op("Pad", x, pads, constant(0.0))
        conv.input[0] = op("Slice", wide, op("Sub", constant(most), before), constant([FAR] * rank), axes)
    return new
