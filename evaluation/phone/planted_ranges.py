"""Nets whose values leave the range of half precision on the way, though their outputs are ordinary."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from evaluation.phone.net import PhoneNet, Row, normal, of_families, uniform, weight

PIXELS = uniform(0, 255)
F = np.float32


def _square_sums() -> Iterator[Row]:
    """Sums of squares of raw pixels and of large features."""
    image = {"x": ((1, 3, 16, 16), PIXELS)}
    rows = {"x": ((4, 256), normal(60))}
    axes = {"a": np.array([1]), "sp": np.array([2, 3])}
    e = {"e": F(1e-6)}
    yield (
        "pixels squared and summed",
        "q = Mul(x, x) s = ReduceSum<keepdims = 1>(q, sp) y = Sqrt(s)",
        image,
        axes,
    )
    yield (
        "pixels divided by their norm",
        "q = Mul(x, x) s = ReduceSum<keepdims = 1>(q, sp) r = Sqrt(s) y = Div(x, r)",
        image,
        axes,
    )
    yield (
        "norm by Pow",
        "q = Pow(x, two) s = ReduceSum<keepdims = 1>(q, a) r = Sqrt(s) y = Div(x, r)",
        rows,
        axes | {"two": F(2)},
    )
    yield "norm by ReduceL2", "r = ReduceL2<axes = [1], keepdims = 1>(x) y = Div(x, r)", rows, {}
    yield (
        "norm by ReduceL2 with Clip",
        "r = ReduceL2<axes = [1], keepdims = 1>(x) c = Clip(r, e) y = Div(x, c)",
        rows,
        e,
    )
    yield "ReduceSumSquare", "s = ReduceSumSquare<axes = [1], keepdims = 1>(x) y = Sqrt(s)", rows, {}
    yield (
        "ReduceSumSquare, epsilon",
        "s = ReduceSumSquare<axes = [1], keepdims = 1>(x) t = Add(s, e) r = Sqrt(t) y = Div(x, r)",
        rows,
        e,
    )
    yield "LpNormalization", "y = LpNormalization<axis = 1, p = 2>(x)", rows, {}
    yield (
        "LpNormalization of an image",
        "y = LpNormalization<axis = 1, p = 2>(x)",
        {"x": ((1, 3, 16, 16), PIXELS)},
        {},
    )
    layer = """m = ReduceMean<axes = [-1], keepdims = 1>(x) d = Sub(x, m) q = Mul(d, d)
        v = ReduceMean<axes = [-1], keepdims = 1>(q)
        t = Add(v, e) r = Sqrt(t) y = Div(d, r)"""
    yield "LayerNorm written out", layer, {"x": ((4, 256), normal(400))}, e
    yield (
        "instance norm written out",
        layer.replace("[-1]", "[2, 3]"),
        {"x": ((1, 4, 32, 32), normal(400))},
        e,
    )
    yield (
        "standard deviation",
        layer.replace("y = Div(d, r)", "y = Identity(r)"),
        {"x": ((4, 256), normal(500))},
        e,
    )
    yield (
        "energy of a signal",
        "q = Mul(x, x) s = ReduceSum<keepdims = 1>(q, a) t = Log(s) y = Mul(t, t)",
        {"x": ((4, 4000), normal(30))},
        axes,
    )
    yield (
        "cosine similarity",
        """p = Mul(x, w) d = ReduceSum<keepdims = 1>(p, a) r = ReduceL2<axes = [1], keepdims = 1>(x)
        n = ReduceL2<axes = [1], keepdims = 1>(w)
        rn = Mul(r, n) f = Squeeze(rn, a) k = Squeeze(d, a) y = Div(k, f)""",
        {"x": ((4, 256), normal(30)), "w": ((4, 256), normal(30))},
        axes,
    )
    yield (
        "distances",
        "d = Sub(x, w) q = Mul(d, d) s = ReduceSum<keepdims = 0>(q, a) y = Sqrt(s)",
        {"x": ((4, 128), normal(100))},
        axes | {"w": weight(4, 128, scale=100)},
    )
    yield (
        "squared distances by products",
        (
            "q = ReduceSumSquare<axes = [1], keepdims = 1>(x) p = MatMul(x, w) p2 = Mul(p, two) s = "
            "Add(q, c) d = Sub(s, p2) y = Sqrt(d)"
        ),
        {"x": ((4, 64), normal(60))},
        {"w": weight(64, 10, scale=60), "c": np.full(10, 64 * 3600, F) * 4, "two": F(2)},
    )
    power = """re = MatMul(x, wr) im = MatMul(x, wi) a2 = Mul(re, re) b2 = Mul(im, im) p = Add(a2, b2)
        m = MatMul(p, mel) l = Add(m, e) y = Log(l)"""
    mel = {
        "wr": weight(64, 33, scale=1),
        "wi": weight(64, 33, scale=1),
        "mel": lambda r: np.abs(weight(33, 10)(r)),
        "e": F(1e-6),
    }
    yield "power spectrum of sound in int16's range", power, {"x": ((4, 64), normal(3000))}, mel
    yield (
        "magnitude spectrum",
        power.replace("m = MatMul(p, mel)", "s = Sqrt(p) m = MatMul(s, mel)"),
        {"x": ((4, 64), normal(800))},
        mel,
    )


def _long_sums() -> Iterator[Row]:
    """Sums over many values, and products with large ones."""
    a = {"a": np.array([1])}
    yield (
        "mean as a sum divided by a count",
        "s = ReduceSum<keepdims = 1>(x, a) y = Div(s, n)",
        {"x": ((4, 5000), uniform(10, 60))},
        a | {"n": F(5000)},
    )
    yield (
        "sum of a map",
        "s = ReduceSum<keepdims = 1>(x, sp) y = Mul(s, n)",
        {"x": ((1, 4, 64, 64), PIXELS)},
        {"sp": np.array([2, 3]), "n": F(1 / 4096)},
    )
    yield (
        "share of a sum",
        "s = ReduceSum<keepdims = 1>(x, a) y = Div(x, s)",
        {"x": ((4, 5000), uniform(10, 60))},
        a,
    )
    yield (
        "L1 norm",
        "s = ReduceL1<axes = [1], keepdims = 1>(x) y = Div(x, s)",
        {"x": ((4, 5000), normal(60))},
        {},
    )
    yield (
        "LpNormalization of order 1",
        "y = LpNormalization<axis = 1, p = 1>(x)",
        {"x": ((4, 5000), normal(60))},
        {},
    )
    yield (
        "sum of a CumSum",
        "c = CumSum(x, ax) y = Div(c, n)",
        {"x": ((2, 2000), uniform(40, 90))},
        {"ax": np.array(1), "n": F(2000)},
    )
    yield (
        "product with ones",
        "s = MatMul(x, o) y = Mul(s, n)",
        {"x": ((4, 4096), PIXELS)},
        {"o": np.ones((4096, 2), F), "n": F(1 / 4096)},
    )
    yield (
        "convolution of raw pixels",
        "c = Conv<pads = [1, 1, 1, 1]>(x, w) y = Mul(c, n)",
        {"x": ((1, 16, 16, 16), PIXELS)},
        {"w": lambda r: r.uniform(0, 5, (8, 16, 3, 3)).astype(F), "n": F(1e-4)},
    )
    yield (
        "linear layer with large weights, scaled back",
        "c = MatMul(x, w) y = Mul(c, n)",
        {"x": ((4, 128), normal(50))},
        {"w": weight(128, 32, scale=300), "n": F(1e-5)},
    )
    yield (
        "global average pooling of a large map",
        "y = GlobalAveragePool(x)",
        {"x": ((1, 4, 128, 128), PIXELS)},
        {},
    )
    yield (
        "global average pooling of large features",
        "r = Relu(x) g = GlobalAveragePool(r) y = Conv(g, w)",
        {"x": ((1, 8, 96, 96), normal(80))},
        {"w": weight(4, 8, 1, 1)},
    )
    yield (
        "weighted centre",
        "p = Mul(x, g) s = ReduceSum<keepdims = 1>(p, sp) t = ReduceSum<keepdims = 1>(x, sp) y = Div(s, t)",
        {"x": ((1, 2, 48, 48), uniform(0, 4))},
        {"sp": np.array([2, 3]), "g": np.arange(48, dtype=F).reshape(1, 1, 1, 48)},
    )


def _exponentials() -> Iterator[Row]:
    """Exponentials of large values."""
    a, x = {"a": np.array([1])}, {"x": ((4, 10), normal(6, 8))}
    soft = "e = Exp(x) s = ReduceSum<keepdims = 1>(e, a) y = Div(e, s)"
    yield "softmax without the shift", soft, x, a
    yield (
        "softmax without the shift, by a Reciprocal",
        soft.replace("y = Div(e, s)", "i = Reciprocal(s) y = Mul(e, i)"),
        x,
        a,
    )
    yield "softmax over channels without the shift", soft, {"x": ((1, 5, 8, 8), normal(5, 8))}, a
    yield "log of a sum of exponentials", "e = Exp(x) s = ReduceSum<keepdims = 1>(e, a) y = Log(s)", x, a
    yield (
        "ReduceLogSumExp",
        "y = ReduceLogSumExp<axes = [1], keepdims = 1>(x)",
        {"x": ((4, 10), normal(8, 12))},
        {},
    )
    yield (
        "softplus written out",
        "e = Exp(x) p = Add(e, one) y = Log(p)",
        {"x": ((4, 32), normal(8))},
        {"one": F(1)},
    )
    yield (
        "a box's size from its logarithm, scaled back",
        "e = Exp(x) y = Mul(e, n)",
        {"x": ((4, 32), uniform(8, 13))},
        {"n": F(1e-4)},
    )
    yield (
        "reparametrised deviation",
        "h = Exp(x) r = Sqrt(h) y = Mul(r, n)",
        {"x": ((4, 32), uniform(6, 14))},
        {"n": F(1e-2)},
    )


def _growth() -> Iterator[Row]:
    """Values that grow layer by layer before a normalisation."""
    w = {f"w{i}": weight(32, 32, scale=1) for i in range(6)} | {
        "e": F(1e-5),
        "one": np.ones(32, F),
        "zero": np.zeros(32, F),
    }
    chain = " ".join(f"h{i + 1} = MatMul(h{i}, w{i})" for i in range(6))
    ends = "y = LayerNormalization<axis = -1>(h6, one, zero)"
    yield (
        "a chain of products",
        f"h0 = Mul(x, sc) {chain} {ends}",
        {"x": ((4, 32), normal())},
        w | {"sc": F(4)},
    )
    residual = " ".join(
        f"m{i} = MatMul(h{i}, w{i}) r{i} = Relu(m{i}) h{i + 1} = Add(h{i}, r{i})" for i in range(6)
    )
    yield (
        "residuals that grow",
        f"h0 = Mul(x, sc) {residual} {ends}",
        {"x": ((4, 32), normal())},
        w | {"sc": F(3)},
    )
    conv = {f"k{i}": weight(8, 8, 3, 3, scale=1) for i in range(4)} | {
        "g": np.ones(8, F),
        "z": np.zeros(8, F),
    }
    convs = " ".join(f"c{i} = Conv<pads = [1, 1, 1, 1]>(h{i}, k{i}) h{i + 1} = Relu(c{i})" for i in range(4))
    yield (
        "convolutions without a norm",
        f"h0 = Mul(x, sc) {convs} y = InstanceNormalization(h4, g, z)",
        {"x": ((1, 8, 16, 16), normal())},
        conv | {"sc": F(20)},
    )
    yield (
        "convolutions of pixels, then scaled back",
        f"h0 = Identity(x) {convs} y = Mul(h4, sc)",
        {"x": ((1, 8, 16, 16), PIXELS)},
        conv | {"sc": F(1e-6)},
    )
    yield (
        "batch norm of large features",
        "h = MatMul(x, w) y = BatchNormalization(h, g, b, m, v)",
        {"x": ((4, 64), normal(100))},
        {
            "w": weight(64, 8, scale=200),
            "g": np.ones(8, F),
            "b": np.zeros(8, F),
            "m": np.zeros(8, F),
            "v": np.full(8, 3e10, F),
        },
    )
    yield (
        "a cube and its root",
        "c = Mul(x, x) d = Mul(c, x) y = Pow(d, third)",
        {"x": ((4, 32), uniform(20, 90))},
        {"third": F(1 / 3)},
    )
    yield (
        "polynomial of a coordinate",
        "c = Mul(x, x) d = Mul(c, c) k = Mul(d, s) y = Sub(x, k)",
        {"x": ((4, 32), uniform(10, 40))},
        {"s": F(1e-6)},
    )
    yield (
        "attention scores before their scale",
        (
            "q = MatMul(x, wq) k = MatMul(x, wk) t = Transpose<perm = [0, 2, 1]>(k) s = MatMul(q, t) n "
            "= Mul(s, sc) p = Softmax<axis = -1>(n) y = MatMul(p, x)"
        ),
        {"x": ((1, 12, 64), normal())},
        {"wq": weight(64, 64, scale=8), "wk": weight(64, 64, scale=8), "sc": F(1e-5)},
    )
    yield (
        "a product of large factors, divided",
        "p = Mul(x, w) y = Div(p, d)",
        {"x": ((4, 32), uniform(200, 900))},
        {"w": lambda r: r.uniform(200, 900, 32).astype(F), "d": F(1e5)},
    )
    yield (
        "a determinant of a large matrix",
        "a = Mul(x, x2) b = Mul(x, x) d = Sub(a, b) y = Div(d, n)",
        {"x": ((4, 32), uniform(200, 400)), "x2": ((4, 32), uniform(500, 900))},
        {"n": F(1e5)},
    )


FAMILIES = {
    "square sums": _square_sums,
    "long sums": _long_sums,
    "exponentials": _exponentials,
    "growth": _growth,
}


def nets() -> list[PhoneNet]:
    """Every net of this module."""
    return of_families(FAMILIES, planted=True)
