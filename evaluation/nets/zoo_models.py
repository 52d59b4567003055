"""The zoo: small nets of many architectures, built from transformers' configurations with seeded random
weights.

Every function without an underscore is a factory: it takes nothing and returns ``(model, example_inputs)``,
the form that ``mnnprep prepare evaluation/nets/zoo_models.py:NAME`` takes.  Nothing is downloaded.  ``ZOO``
(and ``MORE``, close relatives) lists them with the inputs, dimensions and value ranges to declare; reading
the table imports no framework.

transformers' own initialization (standard deviation 0.02) makes small nets nearly constant, so that
comparing them would prove little; ``_randomize`` draws weights for which the outputs follow the inputs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

    Built = tuple[nn.Module, dict[str, Tensor]]

VOCABULARY = 96
POSITIONS = 64


class Entry(NamedTuple):
    """One net: its factory's name, and what to declare about it, as ``mnnprep prepare`` takes it."""

    name: str
    family: str
    inputs: tuple[str, ...]
    dims: tuple[str, ...]
    ranges: tuple[str, ...] = ()


# --- weights ------------------------------------------------------------------------------------------


def _randomize(model: nn.Module) -> nn.Module:
    """Draw every parameter anew, so that signals neither vanish nor explode.

    Matrices get a standard deviation of 1/sqrt(fan in), kernels sqrt(2/fan in) (He's, for ReLU),
    embeddings 1, biases and other vectors 0.1 around what they were initialized to (0 or 1 in most).
    """
    import torch
    from torch import nn

    random = torch.Generator().manual_seed(0)

    def normal(value: Tensor, std: float, mean: float | Tensor = 0.0) -> None:
        value.copy_(torch.randn(value.shape, generator=random) * std + mean)

    with torch.no_grad():
        seen: set[int] = set()
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) in seen or name.startswith(
                    "original"
                ):  # original0, original1: a weight norm's
                    continue
                seen.add(id(parameter))
                if isinstance(module, nn.Embedding):
                    normal(parameter, 1.0)
                elif (
                    parameter.ndim >= 2
                    and name.endswith("weight")
                    and isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d)
                ):
                    normal(parameter, math.sqrt(2.0 / parameter[0].numel()))
                elif parameter.ndim >= 2 and min(parameter.shape) > 1:
                    fan_in = parameter.shape[0] if type(module).__name__ == "Conv1D" else parameter[0].numel()
                    normal(parameter, 1.0 / math.sqrt(fan_in))
                elif (
                    parameter.numel() and parameter.abs().max() < 0.1
                ):  # zero, or a layer scale that hides its branch
                    normal(parameter, 0.1, 0.5 if "scale" in name or "lambda" in name else 0.0)
                else:
                    normal(parameter, 0.1, parameter.clone())
    return model


def _settle(model: nn.Module, name: str, images: Tensor) -> None:
    """Give every BatchNorm the statistics it meets on *images*, fed as *name*, as training would have."""
    import torch
    from torch import nn

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(**{name: images})
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _build(model: str, config: str, **options: Any) -> nn.Module:
    import torch
    import transformers

    torch.manual_seed(0)
    configuration = getattr(transformers, config)(**options)
    return _randomize(getattr(transformers, model)(configuration)).eval()


def _integers(low: int, high: int, *shape: int) -> Tensor:
    import torch

    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(1))


def _floats(*shape: int) -> Tensor:
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _ones(*shape: int) -> Tensor:
    import torch

    return torch.ones(shape, dtype=torch.int64)


def _tokens(batch: int = 2, length: int = 8) -> dict[str, Tensor]:
    return {"input_ids": _integers(4, VOCABULARY, batch, length), "attention_mask": _ones(batch, length)}


# --- text encoders ------------------------------------------------------------------------------------

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": POSITIONS,
}


def _encoder(model: str, config: str, **options: Any) -> Built:
    return _build(model, config, **{**_SIZES, **options}), _tokens()


def bert() -> Built:
    return _encoder("BertModel", "BertConfig", attn_implementation="eager")


def bert_sdpa() -> Built:
    """BERT with transformers' default attention: torch's scaled_dot_product_attention."""
    return _encoder("BertModel", "BertConfig", attn_implementation="sdpa")


def bert_classifier() -> Built:
    return _encoder("BertForSequenceClassification", "BertConfig", num_labels=5)


