"""How an app runs a bundle's MNN model.

Short, complete code with the right names, dtypes, layout and sizes.
"""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable

import msgspec

from mnnprep.bundle import manifest_view as digest
from mnnprep.bundle.manifest import Manifest, RuntimeRecord, TensorRecord
from mnnprep.bundle.target_view import against_low
from mnnprep.mnn.run import HINTS
from mnnprep.model.preprocess import ImageRecipe, Recipe
from mnnprep.model.signature import DTYPES, extent_size
from mnnprep.safety.printable import plain

COMMENT = 100  # characters of a line of a comment
_NUMPY = {name: f"np.{name}" for name in DTYPES} | {"bool": "np.bool_"}
_PRECISIONS = {"high": "High", "normal": "Normal", "low": "Low"}
_CPP = {"float32": "float", "int32": "int32_t", "uint8": "uint8_t", "int8": "int8_t"}


def python_snippet(manifest: Manifest) -> str:
    """Return Python that feeds the bundle's MNN model as it was proven.

    It has the names, dtypes and layout, and the sizes of case 0.
    """
    inputs, outputs, sizes = manifest.signature.inputs, manifest.signature.outputs, _example_sizes(manifest)
    path = manifest.mnn.path if manifest.mnn else "model.mnn"
    lines = [
        "import MNN.expr as F",
        "import MNN.nn as nn",
        "import numpy as np",
        "",
        *_python_runtime(manifest.runtime),
        f"names = {[t.mnn_name for t in inputs]!r}, {[t.mnn_name for t in outputs]!r}",
        f"net = nn.load_module_from_file({path!r}, *names, runtime_manager=runtime)",
        "",
        "inputs = []",
        *(f"# {line}" for line in preprocess_words(manifest)),
    ]
    for tensor, variable in zip(inputs, _identifiers("input", inputs), strict=True):
        fed = _plain_layout(tensor)
        kind = (
            "F.float"
            if tensor.mnn_dtype.startswith("float")
            else "F.uint8"
            if tensor.mnn_dtype == "uint8"
            else "F.int"
        )
        lines += [
            (
                f"{variable} = np.zeros({_sized(tensor, sizes)!r},"
                f" {_NUMPY.get(tensor.mnn_dtype, 'np.float32')})  # {_remark(tensor)}"
            ),
            f"inputs.append(F.placeholder(list({variable}.shape), F.{fed}, {kind}))",
            f"inputs[-1].write({variable}{'.astype(np.int32)' if tensor.mnn_dtype == 'int8' else ''})",
        ]
        if tensor.mnn_dtype == "int8":  # which a Var can't be written as
            lines.append("inputs[-1] = F.cast(inputs[-1], F.int8)")
        if tensor.layout == "NC4HW4":
            lines.append("inputs[-1] = F.convert(inputs[-1], F.NC4HW4)")
    lines += ["", "results = net.onForward(inputs)"]
    for index, (tensor, variable) in enumerate(zip(outputs, _identifiers("output", outputs), strict=True)):
        fed = _plain_layout(tensor)
        lines.append(
            f"{variable} = np.array(F.convert(results[{index}], F.{fed}).read())  # a copy: the memory is the"
            " Var's" + (f"; {_remark(tensor)}" if tensor.quantization is not None else "")
        )
    return "\n".join(map(plain, lines))


def _python_runtime(runtime: RuntimeRecord) -> list[str]:
    """Return the runtime as it was when the model was proven.

    The hints stand by the numbers of MNN's Interpreter::HintMode.
    """
    config = {"backend": runtime.backend, "precision": runtime.precision, "numThread": runtime.threads}
    hints = [
        f"runtime.set_hint({HINTS[name]}, {value})  # {name}"
        for name, value in runtime.hints.items()
        if name in HINTS
    ]
    warned = [f"# {line}" for line in low_words(runtime)]
    return [*warned, f"runtime = nn.create_runtime_manager(({config!r},))", *hints]


def low_words(runtime: RuntimeRecord) -> list[str]:
    """What an app must know of precision ``low``, safe inside a comment of either language."""
    return [_harmless(line) for line in textwrap.wrap(against_low(runtime.against_low), COMMENT)]


def _cpp_runtime(runtime: RuntimeRecord) -> list[str]:
    hints = [
        f"runtime->setHint(MNN::Interpreter::{name}, {value});"
        for name, value in runtime.hints.items()
        if name in HINTS
    ]
    return [
        "MNN::ScheduleConfig config;",
        "config.type = MNN_FORWARD_CPU;",
        f"config.numThread = {runtime.threads};",
        "MNN::BackendConfig backend;",
        *(f"// {line}" for line in low_words(runtime)),
        f"backend.precision = MNN::BackendConfig::Precision_{_PRECISIONS.get(runtime.precision, 'Normal')};",
        "config.backendConfig = &backend;",
        (
            "std::shared_ptr<Executor::RuntimeManager>"
            " runtime(Executor::RuntimeManager::createRuntimeManager(config));"
        ),
        *hints,
    ]


