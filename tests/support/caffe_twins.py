"""One Caffe net in each of the versions that its definition may have."""

from __future__ import annotations

from pathlib import Path

from evaluation.nets.caffe_nets import Small as Net
from evaluation.nets.caffe_nets import (
    caffemodel,
    caffemodel_v0,
    caffemodel_v1,
    weights,
    write_text,
)

TRAIN_VAL = """name: "small"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { crop_size: 12 mirror: true } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 6 } data_param { batch_size: 50 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "dropped" dropout_param { dropout_ratio: 0.5 } }
layer { name: "fc" type: "InnerProduct" bottom: "dropped" top: "fc" inner_product_param { num_output: 3
  bias_filler { type: "constant" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "prob" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "prob" }
"""
DEPLOY = """name: "small"
input: "data" input_shape { dim: 1 dim: 4 dim: 6 dim: 6 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4
  kernel_size: 3 } }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 3 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""
V1 = """name: "small"
input: "data" input_dim: 1 input_dim: 4 input_dim: 6 input_dim: 6
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 weight_decay: 1
  convolution_param { num_output: 4 kernel_size: 3 } }
layers { name: "drop" type: DROPOUT bottom: "conv" top: "conv" }
layers { name: "fc" type: INNER_PRODUCT bottom: "conv" top: "fc" inner_product_param { num_output: 3 } }
layers { name: "prob" type: SOFTMAX bottom: "fc" top: "prob" }
"""
V0 = """name: "small"
input: "data" input_dim: 1 input_dim: 4 input_dim: 6 input_dim: 6
layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 3 weight_filler { type: "gaussian" }
  blobs_lr: 1. } bottom: "data" top: "conv" }
layers { layer { name: "fc" type: "innerproduct" num_output: 3 } bottom: "conv" top: "fc" }
layers { layer { name: "prob" type: "softmax" } bottom: "fc" top: "prob" }
"""
TWIN = Net("", (1, 4, 6, 6), {"conv": [(4, 4, 3, 3), (4,)], "fc": [(3, 64), (3,)]})


def twins(directory: Path) -> dict[str, Path]:
    """The same net as a deploy definition, as train_val, in V1 and in V0, each with weights as its time
    stored them.
    """
    stored = weights(TWIN)
    modern = {"data": [], **stored, "drop": [], "prob": []}
    return {
        "deploy": write_text(directory / "deploy", DEPLOY, caffemodel(stored)),
        "train_val": write_text(
            directory / "train_val", TRAIN_VAL, caffemodel(modern, {"data": "Data"}, gradient=True)
        ),
        "v1": write_text(
            directory / "v1",
            V1,
            caffemodel_v1({**stored, "drop": []}, {"conv": 4, "fc": 14, "drop": 6}, double=True),
        ),
        "v0": write_text(directory / "v0", V0, caffemodel_v0(stored, {"conv": "conv", "fc": "innerproduct"})),
    }