def distilbert() -> Built:
    options = {
        "vocab_size": VOCABULARY,
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 64,
        "max_position_embeddings": POSITIONS,
    }
    return _build("DistilBertModel", "DistilBertConfig", **options), _tokens()


def roberta() -> Built:
    return _encoder("RobertaModel", "RobertaConfig")


def xlm_roberta() -> Built:
    return _encoder("XLMRobertaModel", "XLMRobertaConfig")


def camembert() -> Built:
    return _encoder("CamembertModel", "CamembertConfig")


def albert() -> Built:
    return _encoder("AlbertModel", "AlbertConfig", embedding_size=16)


def electra() -> Built:
    return _encoder("ElectraModel", "ElectraConfig", embedding_size=16)


def mpnet() -> Built:
    return _encoder("MPNetModel", "MPNetConfig")


def deberta() -> Built:
    return _encoder("DebertaModel", "DebertaConfig", relative_attention=True, pos_att_type=["c2p", "p2c"])


def deberta_v2() -> Built:
    return _encoder(
        "DebertaV2Model",
        "DebertaV2Config",
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=8,
    )


def mobilebert() -> Built:
    sizes = {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16}
    return _encoder("MobileBertModel", "MobileBertConfig", **sizes)


def squeezebert() -> Built:
    return _encoder("SqueezeBertModel", "SqueezeBertConfig", embedding_size=32)


def funnel() -> Built:
    sizes = {
        "block_sizes": [1, 1],
        "d_model": 32,
        "n_head": 4,
        "d_head": 8,
        "d_inner": 64,
        "vocab_size": VOCABULARY,
    }
    return _build("FunnelModel", "FunnelConfig", **sizes), _tokens()


def roformer() -> Built:
    return _encoder("RoFormerModel", "RoFormerConfig", embedding_size=16)


def convbert() -> Built:
    return _encoder("ConvBertModel", "ConvBertConfig", embedding_size=16)


def layoutlm() -> Built:
    model, inputs = _encoder("LayoutLMModel", "LayoutLMConfig", max_2d_position_embeddings=64)
    corners = _integers(0, 16, 2, 8, 4)
    corners[..., 2:] += 16
    return model, {**inputs, "bbox": corners}


def ernie() -> Built:
    return _encoder("ErnieModel", "ErnieConfig")


def nystromformer() -> Built:
    return _encoder("NystromformerModel", "NystromformerConfig", num_landmarks=4, segment_means_seq_len=4)


def modernbert() -> Built:
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    return _encoder(
        "ModernBertModel", "ModernBertConfig", local_attention=8, attn_implementation="eager", **tokens
    )


def fnet() -> Built:
    model, inputs = _encoder("FNetModel", "FNetConfig")
    return model, {"input_ids": inputs["input_ids"]}


def megatron_bert() -> Built:
    return _encoder("MegatronBertModel", "MegatronBertConfig")


def rembert() -> Built:
    return _encoder("RemBertModel", "RemBertConfig", input_embedding_size=16, output_embedding_size=32)


def data2vec_text() -> Built:
    return _encoder("Data2VecTextModel", "Data2VecTextConfig")


def esm() -> Built:
    return _encoder(
        "EsmModel", "EsmConfig", pad_token_id=1, mask_token_id=3, position_embedding_type="rotary"
    )


def eurobert() -> Built:
    return _encoder(
        "EuroBertModel",
        "EuroBertConfig",
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        mask_token_id=3,
    )


def nomic_bert() -> Built:
    return _encoder("NomicBertModel", "NomicBertConfig", num_key_value_heads=4, head_dim=8)


def big_bird() -> Built:
    return _encoder("BigBirdModel", "BigBirdConfig", attention_type="original_full")


def xlnet() -> Built:
    sizes = {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}
    return _build("XLNetModel", "XLNetConfig", use_mems_eval=False, **sizes), _tokens()


def clip_text() -> Built:
    return _encoder("CLIPTextModel", "CLIPTextConfig", bos_token_id=1, eos_token_id=2, pad_token_id=0)


def t5_encoder() -> Built:
    sizes = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    return _build("T5EncoderModel", "T5Config", use_cache=False, **sizes), _tokens()


# --- decoders, without a cache ------------------------------------------------------------------------


