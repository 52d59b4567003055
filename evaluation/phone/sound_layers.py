"""Nets of ordinary layers, which half precision computes within 30 dB."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from evaluation.phone.net import PhoneNet, Row, normal, of_families, uniform, weight, whole

F = np.float32
IMAGE = {"x": ((1, 3, 32, 32), normal())}
ROWS = {"x": ((4, 32), normal())}
TOKENS = {"x": ((1, 10, 32), normal())}


def _convolutions() -> Iterator[Row]:
    k = {"k": weight(8, 3, 3, 3), "b": weight(8, scale=0.1)}
    conv = "c = Conv<pads = [1, 1, 1, 1]>(x, k, b)"
    for activation in (
        "Relu",
        "Sigmoid",
        "Tanh",
        "Elu",
        "LeakyRelu",
        "HardSwish",
        "Softplus",
        "Softsign",
        "HardSigmoid",
        "Selu",
    ):
        yield f"convolution and {activation}", f"{conv} y = {activation}(c)", IMAGE, k
    yield "convolution and SiLU", f"{conv} s = Sigmoid(c) y = Mul(c, s)", IMAGE, k
    yield "strided convolution", "y = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, k, b)", IMAGE, k
    yield "dilated convolution", "y = Conv<pads = [2, 2, 2, 2], dilations = [2, 2]>(x, k, b)", IMAGE, k
    yield (
        "depthwise separable",
        f"{conv} d = Conv<pads = [1, 1, 1, 1], group = 8>(c, dw) r = Relu(d) y = Conv(r, pw)",
        IMAGE,
        k | {"dw": weight(8, 1, 3, 3), "pw": weight(12, 8, 1, 1)},
    )
    yield (
        "transposed convolution",
        f"{conv} y = ConvTranspose<strides = [2, 2], kernel_shape = [2, 2]>(c, t)",
        IMAGE,
        k | {"t": weight(8, 4, 2, 2)},
    )
    yield (
        "convolution of one dimension",
        "c = Conv<pads = [1, 1]>(x, k) y = ReduceMax<axes = [2], keepdims = 0>(c)",
        {"x": ((1, 8, 40), normal())},
        {"k": weight(12, 8, 3)},
    )
    yield (
        "convolution of scaled pixels",
        "s = Mul(x, n) c = Conv<pads = [1, 1, 1, 1]>(s, k, b) y = Relu(c)",
        {"x": ((1, 3, 32, 32), uniform(0, 255))},
        k | {"n": F(1 / 255)},
    )
    yield "average pooling", f"{conv} y = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(c)", IMAGE, k
    yield "maximum pooling", f"{conv} y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(c)", IMAGE, k
    yield (
        "mean of a large map",
        "y = ReduceMean<axes = [2, 3], keepdims = 1>(x)",
        {"x": ((1, 4, 128, 128), uniform(0, 10))},
        {},
    )
    residual = "".join(
        f" c{i} = Conv<pads = [1, 1, 1, 1]>(h{i}, r{i}) a{i} = Relu(c{i}) h{i + 1} = Add(h{i}, a{i})"
        for i in range(4)
    )
    yield (
        "residual blocks",
        f"h0 = Conv<pads = [1, 1, 1, 1]>(x, k, b){residual} y = GlobalAveragePool(h4)",
        IMAGE,
        k | {f"r{i}": weight(8, 8, 3, 3) for i in range(4)},
    )
    yield (
        "average over a large window",
        "y = AveragePool<kernel_shape = [64, 64], strides = [64, 64]>(x)",
        {"x": ((1, 2, 128, 128), uniform(0, 255))},
        {},
    )
    yield (
        "squeeze and excite",
        f"{conv} g = GlobalAveragePool(c) e = Conv(g, se) s = Sigmoid(e) y = Mul(c, s)",
        IMAGE,
        k | {"se": weight(8, 8, 1, 1)},
    )
    yield (
        "upsampled",
        f'{conv} y = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", '
        'nearest_mode = "floor">(c, none, sc)',
        IMAGE,
        k | {"none": np.zeros(0, F), "sc": np.array([1, 1, 2, 2], F)},
    )
    yield (
        "upsampled linearly",
        f'{conv} y = Resize<mode = "linear", coordinate_transformation_mode = "half_pixel">(c, none, sc)',
        IMAGE,
        k | {"none": np.zeros(0, F), "sc": np.array([1, 1, 2, 2], F)},
    )
    yield (
        "small U-Net",
        (
            f"{conv} r = Relu(c) p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r) d = Conv<pads = "
            "[1, 1, 1, 1]>(p, r0) u = ConvTranspose<strides = [2, 2], kernel_shape = [2, 2]>(d, t) j = "
            "Concat<axis = 1>(u, r) y = Conv(j, o)"
        ),
        IMAGE,
        k | {"r0": weight(8, 8, 3, 3), "t": weight(8, 8, 2, 2), "o": weight(2, 16, 1, 1)},
    )
    yield "pixel shuffle", f"{conv} y = DepthToSpace<blocksize = 2>(c)", IMAGE, k


def _norms() -> Iterator[Row]:
    one = {"g": weight(32, scale=1), "z": weight(32, scale=0.1), "e": F(1e-5), "two": F(2)}
    mean = "ReduceMean<axes = [-1], keepdims = 1>"
    rms = f"q = Mul(x, x) m = {mean}(q) t = Add(m, e) r = Sqrt(t) n = Div(x, r) y = Mul(n, g)"
    for scale in (1, 300):
        rows = {"x": ((4, 32), normal(scale))}
        yield f"LayerNorm of values about {scale}", "y = LayerNormalization<axis = -1>(x, g, z)", rows, one
        yield f"RMSNorm of values about {scale}", rms, rows, one
        yield (
            f"LayerNorm by Pow of values about {scale}",
            (
                f"m = {mean}(x) d = Sub(x, m) q = Pow(d, two) v = {mean}(q) t = Add(v, e) r = Sqrt(t) y "
                "= Div(d, r)"
            ),
            rows,
            one,
        )
    yield (
        "LayerNorm of small features",
        "y = LayerNormalization<axis = -1, epsilon = 1e-12>(x, g, z)",
        {"x": ((4, 32), normal(3e-5))},
        one,
    )
    yield (
        "batch norm",
        "y = BatchNormalization(x, a, b, m, v)",
        {"x": ((1, 8, 16, 16), normal(3))},
        {n: weight(8, scale=0.3) for n in "abm"} | {"v": np.full(8, 2, F)},
    )
    for size, scale in ((8, 1), (64, 1), (64, 100)):
        yield (
            f"instance norm of {size} by {size}, values about {scale}",
            "y = InstanceNormalization(x, a, b)",
            {"x": ((1, 4, size, size), normal(scale))},
            {"a": np.ones(4, F), "b": np.zeros(4, F)},
        )
    yield (
        "group norm",
        "r = Reshape(x, s) n = InstanceNormalization(r, a, b) y = Reshape(n, back)",
        {"x": ((1, 8, 16, 16), normal(5))},
        {
            "a": np.ones(2, F),
            "b": np.zeros(2, F),
            "s": np.array([1, 2, -1]),
            "back": np.array([1, 8, 16, 16]),
        },
    )
    yield "unit vectors", "r = ReduceL2<axes = [-1], keepdims = 1>(x) y = Div(x, r)", ROWS, {}
    yield "LpNormalization of ordinary rows", "y = LpNormalization<axis = 1, p = 2>(x)", ROWS, {}
    yield "LRN", "y = LRN<size = 5>(x)", {"x": ((1, 8, 16, 16), normal(3))}, {}


def _attention() -> Iterator[Row]:
    w = {f"w{n}": weight(32, 32, scale=0.2) for n in "qkvo"} | {"sc": F(32**-0.5)}
    project = "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) t = Transpose<perm = [0, 2, 1]>(k)"
    end = "p = Softmax<axis = -1>(n) a = MatMul(p, v) y = MatMul(a, wo)"
    yield "attention", f"{project} s = MatMul(q, t) n = Mul(s, sc) {end}", TOKENS, w
    yield (
        "attention with large scores",
        f"{project} s = MatMul(q, t) n = Mul(s, sc) {end}",
        {"x": ((1, 10, 32), normal(8))},
        w,
    )
    for number in (-1e9, float(np.finfo(F).min)):
        tri = {"tri": (np.triu(np.ones((10, 10)), 1) * number).astype(F)}
        yield (
            f"causal attention, mask {number:.3g}",
            f"{project} s = MatMul(q, t) i = Mul(s, sc) n = Add(i, tri) {end}",
            TOKENS,
            w | tri,
        )
        masked = {"x": ((2, 6, 6), normal(2)), "m": ((2, 1, 6), whole(0, 2))}
        rows = {"x": ((2, 6, 6), normal(2)), "m": ((2, 6, 1), whole(0, 2))}
        big = {"big": F(number), "one": F(1), "zero": F(0)}
        soft = "y = Softmax<axis = -1>(t)"
        added = f"f = Cast<to = 1>(m) i = Sub(one, f) n = Mul(i, big) t = Add(x, n) {soft}"
        yield f"mask of {number:.3g} added", added, masked, big
        yield f"rows masked throughout by {number:.3g}", added, rows, big
        yield f"mask of {number:.3g} chosen", f"c = Cast<to = 9>(m) t = Where(c, x, big) {soft}", masked, big
        yield (
            f"mask of {number:.3g} chosen, then added",
            f"c = Cast<to = 9>(m) n = Where(c, zero, big) t = Add(x, n) {soft}",
            masked,
            big,
        )
    block = (
        "g1 = LayerNormalization<axis = -1>(x, g, z) q = MatMul(g1, wq) k = MatMul(g1, wk) v = "
        "MatMul(g1, wv) t = Transpose<perm = [0, 2, 1]>(k) s = MatMul(q, t) n = Mul(s, sc) p = "
        "Softmax<axis = -1>(n) a = MatMul(p, v) o = MatMul(a, wo) h = Add(x, o) g2 = "
        "LayerNormalization<axis = -1>(h, g, z) f1 = MatMul(g2, f) f2 = Relu(f1) f3 = MatMul(f2, b) y = "
        "Add(h, f3)"
    )
    yield (
        "transformer block",
        block,
        TOKENS,
        w
        | {
            "g": np.ones(32, F),
            "z": np.zeros(32, F),
            "f": weight(32, 64, scale=0.2),
            "b": weight(64, 32, scale=0.2),
        },
    )
    yield (
        "embedding and mean",
        "e = Gather(t, x) y = ReduceMean<axes = [1], keepdims = 0>(e)",
        {"x": ((2, 12), whole(0, 50))},
        {"t": weight(50, 16, scale=1)},
    )
    yield (
        "rotary positions",
        (
            "c = Mul(x, cos) l, r = Split<axis = -1>(x) n = Neg(r) t = Concat<axis = -1>(n, l) d = "
            "Mul(t, sin) y = Add(c, d)"
        ),
        TOKENS,
        {"cos": weight(10, 32, scale=0.7), "sin": weight(10, 32, scale=0.7)},
    )


def _activations() -> Iterator[Row]:
    one = {"one": F(1), "two": F(2), "s": F(0.044715), "half": F(0.5), "rt": F(2**-0.5)}
    large = {"x": ((4, 32), normal(8))}
    yield (
        "mish written out, large values",
        "e = Exp(x) p = Add(e, one) l = Log(p) t = Tanh(l) y = Mul(x, t)",
        large,
        one,
    )
    yield (
        "tanh written out, large values",
        "d = Mul(x, two) e = Exp(d) p = Add(e, one) m = Sub(e, one) y = Div(m, p)",
        {"x": ((4, 32), normal(5))},
        one,
    )
    yield (
        "sigmoid as exp over one plus exp, large values",
        "e = Exp(x) p = Add(e, one) y = Div(e, p)",
        large,
        one,
    )
    yield (
        "sigmoid as one over one plus exp, large values",
        "n = Neg(x) e = Exp(n) p = Add(e, one) y = Div(one, p)",
        large,
        one,
    )
    yield (
        "gelu of large values by tanh",
        "c = Mul(x, x) d = Mul(c, x) k = Mul(d, s) i = Add(x, k) t = Tanh(i) p = Add(t, one) y = Mul(x, p)",
        {"x": ((4, 32), normal(30))},
        one,
    )
    yield "gelu by erf", "d = Mul(x, rt) e = Erf(d) p = Add(e, one) q = Mul(x, p) y = Mul(q, half)", ROWS, one
    yield "softmax of large values", "y = Softmax<axis = -1>(x)", {"x": ((4, 32), normal(100))}, {}
    yield "log softmax", "y = LogSoftmax<axis = -1>(x)", large, {}
    yield "softmax over channels", "y = Softmax<axis = 1>(x)", {"x": ((1, 5, 8, 8), normal(5))}, {}
    yield (
        "entropy of sharp distributions",
        (
            "p = Softmax<axis = -1>(x) t = Add(p, e) l = Log(t) q = Mul(p, l) s = ReduceSum<keepdims = "
            "1>(q, a) y = Neg(s)"
        ),
        {"x": ((4, 64), normal(3))},
        {"e": F(1e-10), "a": np.array([-1])},
    )
    yield "PRelu", "y = PRelu(x, k)", ROWS, {"k": weight(32, scale=0.3)}
    yield "clipped", "y = Clip(x, lo, hi)", ROWS, {"lo": F(-1), "hi": F(1)}


def _sequences() -> Iterator[Row]:
    for kind, gates, extra, outs in (
        ("LSTM", 4, "", "h, last, cell"),
        ("GRU", 3, ", linear_before_reset = 1", "h, last"),
        ("RNN", 1, "", "h, last"),
    ):
        w = {
            "w": weight(1, gates * 16, 8, scale=0.3),
            "r": weight(1, gates * 16, 16, scale=0.3),
            "b": weight(1, 2 * gates * 16, scale=0.3),
            "o": weight(16, 4),
        }
        x = {"x": ((12, 1, 8), normal())}
        yield (
            f"{kind} whose last state is used",
            f"{outs} = {kind}<hidden_size = 16{extra}>(x, w, r, b) y = MatMul(last, o)",
            x,
            w,
        )
        yield (
            f"{kind} of one step",
            f"{outs} = {kind}<hidden_size = 16{extra}>(x, w, r, b) y = MatMul(h, o)",
            {"x": ((1, 1, 8), normal())},
            w,
        )
    yield (
        "RNN whose outputs of all steps are used",
        "h, last = RNN<hidden_size = 16>(x, w, r, b) y = MatMul(h, o)",
        x,
        w,
    )
    yield (
        "temporal convolutions",
        (
            "a = Conv<pads = [2, 0]>(x, k) b = Relu(a) c = Conv<pads = [4, 0], dilations = [2]>(b, k) y "
            "= Add(c, x)"
        ),
        {"x": ((1, 8, 40), normal())},
        {"k": weight(8, 8, 3)},
    )
    yield "CumSum of a short row", "y = CumSum(x, ax)", {"x": ((2, 30), normal())}, {"ax": np.array(1)}


def _dense() -> Iterator[Row]:
    w = {"w": weight(32, 64), "v": weight(64, 8), "b": weight(64, scale=0.1)}
    yield "two linear layers", "h = MatMul(x, w) i = Add(h, b) r = Relu(i) y = MatMul(r, v)", ROWS, w
    yield "Gemm", "y = Gemm(x, w, b)", ROWS, w
    yield (
        "a deep stack of linear layers",
        " ".join(f"h{i + 1} = MatMul(h{i}, m{i})" if i else "h1 = MatMul(x, m0)" for i in range(8))
        + " y = Tanh(h8)",
        ROWS,
        {f"m{i}": weight(32, 32) for i in range(8)},
    )
    yield "batched product", "t = Transpose<perm = [0, 2, 1]>(x) y = MatMul(x, t)", TOKENS, {}
    yield "gated units", "h = MatMul(x, w) l, r = Split<axis = -1>(h) s = Sigmoid(r) y = Mul(l, s)", ROWS, w
    yield "mixture of two", "h = MatMul(x, w) p = Softmax<axis = -1>(h) y = MatMul(p, v)", ROWS, w
    yield (
        "distances of ordinary points",
        "d = Sub(x, c) q = Mul(d, d) s = ReduceSum<keepdims = 1>(q, a) y = Sqrt(s)",
        ROWS,
        {"c": weight(32, scale=1), "a": np.array([1])},
    )
    yield (
        "statistics pooling",
        (
            "m = ReduceMean<axes = [-1], keepdims = 1>(x) q = Mul(x, x) k = ReduceMean<axes = [-1], "
            "keepdims = 1>(q) n = Mul(m, m) v = Sub(k, n) p = Relu(v) t = Add(p, e) r = Sqrt(t) y = "
            "Concat<axis = -1>(m, r)"
        ),
        {"x": ((2, 16, 80), normal(1, 0.3))},
        {"e": F(1e-5)},
    )
    yield (
        "largest and smallest",
        "a = ReduceMax<axes = [1], keepdims = 1>(x) b = ReduceMin<axes = [1], keepdims = 1>(x) y = Sub(a, b)",
        ROWS,
        {},
    )


FAMILIES = {
    "convolutions": _convolutions,
    "norms": _norms,
    "attention": _attention,
    "activations": _activations,
    "sequences": _sequences,
    "dense": _dense,
}


def nets() -> list[PhoneNet]:
    """Every net of this module."""
    return of_families(FAMILIES, planted=False)