def cpp_snippet(manifest: Manifest) -> str:
    """The same in C++, with MNN's Module API."""
    inputs, outputs, sizes = manifest.signature.inputs, manifest.signature.outputs, _example_sizes(manifest)
    variables, input_names, output_names = (
        _identifiers("input", inputs),
        _cpp_list(inputs),
        _cpp_list(outputs),
    )
    path = manifest.mnn.path if manifest.mnn else "model.mnn"
    lines = [
        "#include <MNN/expr/Executor.hpp>",
        "#include <MNN/expr/ExprCreator.hpp>",
        "#include <MNN/expr/Module.hpp>",
        "using namespace MNN::Express;",
        "",
        *_cpp_runtime(manifest.runtime),
        "std::shared_ptr<Module> net(Module::load(",
        f"    {input_names}, {output_names}, {_cpp_string(path)}, runtime));",
        "",
        *(f"// {line}" for line in preprocess_words(manifest)),
    ]
    for tensor, variable in zip(inputs, variables, strict=True):
        kind = _CPP.get(tensor.mnn_dtype, "float")
        fed = _plain_layout(tensor)
        shape = ", ".join(map(str, _sized(tensor, sizes)))
        lines += [
            f"auto {variable} = _Input({{{shape}}}, {fed}, halide_type_of<{kind}>());  // {_remark(tensor)}",
            f"fill({variable}->writeMap<{kind}>());  // your data, {variable}->getInfo()->size elements",
        ]
        if tensor.layout == "NC4HW4":
            lines.append(f"{variable} = _Convert({variable}, NC4HW4);")
    lines += ["", f"auto results = net->onForward({{{', '.join(variables)}}});"]
    for index, (tensor, variable) in enumerate(zip(outputs, _identifiers("output", outputs), strict=True)):
        fed = _plain_layout(tensor)
        lines += [
            f"auto {variable} = _Convert(results[{index}], {fed});",
            (
                f"const {_CPP.get(tensor.mnn_dtype, 'float')}* {variable}_data ="
                f" {variable}->readMap<{_CPP.get(tensor.mnn_dtype, 'float')}>();"
            ),
        ]
    return "\n".join(map(plain, lines))


def preprocess_words(manifest: Manifest) -> list[str]:
    """Say how the samples became inputs, in two lines for each kind of file.

    The text is safe inside a comment of either language.
    """
    lines = []
    for recipe in _recipes(manifest):
        facts = {k: v for k, v in msgspec.to_builtins(recipe).items() if v and k not in ("kind", "input")}
        words = ", ".join(
            f"{k} {':'.join(map(digest.number, v)) if isinstance(v, (list, tuple)) else v}"
            for k, v in facts.items()
        )
        lines.append(
            f"{recipe.input} from {'an image' if isinstance(recipe, ImageRecipe) else 'a sound'}: {words}"
        )
        if isinstance(recipe, ImageRecipe):
            mean, normal = (
                ", ".join(f"{v:.9g}" for v in figures) for figures in (recipe.mnn_mean, recipe.mnn_normal)
            )
            lines.append(
                f"the same by MNN ImageProcess: destFormat {recipe.channels.upper()}, mean [{mean}], normal"
                f" [{normal}]"
            )
    return [_harmless(line) for line in lines]


def _recipes(manifest: Manifest) -> list[Recipe]:
    try:
        return msgspec.convert(manifest.source.options.get("preprocess", []), list[Recipe])
    except msgspec.ValidationError:  # written by somebody else
        return []


def _harmless(text: str) -> str:
    return re.sub(r"[^\w .,:;=/()+\[\]-]", "_", text, flags=re.ASCII)


def _example_sizes(manifest: Manifest) -> dict[str, int]:
    """A size for every dimension: case 0's, else a proven one, else the smallest."""
    sizes = {
        name: dim.proven[0] if dim.proven else dim.min or 1 for name, dim in manifest.signature.dims.items()
    }
    return sizes | (manifest.cases[0].dims if manifest.cases else {})


def _plain_layout(tensor: TensorRecord) -> str:
    """The layout that the numbers are written and read in: NC4HW4 is MNN's own packing of NCHW."""
    return "NHWC" if tensor.layout == "NHWC" else "NCHW"


def _sized(tensor: TensorRecord, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(extent_size(e, defaultdict(lambda: 1, sizes)) for e in tensor.shape)


def _remark(tensor: TensorRecord) -> str:
    """Return layout, symbolic shape and range, safe inside a comment of either language.

    The names come from the model.
    """
    parts = [digest.shape_text(tensor.shape)]
    if len(tensor.shape) == 4 or tensor.layout == "NC4HW4":
        parts.insert(0, tensor.layout)
    if tensor.range is not None:
        parts.append(f"values {digest.number(tensor.range[0])} to {digest.number(tensor.range[1])}")
    if tensor.quantization is not None:
        scale, zero = tensor.quantization.scale, tensor.quantization.zero_point
        parts.append(f"a number is {scale:.9g} x [stored {-zero:+d}]")
    if tensor.mnn_dtype != tensor.dtype:
        parts.append(f"{tensor.dtype} in the source")
    return _harmless(", ".join(parts))


def _identifiers(role: str, tensors: Iterable[TensorRecord]) -> list[str]:
    """A distinct identifier for every tensor, valid in Python and C++, close to its name: ``input_x``."""
    names: list[str] = []
    for tensor in tensors:
        base = re.sub(r"[\W_]+", "_", tensor.name, flags=re.ASCII).strip("_").lower() or "tensor"
        base = base if base.startswith(f"{role}_") else f"{role}_{base}"
        name, count = base, 2
        while name in names:
            name, count = f"{base}_{count}", count + 1
        names.append(name)
    return names


def _cpp_string(text: str) -> str:
    """A C++ string literal of *text*: quotes, backslashes and control characters escaped."""
    return (
        '"'
        + "".join(
            f"\\{c}" if c in '"\\' else f"\\{ord(c):03o}" if ord(c) < 32 or ord(c) == 127 else c for c in text
        )
        + '"'
    )


def _cpp_list(tensors: Iterable[TensorRecord]) -> str:
    return "{" + ", ".join(_cpp_string(t.mnn_name) for t in tensors) + "}"
