"""Nets whose values half precision can't tell apart: epsilons, offsets, small numbers, positions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from evaluation.phone.net import PhoneNet, Row, normal, of_families, uniform, weight, whole

F = np.float32
SUM = "ReduceSum<keepdims = 1>"
MEAN = "ReduceMean<axes = [-1], keepdims = 1>"


def _epsilons() -> Iterator[Row]:
    """Epsilons that vanish in half precision, where the number beside them is 0 or small."""
    blank = {"x": ((4, 64), lambda r, s: (r.standard_normal(s) * (np.arange(s[0]) % 2)[:, None]).astype(F))}
    small = {"x": ((4, 64), normal(3e-5))}
    e = {"e": F(1e-12), "a": np.array([-1])}
    for number in (1e-8, 1e-12):
        held = {"e": F(number), "a": np.array([-1])}
        yield (
            f"share of a sum that may be 0, epsilon {number:g}",
            f"b = Abs(x) s = {SUM}(b, a) t = Add(s, e) y = Div(b, t)",
            blank,
            held,
        )
        yield (
            f"norm that may be 0, epsilon {number:g}",
            f"q = Mul(x, x) s = {SUM}(q, a) t = Add(s, e) r = Sqrt(t) y = Div(x, r)",
            blank,
            held,
        )
        yield (
            f"norm that may be 0, at least {number:g}",
            "r = ReduceL2<axes = [-1], keepdims = 1>(x) t = Max(r, e) y = Div(x, t)",
            blank,
            held,
        )
        yield (
            f"deviation that may be 0, epsilon {number:g}",
            (
                f"m = {MEAN}(x) d = Sub(x, m) q = Mul(d, d) v = {MEAN}(q) t = Add(v, e) r = Sqrt(t) y = "
                "Div(d, r)"
            ),
            blank,
            held,
        )
    yield (
        "logarithm of a probability, epsilon 1e-8",
        "p = Relu(x) t = Add(p, e) y = Log(t)",
        {"x": ((4, 64), normal(1, -0.5))},
        {"e": F(1e-8)},
    )
    yield (
        "logarithm of at least 1e-10",
        "t = Max(x, e) y = Log(t)",
        {"x": ((4, 64), lambda r, s: np.maximum(r.standard_normal(s), 0).astype(F))},
        {"e": F(1e-10)},
    )
    yield (
        "logit",
        "p = Clip(x, lo, hi) q = Sub(one, p) r = Div(p, q) y = Log(r)",
        {"x": ((4, 64), lambda r, s: (r.random(s) > 0.5).astype(F))},
        {"lo": F(1e-6), "hi": F(1 - 1e-6), "one": F(1)},
    )
    yield "norm of small features", f"q = Mul(x, x) s = {SUM}(q, a) r = Sqrt(s) y = Div(x, r)", small, e
    yield (
        "standardisation of small features",
        f"m = {MEAN}(x) d = Sub(x, m) q = Mul(d, d) v = {MEAN}(q) t = Add(v, e) r = Sqrt(t) y = Div(d, r)",
        small,
        e,
    )


def _offsets() -> Iterator[Row]:
    """Differences of large numbers, and variances that are one."""
    a = {"a": np.array([-1]), "e": F(1e-5)}
    moments = f"m = {MEAN}(x) q = Mul(x, x) k = {MEAN}(q) n = Mul(m, m) v = Sub(k, n)"
    far = {"x": ((4, 64), normal(1, 30))}
    yield "variance by moments", f"{moments} y = Identity(v)", far, a
    yield (
        "standardisation by moments",
        f"{moments} t = Add(v, e) r = Sqrt(t) d = Sub(x, m) y = Div(d, r)",
        far,
        a,
    )
    yield (
        "standardisation of a map by moments",
        f"{moments} t = Add(v, e) r = Sqrt(t) d = Sub(x, m) y = Div(d, r)".replace("[-1]", "[2, 3]"),
        {"x": ((1, 4, 16, 16), normal(1, 20))},
        a,
    )
    yield (
        "an offset added and taken away",
        "b = Add(x, big) c = Tanh(x) d = Sub(b, big) y = Add(d, c)",
        {"x": ((4, 64), normal())},
        {"big": F(5000)},
    )
    yield (
        "position plus a fraction, and back",
        "p = Add(x, at) f = Floor(p) y = Sub(p, f)",
        {"x": ((2, 64), uniform())},
        {"at": np.arange(3000, 3064, dtype=F)},
    )
    yield (
        "a grid of large coordinates",
        "g = Add(x, at) d = Sub(g, at) y = Mul(d, d)",
        {"x": ((2, 64), uniform(0, 3))},
        {"at": np.arange(0, 64 * 64, 64, dtype=F)},
    )
    yield (
        "phase of a clock",
        "p = Mul(x, w) c = Sin(p) y = Mul(c, x)",
        {"x": ((2, 64), uniform(0, 20))},
        {"w": np.linspace(100, 400, 64).astype(F)},
    )
    yield (
        "sinusoids of a diffusion's step",
        "u = Mul(x, i) s = Sin(u) c = Cos(u) y = Concat<axis = -1>(s, c)",
        {"x": ((8, 1), uniform(500, 999))},
        {"i": np.exp(-np.arange(16) * 0.3).astype(F)},
    )
    yield (
        "fourier features",
        "u = MatMul(x, w) s = Sin(u) c = Cos(u) y = Concat<axis = -1>(s, c)",
        {"x": ((16, 3), uniform(-1, 1))},
        {"w": weight(3, 16, scale=200)},
    )
    yield (
        "numbers counted by a CumSum",
        "f = Cast<to = 1>(m) c = CumSum(f, ax) n = Mod<fmod = 1>(c, seven) y = Mul(n, f)",
        {"m": ((2, 6000), whole(0, 2))},
        {"ax": np.array(1), "seven": F(7)},
    )


def _underflow() -> Iterator[Row]:
    """Numbers smaller than half precision holds, made large again."""
    yield (
        "scaled down and up",
        "s = Mul(x, down) t = Relu(s) y = Mul(t, up)",
        {"x": ((4, 64), normal())},
        {"down": F(1e-8), "up": F(1e8)},
    )
    yield (
        "square of small numbers",
        "q = Mul(x, x) y = Mul(q, up)",
        {"x": ((4, 64), normal(1e-4))},
        {"up": F(1e8)},
    )
    yield (
        "variance of small numbers",
        f"m = {MEAN}(x) d = Sub(x, m) q = Mul(d, d) v = {MEAN}(q) y = Mul(v, up)",
        {"x": ((4, 64), normal(1e-4))},
        {"up": F(1e8)},
    )
    yield (
        "small weights, a large gain",
        "h = MatMul(x, w) g = Mul(h, up) y = Tanh(g)",
        {"x": ((4, 64), normal())},
        {"w": weight(64, 16, scale=1e-8), "up": F(1e7)},
    )
    yield (
        "small kernels, a large gain",
        "h = Conv<pads = [1, 1, 1, 1]>(x, w) g = Mul(h, up) y = Tanh(g)",
        {"x": ((1, 8, 8, 8), normal())},
        {"w": weight(8, 8, 3, 3, scale=1e-8), "up": F(1e7)},
    )
    yield (
        "product of probabilities",
        "p = Sigmoid(x) q = Mul(p, p) r = Mul(q, q) s = Mul(r, r) l = Log(s) y = Mul(l, k)",
        {"x": ((4, 32), normal(1, -3))},
        {"k": F(0.1)},
    )
    yield "logarithm of a softmax", "p = Softmax<axis = -1>(x) y = Log(p)", {"x": ((4, 32), normal(8))}, {}
    yield (
        "reciprocal of small numbers",
        "r = Reciprocal(x) y = Mul(r, k)",
        {"x": ((4, 32), uniform(1e-6, 9e-6))},
        {"k": F(1e-5)},
    )
    yield (
        "power of a softmax",
        "p = Softmax<axis = -1>(x) q = Mul(p, p) r = Mul(q, q) y = Mul(r, up)",
        {"x": ((4, 256), normal(0.5))},
        {"up": F(1e9)},
    )
    yield (
        "distances of close points",
        f"d = Sub(x, w) q = Mul(d, d) s = {SUM}(q, a) r = Sqrt(s) y = Mul(r, up)",
        {"x": ((4, 32), normal(1e-5))},
        {"w": weight(32, scale=1e-5), "a": np.array([-1]), "up": F(1e4)},
    )
    yield (
        "gaussian kernel far out",
        f"q = Mul(x, x) n = Neg(q) e = Exp(n) s = {SUM}(e, a) y = Div(e, s)",
        {"x": ((4, 16), uniform(4.5, 5.5))},
        {"a": np.array([-1])},
    )
    yield (
        "gamma curve of dark pixels",
        "p = Mul(x, down) q = Pow(p, g) y = Mul(q, up)",
        {"x": ((1, 3, 8, 8), uniform(0, 3))},
        {"down": F(1 / 255), "g": F(4.4), "up": F(1e6)},
    )


FAMILIES = {"epsilons": _epsilons, "offsets": _offsets, "underflow": _underflow}


def nets() -> list[PhoneNet]:
    """Every net of this module."""
    return of_families(FAMILIES, planted=True)
