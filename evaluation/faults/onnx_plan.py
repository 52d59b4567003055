"""The trials on ONNX files, and on the MNN files made of them."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.faults import judge
from evaluation.faults.handmade import handmade
from evaluation.faults.plan import LIARS, Row, declared, instead_of, made_directory, wrapper
from evaluation.faults.torch_plan import EXPORTED


def onnx_rows(root: Path) -> Iterator[Row]:
    import onnx

    from evaluation.faults import onnx_faults as faults

    directory = made_directory(root / "onnx")
    models: dict[str, tuple[Path, tuple[str, ...], tuple[str, ...], tuple[str, ...], bool]] = {}
    for model in EXPORTED:
        inputs, dims, ranges = json.loads((directory / f"{model}.json").read_text())
        models[model] = directory / f"{model}.onnx", tuple(inputs), tuple(dims), tuple(ranges), True
    for name, path, _, dims, ranges, right in handmade(directory):
        inputs = tuple(_input_text(i) for i in onnx.load(path).graph.input)
        models[name] = path, inputs, dims, ranges, right
    for name, (path, _, dims, ranges, right) in models.items():
        if right:
            command = [str(path), *declared((), dims, ranges)]
            yield Row(
                f"clean-onnx-{name}",
                "clean",
                "clean",
                "onnx",
                name,
                "prepare",
                command,
                reference={"onnx": str(path)},
            )

    spoiled = made_directory(root / "spoiled")
    counter = itertools.count()
    made: list[tuple[str, str, str, Path, float]] = []
    for fault, (kind, change) in faults.FAULTS.items():
        found = 0
        order = list(models)
        start = next(counter) * 5 % len(order)
        for name in [*order[start:], *order[:start]]:
            if found == 3:
                break
            path, inputs, dims, ranges, _ = models[name]
            target = spoiled / f"{name}-{fault}.onnx"
            try:
                faults.doctored(path, target, change)
                onnx.checker.check_model(str(target))
                judge.onnx_single(str(target))  # it must load, or no comparison would be needed
            except (LookupError, StopIteration, IndexError, onnx.checker.ValidationError):
                continue
            except Exception:
                continue
            moved = _onnx_moved(path, target, inputs, dims, ranges)
            found += moved >= judge.LEAST
            made.append((name, fault, kind, target, moved))
    ways = ("compare", "wrapper", "verify", "mnn", "compare", "wrapper", "verify-artifact")
    for number, (name, fault, kind, target, moved) in enumerate(made):
        path, inputs, dims, ranges, right = models[name]
        base, right_one = [str(path), *declared((), dims, ranges)], {"onnx": str(path)}
        way = ways[number % len(ways)] if right else "compare"
        if fault in ("norm_training", "dropout") and way != "compare":
            command = [str(target), *declared((), dims, ranges)]  # the file itself was exported so
            yield Row(
                f"onnx-{name}-{fault}-file", "fault", kind, "onnx", name, "prepare", command, moved=moved
            )
            continue
        if way == "compare":
            yield Row(
                f"onnx-{name}-{fault}-compare",
                "fault",
                kind,
                "onnx",
                name,
                "compare",
                [str(path), str(target), *declared((), dims, ranges)],
                moved=moved,
            )
        elif way == "wrapper":
            script = wrapper(root / "wrappers", f"onnx-{name}-{fault}", instead_of(target))
            yield Row(
                f"onnx-{name}-{fault}-convert",
                "fault",
                kind,
                "onnx",
                name,
                "prepare",
                [*base, "--mnnconvert", script],
                moved=moved,
                reference=right_one,
            )
        else:
            action = {"verify": "mnn", "verify-artifact": "artifact", "mnn": "compare-mnn"}[way]
            kind_of = "mnn" if way in ("mnn", "verify") else "onnx"
            yield Row(
                f"{kind_of}-{name}-{fault}-{action}",
                "fault",
                kind,
                kind_of,
                name,
                "verify",
                base,
                moved=moved,
                action=action,
                file=str(target),
                reference=right_one,
            )
    for number, name in enumerate(("cnn", "mlp", "heads", "lstm", "attention", "residual")):
        path, inputs, dims, ranges, _ = models[name]
        base = [str(path), *declared((), dims, ranges)]
        for action in ("zeroed-references", "swapped-references"):
            yield Row(
                f"onnx-{name}-{action}",
                "fault",
                action.replace("-", "_"),
                "onnx",
                name,
                "verify",
                base,
                action=action,
            )
        other = models[("mlp", "cnn", "square", "gru", "causal", "grouped")[number]][0]
        script = wrapper(root / "wrappers", f"stale-{name}", instead_of(other))
        yield Row(
            f"onnx-{name}-stale-convert",
            "fault",
            "stale_mnn",
            "onnx",
            name,
            "prepare",
            [*base, "--mnnconvert", script],
            moved=judge.ANOTHER,
        )
        yield Row(
            f"mnn-{name}-stale-verify",
            "fault",
            "stale_mnn",
            "mnn",
            name,
            "verify",
            base,
            moved=judge.ANOTHER,
            action="mnn",
            file=str(other),
        )
    for (liar, (kind, body)), name in zip(
        LIARS.items(), ("cnn", "mlp", "lstm", "heads", "unet"), strict=True
    ):
        path, _, dims, ranges, _ = models[name]
        script = wrapper(root / "wrappers", liar, body)
        yield Row(
            f"onnx-{name}-{liar}",
            "fault",
            kind,
            "onnx",
            name,
            "prepare",
            [str(path), *declared((), dims, ranges), "--mnnconvert", script],
        )


def _input_text(value: Any) -> str:
    kinds = {1: "float32", 7: "int64", 6: "int32"}
    kind = value.type.tensor_type
    sizes = ",".join(d.dim_param or str(d.dim_value) for d in kind.shape.dim)
    return f"{value.name}={kinds[kind.elem_type]}[{sizes}]"


def _onnx_moved(
    path: Path, target: Path, inputs: Sequence[str], dims: Sequence[str], ranges: Sequence[str]
) -> float:
    def trials() -> Iterator[judge.Arrays]:
        return itertools.islice(judge.searched(inputs, dims, ranges, sizes=False), 6)

    worst = 0.0
    for runtime in (
        judge.onnx_double,
        judge.onnx_single,
    ):  # the first does not know what an operator meant in older opsets
        with contextlib.suppress(Exception):
            right, wrong = runtime(str(path)), runtime(str(target))
            right(next(trials()))
            if (found := judge.moved(right, wrong, trials())) >= judge.LEAST:
                return found
            worst = max(worst, found)
    return worst
