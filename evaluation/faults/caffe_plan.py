"""The trials on Caffe pairs, made of the tests' small nets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.faults import judge
from evaluation.faults.plan import WEIGHTS, Row, instead_of, made_directory, wrapper

CAFFE_CLEAN = (
    "convolution",
    "convolution-grouped",
    "convolution-dilated",
    "deconvolution",
    "pooling-max",
    "pooling-average",
    "pooling-global",
    "inner-product",
    "scale",
    "batch-norm",
    "relu-leaky",
    "prelu",
    "eltwise-sum",
    "concat",
    "slice",
    "lrn",
    "softmax",
    "normalize",
    "sigmoid",
    "elu",
)
CAFFE_SPOILED: tuple[
    tuple[str, str, str, str, str], ...
] = (  # model, fault, kind, text in the definition, text in its place
    (
        "convolution-grouped",
        "stride",
        "attribute_changed",
        "pad: 1 stride: 2",
        "pad: 1 stride: 2 dilation: 1",
    ),
    ("convolution-dilated", "dilation", "attribute_changed", "pad: 2 dilation: 2", "pad: 1 dilation: 1"),
    ("pooling-max", "max_average", "pooling_changed", "pool: MAX", "pool: AVE"),
    ("pooling-average", "average_max", "pooling_changed", "pool: AVE", "pool: MAX"),
    ("relu-leaky", "slope", "attribute_changed", "negative_slope: 0.1", "negative_slope: 0.2"),
    ("eltwise-sum", "coefficient", "constant_changed", "coeff: -0.5", "coeff: 0.5"),
    ("eltwise-product", "product_sum", "operator_changed", "operation: PROD", "operation: SUM"),
    ("lrn", "beta", "attribute_changed", "beta: 0.75", "beta: 0.5"),
    ("power", "power", "attribute_changed", "power: 2", "power: 3"),
    ("exp", "base", "attribute_changed", "base: 2", "base: 3"),
    (
        "concat",
        "order",
        "output_swapped",
        'bottom: "data"\n  bottom: "conv"',
        'bottom: "conv"\n  bottom: "data"',
    ),
)


def caffe_rows(root: Path) -> Iterator[Row]:
    from evaluation.nets import caffe_nets

    directory = made_directory(root / "caffe")
    for model in CAFFE_CLEAN:
        small = caffe_nets.NETS[model]
        path = caffe_nets.write(directory, small, model)
        dims = ["--dim", "batch=1:3"]
        text = f"data=float32[batch,{','.join(map(str, small.shape[1:]))}]"
        if model in ("inner-product", "convolution", "scale", "prelu", "softmax"):
            command = [str(path), "--input", text, *dims]
        else:
            command = [str(path)]
        yield Row(
            f"clean-caffe-{model}",
            "clean",
            "clean",
            "caffe",
            model,
            "prepare",
            command,
            reference={"caffe": str(path)},
        )

    def spoiled(model: str, fault: str, kind: str, prototxt: str, weights: dict[str, Any]) -> Iterator[Row]:
        small = caffe_nets.NETS[model]
        right = caffe_nets.write(directory, small, model)
        wrong = caffe_nets.write_text(
            made_directory(root / "spoiled"),
            prototxt,
            caffe_nets.caffemodel(weights or {"without": []}),
            f"{model}-{fault}",
        )
        inputs = (f"data=float32[{','.join(map(str, small.shape))}]",)
        pairs = [judge.caffe(str(p), str(p.with_suffix(".caffemodel"))) for p in (right, wrong)]
        moved = judge.moved(*pairs, judge.searched(inputs))
        yield Row(
            f"caffe-{model}-{fault}-compare",
            "fault",
            kind,
            "caffe",
            model,
            "compare",
            [str(right), str(wrong)],
            moved=moved,
        )
        body = f"argv[given('--prototxt')] = {str(wrong)!r}\n" + instead_of(wrong.with_suffix(".caffemodel"))
        script = wrapper(root / "wrappers", f"caffe-{model}-{fault}", body)
        command = [str(right), "--method", "upgrade", "--mnnconvert", script]
        yield Row(
            f"caffe-{model}-{fault}-convert", "fault", kind, "caffe", model, "prepare", command, moved=moved
        )

    for model, fault, kind, before, after in CAFFE_SPOILED:
        small = caffe_nets.NETS[model]
        text = caffe_nets.header(small.shape) + small.body
        if before not in text:
            raise LookupError(f"{model} has no {before}")
        yield from spoiled(model, fault, kind, text.replace(before, after, 1), caffe_nets.weights(small))
    for model, blob in (
        ("convolution", ("conv", 0)),
        ("inner-product", ("fc", 0)),
        ("batch-norm", ("bn", 1)),
        ("prelu", ("prelu", 0)),
    ):
        small = caffe_nets.NETS[model]
        weights = caffe_nets.weights(small)
        weights[blob[0]][blob[1]] = weights[blob[0]][blob[1]] * 1.01
        yield from spoiled(model, "weight", WEIGHTS, caffe_nets.header(small.shape) + small.body, weights)
    small = caffe_nets.NETS["batch-norm"]
    text = (caffe_nets.header(small.shape) + small.body).replace(
        "use_global_stats: true", "use_global_stats: false"
    )
    path = caffe_nets.write_text(
        made_directory(root / "spoiled"),
        text,
        caffe_nets.caffemodel(caffe_nets.weights(small)),
        "batch-norm-training",
    )
    yield Row(
        "caffe-batch-norm-training", "fault", "eval_not_called", "caffe", "batch-norm", "prepare", [str(path)]
    )
