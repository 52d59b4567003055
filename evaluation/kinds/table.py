"""The models, what `prepare` is given with each, and how it must end."""

from __future__ import annotations

from dataclasses import dataclass

UNPROVEN, REFUSED, USAGE = "unproven", "refused", "usage"


@dataclass(frozen=True)
class Kind:
    """One model: a file in sources/, with a factory if it is Python; ``made_by`` writes what is not there."""

    source: str
    options: str = ""
    ends: str = "proven"
    made_by: str = ""


KINDS = (
    Kind("gru_on_input.onnx", "--dim seq=1:8 --dim batch=1:3"),
    Kind("resize10_linear.onnx", "--dim n=1:2 --dim h=2:9 --dim w=2:9"),
    Kind("resize10_nearest.onnx", "--dim n=1:2"),
    Kind("deconv_output_shape_notset.onnx", "--dim n=1:2"),
    Kind("deconv_output_shape_same_lower.onnx", "--dim n=1:2"),
    Kind("deconv3d_dynamic.onnx", "--dim n=1:2 --dim d=1:4 --dim h=2:5 --dim w_=2:5"),
    Kind("einsum_bchi.onnx"),
    Kind("scatter_add_dynamic.onnx", "--dim k=1:6 --range i=0:4"),
    Kind("bicubic_dynamic.onnx", "--dim h=3:9 --dim w=3:9"),
    Kind("rotary_after_matmul.onnx", "--dim b=1:2 --dim n=1:8 --range pos=0:7"),
    Kind("rotary_on_input.onnx", "--dim b=1:2 --dim n=1:8 --range pos=0:7"),
    Kind("tf_same_k1s4_dyn.pb", "--input x=float32[n,h,w,3] --dim n=1:2 --dim h=8:24 --dim w=8:24"),
    Kind("tf_same_k3s8_dyn.pb", "--input x=float32[n,h,w,3] --dim n=1:2 --dim h=8:24 --dim w=8:24"),
    Kind("conv_same_stride_beyond_kernel.onnx", ends=UNPROVEN),
    Kind("keep_prob.pb"),
    Kind("keep_prob.pb", "--range keep_prob=1:1", USAGE),
    Kind("fakequant.pb"),
    Kind("keras_gru.keras"),
    Kind(
        "exporter_calls.py:repeat_minus_one",
        "--input x=float32[batch,length,8] --dim batch=1:4 --dim length=4:32",
    ),
    Kind(
        "exporter_calls.py:neg_permute",
        "--input x=float32[batch,length,4,5] --dim batch=1:4 --dim length=2:16",
    ),
    Kind("exporter_calls.py:pos_slices", "--input x=float32[batch,16,32] --dim batch=1:4"),
    Kind("exporter_calls.py:scan", "--input x=float32[batch,length,8] --dim batch=1:4 --dim length=4:32"),
    Kind("parts_and_pools.py:only_slice", "--input x=float32[batch,16,32] --dim batch=1:4"),
    Kind("parts_and_pools.py:only_add", "--input x=float32[batch,16,32] --dim batch=1:4"),
    Kind("parts_and_pools.py:slice_mul", "--input x=float32[batch,16,32] --dim batch=1:4"),
    Kind(
        "parts_and_pools.py:adaptive2",
        "--input x=float32[batch,3,h,w] --dim batch=1:3 --dim h=4:20 --dim w=4:20",
    ),
    Kind(
        "parts_and_pools.py:adaptivemax2",
        "--input x=float32[batch,3,h,w] --dim batch=1:3 --dim h=4:20 --dim w=4:20",
    ),
    Kind(
        "cache.py:cached",
        "--input x=float32[batch,new,8] --input mask=int64[batch,total] "
        "--input pk=float32[batch,past,8] --input pv=float32[batch,past,8] --dim batch=1:3 "
        "--dim new=1:4 --dim past=1:6 --dim total=2:10 --range mask=0:1",
        UNPROVEN,
    ),
    Kind(
        "sizes_and_strides.py:pad_by_size",
        "--input x=float32[batch,3,length] --dim batch=1:4 --dim length=3:32",
    ),
    Kind(
        "sizes_and_strides.py:pad_by_size2",
        "--input x=float32[batch,3,length] --dim batch=1:4 --dim length=5:32",
    ),
    Kind(
        "sizes_and_strides.py:strided", "--input x=float32[batch,length,4] --dim batch=1:4 --dim length=4:32"
    ),
    Kind(
        "sizes_and_strides.py:unfold", "--input x=float32[batch,length,4] --dim batch=1:4 --dim length=8:32"
    ),
    Kind("segments.py:interleave", "--input x=float32[batch,length,8] --dim batch=1:4 --dim length=4:32"),
    Kind("segments.py:seg_amin", "--input v=float32[k] --input i=int64[k] --dim k=1:24 --range i=0:7"),
    Kind("segments.py:seg_mean", "--input v=float32[k] --input i=int64[k] --dim k=1:24 --range i=0:7"),
    Kind("segments.py:seg_sum", "--input v=float32[k] --input i=int64[k] --dim k=1:24 --range i=0:7"),
    Kind("transformer_calls.py:rms", "--input x=float32[batch,length,16] --dim batch=1:4 --dim length=1:32"),
    Kind(
        "transformer_calls.py:mask_index",
        "--input m=int64[batch,length] --dim batch=1:4 --dim length=1:16 --range m=0:1",
    ),
    Kind(
        "transformer_calls.py:mask_vmap",
        "--input m=int64[batch,length] --dim batch=1:4 --dim length=1:16 --range m=0:1",
    ),
    Kind(
        "transformer_calls.py:ein",
        "--input q=float32[batch,4,n,6] --input p=float32[batch,n,n,6] --dim batch=1:3 --dim n=1:12",
    ),
    Kind(
        "transformer_calls.py:all_equal",
        "--input i=int64[batch,length] --dim batch=1:4 --dim length=2:16 --range i=0:15",
    ),
    Kind(
        "transformer_calls.py:nms", "--input x=float32[batch,h,w] --dim batch=1:3 --dim h=4:24 --dim w=4:24"
    ),
    Kind(
        "transformer_calls.py:split_batch",
        "--input x=float32[batch,8] --input y=float32[batch,8] --dim batch=1:6",
    ),
    Kind(
        "transformer_calls.py:split_batch2",
        "--input x=float32[batch,8] --input y=float32[batch,8] --dim batch=1:6",
    ),
    Kind(
        "masked_rows.py:sdpa",
        "--input q=float32[batch,2,length,4] --input mask=int64[batch,length] --dim batch=1:3 "
        "--dim length=1:12 --range mask=0:1",
    ),
    Kind(
        "masked_rows.py:sdpa",
        "--method onnx-export --input q=float32[batch,2,length,4] --input mask=int64[batch,length] "
        "--dim batch=1:3 --dim length=1:12 --range mask=0:1",
    ),
    Kind("outputs.py:const", "--input x=float32[batch,8] --dim batch=1:4"),
    Kind("outputs.py:select", "--input x=float32[n] --dim n=4:64"),
    Kind(
        "einsums.py:nd_ng",
        "--input a=float32[batch,n,6] --input b=float32[batch,n,3] --dim batch=1:3 --dim n=1:12",
    ),
    Kind(
        "einsums.py:ell_gd",
        "--input a=float32[batch,n,6] --input b=float32[batch,n,3] --dim batch=1:3 --dim n=1:12",
    ),
    Kind(
        "einsums.py:bros",
        "--input a=float32[batch,4,n,6] --input b=float32[batch,n,n,6] --dim batch=1:3 --dim n=1:12",
    ),
    Kind(
        "einsums.py:bros_ok",
        "--input a=float32[batch,4,n,6] --input b=float32[batch,n,n,6] --dim batch=1:3 --dim n=1:12",
    ),
    Kind(
        "einsums.py:qk",
        "--input a=float32[batch,n,4,6] --input b=float32[batch,n,4,6] --dim batch=1:3 --dim n=1:12",
    ),
    Kind(
        "einsums.py:ell_qk",
        "--input a=float32[batch,3,n,4,6] --input b=float32[batch,3,n,4,6] --dim batch=1:3 --dim n=1:12",
    ),
    Kind("size_branch.py:at_8", "--input x=float32[batch,length,4] --dim batch=1:3 --dim length=2:24"),
    Kind("size_branch.py:at_9", "--input x=float32[batch,length,4] --dim batch=1:3 --dim length=2:24"),
    Kind("compiled_factory.py:build"),
    Kind("compiled_factory.py:dp"),
    Kind("complex_rope.py:build", "--input x=float32[batch,time,16] --dim batch=1:2 --dim time=2:32"),
    Kind("istft.py:build"),
    Kind("hooks.py:build"),
    Kind("hooks.py:build_post"),
    Kind("upbil.keras", ends=REFUSED, made_by="keras_bilinear_open.py"),
    Kind("upbil.keras", "--input input_layer=float32[1,8,8,3]", made_by="keras_bilinear_open.py"),
    Kind(
        "key_padding_mask.py:make",
        "--input x=float32[batch,n,16] --input m=int64[batch,n] --dim batch=1:4 --dim n=2:8 --range m=0:1",
    ),
    Kind("loop_over_dim.py:build", "--input x=float32[batch,time,6] --dim batch=1:3 --dim time=2:9"),
    Kind(
        "packed_lstm.py:build",
        "--input x=float32[batch,time,6] --input lens=int64[batch] --dim batch=1:4 "
        "--dim time=3:12 --range lens=1:3",
    ),
    Kind(
        "nan_mask.py:build",
        "--input x=float32[batch,time,4] --input src_key_padding_mask=bool[batch,time] "
        "--dim batch=1:4 --dim time=2:6",
    ),
    Kind("optional_inputs.py:build"),
    Kind("none.pt2", made_by="pt2_inputs.py"),
    Kind("int.pt2", made_by="pt2_inputs.py"),
    Kind("nested.pt2", made_by="pt2_inputs.py"),
    Kind("rnn.py:gru", "--input input=float32[seq,batch,10] --dim seq=1:12 --dim batch=1:4"),
    Kind("rnn.py:lstm", "--input input=float32[seq,batch,10] --dim seq=1:12 --dim batch=1:4"),
    Kind("div.onnx", "--dim b=1:6", made_by="size_product.py"),
    Kind("mul.onnx", "--dim b=1:6", made_by="size_product.py"),
    Kind("t1/m.ckpt.meta", "--outputs y", made_by="tf1_keep_prob.py"),
    Kind("parts_of_weights.py:pos_static", "--input x=float32[batch,16,8] --dim batch=1:4"),
    Kind("parts_of_weights.py:pos_shape", "--input x=float32[batch,16,8] --dim batch=1:4"),
    Kind("winograd.py:make", "--input input=float32[1,64,h,w] --dim h=8:32 --dim w=8:32"),
    Kind(
        "parts_of_weights.py:row",
        "--input x=float32[batch,8] --input l=int64[batch,1] --dim batch=1:4 --range l=0:3",
    ),
    Kind(
        "parts_of_weights.py:gpt",
        "--input ids=int64[batch,length] --dim batch=1:3 --dim length=1:32 --range ids=0:29",
    ),
    Kind("parts_of_weights.py:vit", "--input x=float32[batch,3,16,16] --dim batch=1:3"),
    Kind(
        "cache.py:cached",
        "--input x=float32[batch,new,8] --input mask=int64[batch,past+new] "
        "--input pk=float32[batch,past,8] --input pv=float32[batch,past,8] --dim batch=1:3 "
        "--dim new=1:4 --dim past=1:6 --range mask=0:1",
    ),
)
