"""The trials on PyTorch: factories, TorchScript files, exported programs; it writes the ONNX files that the
others start from, too.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from evaluation.faults import judge
from evaluation.faults.plan import WEIGHTS, Row, declared, made_directory
from evaluation.nets import faults_baked
from evaluation.nets import faults_nets as nets
from evaluation.nets import faults_twins as twins
from evaluation.places import NETS

CORE = (
    "cnn",
    "mlp",
    "heads",
    "square",
    "attention",
    "mobile",
    "residual",
    "lstm",
    "embedding",
    "fusion",
    "tcn",
    "unet",
    "encoder",
    "positions",
    "grouped",
    "average_pool",
    "bilinear",
    "gru",
    "act_leakyrelu",
    "max_pool_padded",
)
EXPORTED = (
    "cnn",
    "residual",
    "mobile",
    "unet",
    "mlp",
    "lstm",
    "gru",
    "attention",
    "causal",
    "embedding",
    "fusion",
    "heads",
    "square",
    "tcn",
    "grouped",
    "average_pool",
    "bilinear",
    "act_leakyrelu",
    "group_norm",
    "softmax_channel",
    "permuted",
    "last_step",
)
SCRIPTED = ("cnn", "mlp", "heads", "lstm", "attention", "grouped")
SCRIPT_FAULTS = (
    "weight_1",
    "swap_layers",
    "bn_training",
    "dropout",
    "dropout_linear",
    "swapped",
    "dropped",
    "transposed",
    "emptied",
    "zeroed",
    "no_bias",
)
PROGRAMS = ("cnn", "mlp", "embedding", "fusion")
PROGRAM_FAULTS = ("weight_1", "swap_layers", "zeroed", "dropout_linear", "no_bias")
TRAINING = (
    "bn_training",
    "dropout",
    "dropout_linear",
)  # a file that has it is prepared; one with another fault is compared with the right one
A_FAULT = 2  # nets for every switchable fault
PAIRED = ("swapped", "dropped")  # faults for nets of several outputs
FACTORY = f"{NETS / 'faults_nets.py'}:clean"
PLANTED = f"{NETS / 'faults_twins.py'}:planted"


def torch_rows(root: Path) -> Iterator[Row]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for model, (shape, _) in nets.NETS.items():
        yield _clean("torch", model, [FACTORY, *_arguments(model=model), *declared(*shape[:3])])
    yield from _baked()
    yield from _switched()
    yield from _inherent()
    onnx, files = made_directory(root / "onnx"), made_directory(root / "files")
    for model in EXPORTED:
        shape, net = nets.build(model)
        _export(_whole(shape, net), shape, onnx / f"{model}.onnx")
        (onnx / f"{model}.json").write_text(json.dumps([list(part) for part in shape[:3]]))
    yield from _scripts(files)
    yield from _programs(files)


def _clean(format: str, model: str, command: list[str]) -> Row:
    return Row(
        f"clean-{format}-{model}",
        "clean",
        "clean",
        format,
        model,
        "prepare",
        command,
        reference={"torch": model},
    )


def _arguments(**values: str) -> list[str]:
    return [part for name, value in values.items() for part in ("--factory-arg", f"{name}={value}")]


def _whole(shape: nets.Shape, net: Any) -> Any:
    return (nets.One if len(shape.inputs) == 1 else nets.Two)(net)


def runner(module: Any, *, double: bool = True) -> judge.Net:
    """A module as a net for the judgement."""

    def run(arrays: judge.Arrays) -> list[Any]:
        tensors = [torch.from_numpy(a.copy()) for a in arrays.values()]
        with torch.no_grad():
            made = module(*(t.double() if double and t.is_floating_point() else t for t in tensors))
        made = (
            list(made.values())
            if isinstance(made, dict)
            else list(made)
            if isinstance(made, (tuple, list))
            else [made]
        )
        return [t.numpy() for t in made]

    return run


@contextmanager
def _in_double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def _traced(module: Any, inputs: Sequence[Any]) -> Any:
    with torch.no_grad():
        return torch.jit.trace(module, tuple(inputs), check_trace=False, strict=False)


def _moved_by_tracing(made: tuple[Any, Any], shape: nets.Shape, *, sizes: bool = False) -> float:
    """How far a module is from its own trace, both in float64; what can't even be traced is another thing
    altogether.
    """
    with _in_double():
        try:
            module = made[0].double().eval()
            inputs = [t.double() if t.is_floating_point() else t for t in made[1]]
            return judge.moved(
                runner(module), runner(_traced(module, inputs)), judge.searched(*shape[:3], sizes=sizes)
            )
        except Exception:
            return judge.ANOTHER


def _baked() -> Iterator[Row]:
    """Nets with a frozen dimension: far from their trace at some size, near at the size of the example."""
    for model, (shape, axis, _, _) in faults_baked.BAKED.items():
        factory = f"{NETS / 'faults_baked.py'}:baked"
        command = [factory, *_arguments(model=model), "--method", "onnx-trace", *declared(*shape[:3])]
        sized = tuple(f"{name}={size}:{size}" for name, size in _sizes(shape).items())
        at_export = _moved_by_tracing(faults_baked.baked(model), shape._replace(dims=sized))
        moved = _moved_by_tracing(faults_baked.baked(model), shape, sizes=True) if at_export < 1 else 0.0
        yield Row(
            f"baked-{model}",
            "baked",
            "shape_baked",
            "torch",
            model,
            "prepare",
            command,
            moved=moved,
            axis=axis,
        )


def _sizes(shape: nets.Shape) -> dict[str, int]:
    """The size that every declared dimension has in the example."""
    extents = [text.rstrip("]").partition("[")[2].split(",") for text in shape.inputs]
    return {
        n: s
        for names, sizes in zip(extents, shape.sizes, strict=True)
        for n, s in zip(names, sizes, strict=True)
        if not n.isdigit()
    }


def _switched() -> Iterator[Row]:
    for number, (fault, (kind, _)) in enumerate(twins.TWINS.items()):
        found = 0
        for model in [*CORE[number % len(CORE) :], *CORE[: number % len(CORE)]]:
            if found == A_FAULT or (fault in PAIRED and model not in ("heads", "square")):
                continue
            try:
                made = twins.planted(model, fault)
            except LookupError:
                continue
            shape = nets.NETS[model][0]
            moved = _moved_by_tracing(made, shape)
            found += moved >= judge.LEAST or kind == WEIGHTS
            method = "onnx-export" if found == A_FAULT and number % 4 == 0 else "onnx-trace"
            command = [
                PLANTED,
                *_arguments(model=model, fault=fault),
                "--method",
                method,
                *declared(*shape[:3]),
            ]
            reference = {"torch": model}
            yield Row(
                f"torch-{model}-{fault}",
                "fault",
                kind,
                "torch",
                model,
                "prepare",
                command,
                moved=moved,
                reference=reference,
            )


def _inherent() -> Iterator[Row]:
    for fault, (kind, _) in twins.INHERENT.items():
        moved = _moved_by_tracing(twins.planted("", fault), nets.IMAGE)
        for method in ("onnx-trace", "trace"):
            command = [
                PLANTED,
                *_arguments(model="", fault=fault),
                "--method",
                method,
                *declared(*nets.IMAGE[:3]),
            ]
            yield Row(
                f"torch-{fault}-{method}", "fault", kind, "torch", "inherent", "prepare", command, moved=moved
            )


def _spoiled(model: str, fault: str) -> Any:
    """*model* with *fault* for good, not only while it is exported. Raises LookupError."""
    shape, net = nets.build(model)
    return _whole(shape, twins.TWINS[fault][1](net))


def _file_row(
    format: str, model: str, fault: str, right: Path, wrong: Path, moved: float, options: list[str]
) -> Row:
    training = fault in TRAINING
    command = [str(wrong), *options] if training else [str(right), str(wrong), *options]
    how = "prepare" if training else "compare"
    return Row(
        f"{format}-{model}-{fault}", "fault", twins.TWINS[fault][0], format, model, how, command, moved=moved
    )


def _scripts(files: Path) -> Iterator[Row]:
    for model in SCRIPTED:
        shape, right = nets.NETS[model][0], files / f"{model}.pt"
        inputs = nets.example(shape)
        _traced(nets.clean(model)[0], inputs).save(str(right))
        yield _clean("torchscript", model, [str(right), *declared(*shape[:3])])
        for fault in SCRIPT_FAULTS:
            if fault in PAIRED and model != "heads":
                continue
            wrong = files / f"{model}-{fault}.pt"
            try:
                _traced(_spoiled(model, fault), inputs).save(str(wrong))
            except LookupError:
                continue
            with _in_double():
                pair = runner(nets.clean(model)[0].double()), runner(torch.jit.load(str(wrong)).double())
                moved = judge.moved(*pair, judge.searched(*shape[:3], sizes=False))
            yield _file_row("torchscript", model, fault, right, wrong, moved, declared(*shape[:3]))


def _programs(files: Path) -> Iterator[Row]:
    for model in PROGRAMS:
        shape, right = nets.NETS[model][0], files / f"{model}.pt2"
        _save_program(nets.clean(model)[0], shape, right)
        yield _clean("pt2", model, [str(right)])
        for fault in PROGRAM_FAULTS:
            wrong = files / f"{model}-{fault}.pt2"
            try:
                _save_program(_spoiled(model, fault), shape, wrong)
            except LookupError:
                continue
            pair = (
                runner(m, double=False)
                for m in (nets.clean(model)[0], torch.export.load(str(wrong)).module())
            )
            moved = judge.moved(*pair, judge.searched(*shape[:3], sizes=False))
            yield _file_row("pt2", model, fault, right, wrong, moved, [])


def _save_program(module: Any, shape: nets.Shape, path: Path) -> None:
    spans = {d.partition("=")[0]: [int(s) for s in d.partition("=")[2].split(":")] for d in shape.dims}
    dims = {n: torch.export.Dim(n, min=low, max=high) for n, (low, high) in spans.items()}
    extents = [text.rstrip("]").partition("[")[2].split(",") for text in shape.inputs]
    dynamic = tuple({p: dims[s] for p, s in enumerate(e) if not s.isdigit()} for e in extents)
    torch.export.save(torch.export.export(module, nets.example(shape), dynamic_shapes=dynamic), str(path))


def _export(module: Any, shape: nets.Shape, path: Path) -> None:
    names = [text.partition("=")[0] for text in shape.inputs]
    extents = [text.rstrip("]").partition("[")[2].split(",") for text in shape.inputs]
    axes: dict[str, Any] = {
        n: {p: s for p, s in enumerate(e) if not s.isdigit()} for n, e in zip(names, extents, strict=True)
    }
    inputs = nets.example(shape)
    with torch.no_grad():
        made = module(*inputs)
        count = len(made) if isinstance(made, (dict, tuple, list)) else 1
        outputs = (
            list(made)
            if isinstance(made, dict)
            else [f"output_{i}" for i in range(count)]
            if count > 1
            else ["output"]
        )
        axes |= {n: {0: "batch"} for n in outputs}
        torch.onnx.export(
            module,
            inputs,
            str(path),
            dynamo=False,
            opset_version=13,
            input_names=names,
            output_names=outputs,
            dynamic_axes=axes,
        )