def _decoder(model: str, config: str, **options: Any) -> Built:
    return _encoder(
        model,
        config,
        **{"use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **options},
    )


def _gpt(model: str, config: str, **options: Any) -> Built:
    sizes = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return _build(model, config, use_cache=False, **{**sizes, **tokens, **options}), _tokens()


def gpt2() -> Built:
    return _gpt("GPT2LMHeadModel", "GPT2Config", attn_implementation="eager")


def gpt2_sdpa() -> Built:
    """GPT-2 with transformers' default attention: torch's scaled_dot_product_attention."""
    return _gpt("GPT2LMHeadModel", "GPT2Config", attn_implementation="sdpa")


def gptj() -> Built:
    return _gpt("GPTJForCausalLM", "GPTJConfig", rotary_dim=4)


def codegen() -> Built:
    return _gpt("CodeGenForCausalLM", "CodeGenConfig", rotary_dim=4)


def gpt_neo() -> Built:
    sizes = {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8}
    return _decoder("GPTNeoForCausalLM", "GPTNeoConfig", **sizes)


def gpt_neox() -> Built:
    return _decoder("GPTNeoXForCausalLM", "GPTNeoXConfig")


def opt() -> Built:
    return _decoder("OPTForCausalLM", "OPTConfig", ffn_dim=64, word_embed_proj_dim=32)


def llama() -> Built:
    return _decoder("LlamaForCausalLM", "LlamaConfig", num_key_value_heads=2, attn_implementation="eager")


def llama_sdpa() -> Built:
    """Llama with transformers' default attention: torch's scaled_dot_product_attention."""
    return _decoder("LlamaForCausalLM", "LlamaConfig", num_key_value_heads=2, attn_implementation="sdpa")


def qwen2() -> Built:
    return _decoder("Qwen2ForCausalLM", "Qwen2Config", num_key_value_heads=2)


def qwen3() -> Built:
    return _decoder("Qwen3ForCausalLM", "Qwen3Config", num_key_value_heads=2, head_dim=8)


def mistral() -> Built:
    return _decoder("MistralForCausalLM", "MistralConfig", num_key_value_heads=2, sliding_window=8)


def phi() -> Built:
    return _decoder("PhiForCausalLM", "PhiConfig")


def phi3() -> Built:
    return _decoder("Phi3ForCausalLM", "Phi3Config", num_key_value_heads=2)


def gemma() -> Built:
    return _decoder("GemmaForCausalLM", "GemmaConfig", num_key_value_heads=2, head_dim=8)


def gemma2() -> Built:
    return _decoder("Gemma2ForCausalLM", "Gemma2Config", num_key_value_heads=2, head_dim=8, sliding_window=8)


def bloom() -> Built:
    return _decoder("BloomForCausalLM", "BloomConfig", n_layer=2, n_head=4)


def falcon() -> Built:
    return _decoder("FalconForCausalLM", "FalconConfig")


def stablelm() -> Built:
    return _decoder("StableLmForCausalLM", "StableLmConfig", num_key_value_heads=2)


def olmo() -> Built:
    return _decoder("OlmoForCausalLM", "OlmoConfig")


def olmo2() -> Built:
    return _decoder("Olmo2ForCausalLM", "Olmo2Config", num_key_value_heads=2)


def granite() -> Built:
    return _decoder("GraniteForCausalLM", "GraniteConfig", num_key_value_heads=2)


def starcoder2() -> Built:
    return _decoder("Starcoder2ForCausalLM", "Starcoder2Config", num_key_value_heads=2)


def biogpt() -> Built:
    return _decoder("BioGptForCausalLM", "BioGptConfig")


# --- encoder and decoder ------------------------------------------------------------------------------


def bart() -> Built:
    layers = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
    }
    sizes = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": POSITIONS,
    }
    return _build("BartModel", "BartConfig", use_cache=False, **layers, **sizes), {
        **_tokens(),
        "decoder_input_ids": _integers(4, VOCABULARY, 2, 6),
    }


def t5() -> Built:
    sizes = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
    return _build("T5Model", "T5Config", use_cache=False, **sizes), {
        **_tokens(),
        "decoder_input_ids": _integers(4, VOCABULARY, 2, 6),
    }


# --- vision -------------------------------------------------------------------------------------------

