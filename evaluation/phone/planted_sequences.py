"""Recurrent nets and loops whose outputs of all steps are used."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from evaluation.phone.net import PhoneNet, normal, weight, written

F = np.float32
GATES = {"LSTM": 4, "GRU": 3}
SIZES = {"t": (12, 5, 20)}


def _recurrent() -> Iterator[PhoneNet]:
    for kind, gates in GATES.items():
        extra = ", linear_before_reset = 1" if kind == "GRU" else ""
        outs = "h, last, cell" if kind == "LSTM" else "h, last"
        # A GRU of open length is wrong at every precision, and no net of ours.
        lengths = ((1, 20, 1), (2, 12, 1), (1, 2, 1), (2, 30, 3)) + (
            ((1, "t", 1), (2, "t", 2)) if kind == "LSTM" else ()
        )
        for ways, steps, batch in lengths:
            way = "bidirectional" if ways == 2 else "forward"
            lines = f"""{outs} = {kind}<hidden_size = 24, direction = "{way}"{extra}>(x, w, r, b)
                p = Transpose<perm = [0, 2, 1, 3]>(h) s = Reshape(p, k) y = MatMul(s, o)"""
            yield written(
                f"{way} {kind} over {'any' if steps == 't' else steps} steps, batch {batch}",
                "recurrent",
                lines,
                {"x": ((steps, batch, 16), normal())},
                {
                    "w": weight(ways, gates * 24, 16, scale=0.2),
                    "r": weight(ways, gates * 24, 24, scale=0.2),
                    "b": weight(ways, 2 * gates * 24, scale=0.2),
                    "o": weight(24 * ways, 8, scale=0.2),
                    "k": np.array([0, batch, 24 * ways]),
                },
                planted=True,
                sizes=SIZES,
            )
    yield written(
        "speech detector: convolution, LSTM, linear",
        "recurrent",
        """c = Conv<pads = [1, 1]>(x, k) a = Relu(c) t = Transpose<perm = [2, 0, 1]>(a)
            h, l, e = LSTM<hidden_size = 16>(t, w, r, b)
            s = Squeeze(h, one) p = MatMul(s, o) y = Sigmoid(p)""",
        {"x": ((1, 10, 30), normal())},
        {
            "k": weight(12, 10, 3),
            "w": weight(1, 64, 12, scale=0.5),
            "r": weight(1, 64, 16, scale=0.5),
            "b": weight(1, 128, scale=0.5),
            "o": weight(16, 1, scale=2),
            "one": np.array([1]),
        },
        planted=True,
    )
    yield written(
        "two GRU layers",
        "recurrent",
        """h, l = GRU<hidden_size = 16, linear_before_reset = 1>(x, w, r, b) s = Squeeze(h, one)
            g, y = GRU<hidden_size = 16, linear_before_reset = 1>(s, w2, r, b)""",
        {"x": ((15, 1, 8), normal())},
        {
            "w": weight(1, 48, 8, scale=0.4),
            "w2": weight(1, 48, 16, scale=0.4),
            "r": weight(1, 48, 16, scale=0.4),
            "b": weight(1, 96, scale=0.4),
            "one": np.array([1]),
        },
        planted=True,
    )


def _loops() -> Iterator[PhoneNet]:
    body = {
        "exponential moving average": (
            "a = Mul(old, keep) b = Mul(row, add) new = Add(a, b) out = Identity(new)"
        ),
        "envelope follower": "a = Mul(old, keep) b = Abs(row) new = Max(a, b) out = Tanh(new)",
        "recurrent cell": "a = MatMul(old, w) b = Add(a, row) new = Tanh(b) out = Add(new, row)",
    }
    for name, lines in body.items():
        yield written(
            f"{name} by a Loop",
            "loops",
            f"""s = Shape(x) n = Gather<axis = 0>(s, zero) last, y = Loop(n, go, start) <body = step
                (int64 i, bool c, float[1, 8] old) => (bool c2, float[1, 8] new, float[1, 8] out) {{
                    c2 = Identity(c) row = Gather<axis = 0>(x, i) {lines} }}>""",
            {"x": (("t", 1, 8), normal())},
            {
                "zero": np.array(0),
                "go": np.array(True),
                "start": np.zeros((1, 8), F),
                "keep": F(0.8),
                "add": F(0.2),
                "w": weight(8, 8),
            },
            planted=True,
            sizes=SIZES,
        )


def nets() -> list[PhoneNet]:
    """Every net of this module."""
    return [*_recurrent(), *_loops()]
