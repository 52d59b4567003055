"""Image nets of realistic size, at 224 x 224, from transformers' configurations with seeded random weights.

Every function is a factory without arguments returning ``(model, example_inputs)``; ``MODELS`` names
those that ``benchmarks.prepare`` measures.  Nothing is downloaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    Built = tuple[nn.Module, dict[str, Tensor]]

MODELS = ("resnet50", "mobilenet_v2", "vit_tiny", "convnext_tiny", "regnet_y", "swin_tiny")
INPUT = "pixel_values=float32[1,3,224,224]"
DYNAMIC_INPUT, DYNAMIC_DIM = "pixel_values=float32[batch,3,224,224]", "batch=1:4"


def _image(model: str, config: str, **options: Any) -> Built:
    """The net with PyTorch's usual initialization, BatchNorm statistics as they are on random images.

    transformers' own weights (standard deviation 0.02) would let the signal vanish on its way.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    net = getattr(transformers, model)(getattr(transformers, config)(**options))
    norms = [m for m in net.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for module in net.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.reset_parameters()
    net.eval()
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        net(pixel_values=torch.randn(2, 3, 224, 224))
    return net.eval(), {"pixel_values": torch.randn(2, 3, 224, 224)}


def resnet50() -> Built:
    return _image("ResNetForImageClassification", "ResNetConfig", num_labels=1000)


def mobilenet_v2() -> Built:
    return _image("MobileNetV2ForImageClassification", "MobileNetV2Config", num_labels=1000)


def vit_tiny() -> Built:
    """Eager attention: with the default one, the script's MNN file is refused (its ONNX holds IsNaN)."""
    sizes = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
    return _image(
        "ViTForImageClassification", "ViTConfig", num_labels=1000, attn_implementation="eager", **sizes
    )


def vit_base() -> Built:
    return _image("ViTForImageClassification", "ViTConfig", num_labels=1000)


def convnext_tiny() -> Built:
    return _image("ConvNextForImageClassification", "ConvNextConfig", num_labels=1000)


def swin_tiny() -> Built:
    return _image("SwinForImageClassification", "SwinConfig", num_labels=1000)


def regnet_y() -> Built:
    sizes = {
        "embedding_size": 32,
        "hidden_sizes": [48, 104, 208, 440],
        "depths": [1, 3, 6, 6],
        "groups_width": 8,
    }
    return _image("RegNetForImageClassification", "RegNetConfig", num_labels=1000, **sizes)