_VIT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 16,
}


def _image(model: str, config: str, **options: Any) -> Built:
    built = _build(model, config, **options)
    _settle(built, "pixel_values", _floats(8, 3, 64, 64))
    return built, {"pixel_values": _floats(2, 3, 64, 64)}


def _vit(model: str, config: str, **options: Any) -> Built:
    return _image(model, config, **{**_VIT, **options})


def vit() -> Built:
    return _vit("ViTForImageClassification", "ViTConfig", num_labels=10)


def vit_eager() -> Built:
    return _vit("ViTModel", "ViTConfig", attn_implementation="eager")


def deit() -> Built:
    return _vit("DeiTModel", "DeiTConfig")


def beit() -> Built:
    return _vit("BeitModel", "BeitConfig", use_relative_position_bias=True)


def data2vec_vision() -> Built:
    return _vit("Data2VecVisionModel", "Data2VecVisionConfig")


def swin() -> Built:
    return _image(
        "SwinForImageClassification",
        "SwinConfig",
        image_size=64,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
        num_labels=10,
    )


def swinv2() -> Built:
    return _image(
        "Swinv2Model",
        "Swinv2Config",
        image_size=64,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    )


def convnext() -> Built:
    return _image(
        "ConvNextForImageClassification",
        "ConvNextConfig",
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 2, 1],
        num_labels=10,
    )


def convnextv2() -> Built:
    return _image("ConvNextV2Model", "ConvNextV2Config", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1])


def resnet() -> Built:
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}
    return _image("ResNetForImageClassification", "ResNetConfig", num_labels=10, **sizes)


def mobilenet_v1() -> Built:
    return _image("MobileNetV1Model", "MobileNetV1Config", image_size=64, depth_multiplier=0.25)


def mobilenet_v2() -> Built:
    return _image(
        "MobileNetV2ForImageClassification",
        "MobileNetV2Config",
        image_size=64,
        depth_multiplier=0.35,
        num_labels=10,
    )


def mobilevit() -> Built:
    sizes = {"hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32]}
    return _image("MobileViTModel", "MobileViTConfig", image_size=64, **sizes)


def mobilevit_v2() -> Built:
    return _image("MobileViTV2Model", "MobileViTV2Config", image_size=64, width_multiplier=0.25)


def segformer() -> Built:
    sizes = {
        "hidden_sizes": [8, 16, 24, 32],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 2, 4],
        "decoder_hidden_size": 16,
    }
    return _image("SegformerForSemanticSegmentation", "SegformerConfig", num_labels=5, **sizes)


def poolformer() -> Built:
    return _image("PoolFormerModel", "PoolFormerConfig", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1])


def regnet() -> Built:
    return _image(
        "RegNetModel",
        "RegNetConfig",
        embedding_size=8,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        groups_width=8,
    )


def efficientnet() -> Built:
    return _image(
        "EfficientNetModel",
        "EfficientNetConfig",
        image_size=64,
        width_coefficient=0.25,
        depth_coefficient=0.25,
        hidden_dim=320,
    )


def dinov2() -> Built:
    return _vit("Dinov2Model", "Dinov2Config", mlp_ratio=2)


def dinov2_registers() -> Built:
    return _vit("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", mlp_ratio=2)


def levit() -> Built:
    sizes = {
        "hidden_sizes": [16, 24, 32],
        "num_attention_heads": [2, 2, 2],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
    }
    return _image("LevitModel", "LevitConfig", image_size=64, **sizes)


def pvt() -> Built:
    sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]}
    return _image("PvtModel", "PvtConfig", image_size=64, **sizes)


def pvt_v2() -> Built:
    sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]}
    return _image("PvtV2Model", "PvtV2Config", image_size=64, **sizes)


def clip_vision() -> Built:
    return _vit("CLIPVisionModel", "CLIPVisionConfig")


def siglip_vision() -> Built:
    return _vit("SiglipVisionModel", "SiglipVisionConfig")


def bit() -> Built:
    return _image(
        "BitModel",
        "BitConfig",
        embedding_size=16,
        hidden_sizes=[32, 32, 64, 64],
        depths=[1, 1, 1, 1],
        num_groups=4,
    )


def cvt() -> Built:
    return _image("CvtModel", "CvtConfig", embed_dim=[8, 16, 32], num_heads=[1, 2, 4], depth=[1, 2, 3])


def focalnet() -> Built:
    return _image(
        "FocalNetModel",
        "FocalNetConfig",
        image_size=64,
        embed_dim=16,
        depths=[1, 1],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
    )


def hiera() -> Built:
    sizes = {"embed_dim": 16, "image_size": [64, 64], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}
    return _image("HieraModel", "HieraConfig", **sizes)


def swiftformer() -> Built:
    return _image(
        "SwiftFormerModel",
        "SwiftFormerConfig",
        image_size=64,
        depths=[1, 1, 1, 1],
        embed_dims=[16, 24, 32, 48],
    )


def vit_msn() -> Built:
    return _vit("ViTMSNModel", "ViTMSNConfig")


def yolos() -> Built:
    return _vit(
        "YolosForObjectDetection", "YolosConfig", image_size=[64, 64], num_detection_tokens=5, num_labels=4
    )


def dpt() -> Built:
    sizes = {
        "num_hidden_layers": 4,
        "backbone_out_indices": [0, 1, 2, 3],
        "neck_hidden_sizes": [8, 8, 16, 16],
        "fusion_hidden_size": 16,
    }
    return _vit("DPTForDepthEstimation", "DPTConfig", is_hybrid=False, **sizes)


def ijepa() -> Built:
    return _vit("IJepaModel", "IJepaConfig")


def clip() -> Built:
    """Both of CLIP's towers, and the similarities of every image to every text."""
    text = {**_SIZES, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model = _build("CLIPModel", "CLIPConfig", text_config=text, vision_config=_VIT, projection_dim=16)
    return model, {**_tokens(), "pixel_values": _floats(2, 3, 64, 64)}


# --- audio --------------------------------------------------------------------------------------------

_SPEECH: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [16, 16, 16],
    "conv_kernel": [10, 3, 3],
    "conv_stride": [5, 2, 2],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 32,
}


def _speech(model: str, config: str, **options: Any) -> Built:
    return _build(model, config, **{**_SPEECH, **options}), {"input_values": _floats(2, 800)}


def wav2vec2() -> Built:
    return _speech("Wav2Vec2ForCTC", "Wav2Vec2Config")


def wav2vec2_layer_norm() -> Built:
    return _speech("Wav2Vec2Model", "Wav2Vec2Config", feat_extract_norm="layer", do_stable_layer_norm=True)


def hubert() -> Built:
    return _speech("HubertModel", "HubertConfig")


def wavlm() -> Built:
    return _speech("WavLMModel", "WavLMConfig")


def sew() -> Built:
    return _speech("SEWModel", "SEWConfig", squeeze_factor=2)


def unispeech() -> Built:
    return _speech("UniSpeechModel", "UniSpeechConfig")


def unispeech_sat() -> Built:
    return _speech("UniSpeechSatModel", "UniSpeechSatConfig")


def data2vec_audio() -> Built:
    return _speech(
        "Data2VecAudioModel", "Data2VecAudioConfig", conv_pos_kernel_size=3, num_conv_pos_embeddings=2
    )


def wav2vec2_conformer() -> Built:
    return _speech("Wav2Vec2ConformerModel", "Wav2Vec2ConformerConfig", conv_depthwise_kernel_size=7)


def whisper_encoder() -> Built:
    sizes = {
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "num_mel_bins": 16,
        "max_source_positions": 32,
    }
    model = _build(
        "WhisperModel",
        "WhisperConfig",
        vocab_size=VOCABULARY,
        decoder_layers=1,
        decoder_attention_heads=4,
        pad_token_id=0,
        **sizes,
    )
    return model.encoder, {"input_features": _floats(2, 16, 64)}


def ast() -> Built:
    """The audio spectrogram transformer: a vision transformer over a spectrogram."""
    sizes = {**_VIT, "num_mel_bins": 32, "max_length": 64}
    del sizes["image_size"]
    return _build("ASTModel", "ASTConfig", **sizes), {"input_values": _floats(2, 64, 32)}


# --- the table ----------------------------------------------------------------------------------------

_TEXT_INPUTS = ("input_ids=int64[batch,seq]", "attention_mask=int64[batch,seq]")
_TEXT_DIMS = ("batch=1:4", "seq=4:32")
_MASK = ("attention_mask=0:1",)
_IMAGE_INPUTS = ("pixel_values=float32[batch,3,64,64]",)
_WAVE_INPUTS = ("input_values=float32[batch,samples]",)
_WAVE_DIMS = ("batch=1:4", "samples=400:1600")


def _text_entry(name: str, family: str = "encoder") -> Entry:
    return Entry(name, family, _TEXT_INPUTS, _TEXT_DIMS, _MASK)


def _image_entry(name: str) -> Entry:
    return Entry(name, "vision", _IMAGE_INPUTS, ("batch=1:4",))


def _wave_entry(name: str) -> Entry:
    return Entry(name, "audio", _WAVE_INPUTS, _WAVE_DIMS)


_ENCODERS = (
    "bert",
    "bert_sdpa",
    "distilbert",
    "roberta",
    "albert",
    "electra",
    "mpnet",
    "deberta",
    "deberta_v2",
    "mobilebert",
    "squeezebert",
    "funnel",
    "roformer",
    "convbert",
    "nystromformer",
    "modernbert",
    "esm",
    "nomic_bert",
    "xlnet",
    "clip_text",
    "t5_encoder",
)
_DECODERS = (
    "gpt2",
    "gpt2_sdpa",
    "gptj",
    "gpt_neo",
    "gpt_neox",
    "opt",
    "llama",
    "llama_sdpa",
    "qwen3",
    "mistral",
    "phi3",
    "gemma2",
    "bloom",
    "falcon",
    "stablelm",
)
_IMAGES = (
    "vit",
    "deit",
    "beit",
    "swin",
    "swinv2",
    "convnext",
    "resnet",
    "mobilenet_v2",
    "mobilevit",
    "mobilevit_v2",
    "segformer",
    "poolformer",
    "regnet",
    "efficientnet",
    "dinov2",
    "dinov2_registers",
    "levit",
    "pvt",
    "clip_vision",
    "bit",
    "focalnet",
)
_WAVES = ("wav2vec2", "hubert", "wavlm", "sew", "wav2vec2_conformer")

_TARGET = "decoder_input_ids=int64[batch,target]"

ZOO: tuple[Entry, ...] = (
    *map(_text_entry, _ENCODERS),
    Entry("fnet", "encoder", ("input_ids=int64[batch,seq]",), _TEXT_DIMS),
    Entry(
        "layoutlm", "encoder", (*_TEXT_INPUTS, "bbox=int64[batch,seq,4]"), _TEXT_DIMS, (*_MASK, "bbox=0:63")
    ),
    *(_text_entry(name, "decoder") for name in _DECODERS),
    *(
        Entry(name, "encoder-decoder", (*_TEXT_INPUTS, _TARGET), (*_TEXT_DIMS, "target=2:16"), _MASK)
        for name in ("bart", "t5")
    ),
    *map(_image_entry, _IMAGES),
    Entry("clip", "vision", (*_TEXT_INPUTS, *_IMAGE_INPUTS), _TEXT_DIMS, _MASK),
    *map(_wave_entry, _WAVES),
    Entry("whisper_encoder", "audio", ("input_features=float32[batch,16,64]",), ("batch=1:4",)),
    Entry("ast", "audio", ("input_values=float32[batch,64,32]",), ("batch=1:4",)),
)

# Close relatives of nets above; they run with `--all`.
MORE: tuple[Entry, ...] = (
    *map(
        _text_entry,
        (
            "bert_classifier",
            "xlm_roberta",
            "camembert",
            "ernie",
            "megatron_bert",
            "rembert",
            "data2vec_text",
            "eurobert",
            "big_bird",
        ),
    ),
    *(
        _text_entry(name, "decoder")
        for name in ("codegen", "qwen2", "phi", "gemma", "olmo", "olmo2", "granite", "starcoder2", "biogpt")
    ),
    *map(
        _image_entry,
        (
            "vit_eager",
            "data2vec_vision",
            "convnextv2",
            "mobilenet_v1",
            "pvt_v2",
            "siglip_vision",
            "cvt",
            "hiera",
            "swiftformer",
        ),
    ),
    *map(_image_entry, ("vit_msn", "yolos", "dpt", "ijepa")),
    *map(_wave_entry, ("wav2vec2_layer_norm", "unispeech", "unispeech_sat", "data2vec_audio")),
)
