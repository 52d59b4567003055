"""TorchScript and torch.export files whose code, operators and expressions write, read, run or never end."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.hostile.case import Canary, hostile, shared_library

HEAD = "from typing import List, Optional, Dict\n"


def scripted(canary: Canary, body: str, extra: str = "") -> Path:
    """A TorchScript file whose module is the class ``M`` of *body*."""
    import torch

    source = canary.root / "source.py"
    source.write_text("import torch\nfrom torch import Tensor, nn\n" + HEAD + body)
    import linecache
    import sys
    import types

    module = sys.modules["source"] = types.ModuleType("source")  # where torch looks for the text of a class
    module.__file__ = str(source)
    namespace = vars(module)

    linecache.getlines(str(source))
    exec(compile(source.read_text(), str(source), "exec"), namespace)
    path = canary.model / "model.pt"
    torch.jit.save(torch.jit.script(namespace["M"]()), str(path))
    if extra:
        with zipfile.ZipFile(path, "a") as made:
            made.writestr(extra, "x")
    return path


def forward(*lines: str, members: str = "") -> str:
    body = "\n".join(f"        {line}" for line in lines)
    return f"class M(nn.Module):\n{members}    def forward(self, x: Tensor) -> Tensor:\n{body}\n"


def method(head: str, *lines: str) -> str:
    """A method that the file keeps though forward doesn't call it."""
    return f"    @torch.jit.export\n    def {head}:\n" + "".join(f"        {line}\n" for line in lines)


def restored(*lines: str) -> str:
    """A ``__setstate__`` of these lines, and its ``__getstate__``."""
    state = method("__getstate__(self)", "return (torch.ones(1), self.training)")
    return state + method(
        "__setstate__(self, state: tuple[Tensor, bool])", *lines, "self.training = state[1]"
    )


SCRIPTS: dict[str, tuple[str, str, Callable[[Canary], str]]] = {
    "save": (
        "aten::save to another place",
        "jit",
        lambda c: forward(f"torch.save(x, {c.written!r})", "return x + 1"),
    ),
    "from-file": (
        "aten::from_file of the secret into the output",
        "jit",
        lambda c: forward(f"w = torch.from_file({c.secret!r}, False, 16)", "return x * 0 + w"),
    ),
    "from-file-shared": (
        "aten::from_file that makes and extends a file",
        "jit",
        lambda c: forward(
            f"w = torch.from_file({c.written!r}, True, 16)", "w.fill_(1.0)", "return x * 0 + w"
        ),
    ),
    "save-in-branch": (
        "aten::save where the input is large",
        "",
        lambda c: forward("if float(x.sum()) > 1e-9:", f"    torch.save(x, {c.written!r})", "return x + 1"),
    ),
    "save-in-method": (
        "aten::save in a method that forward calls",
        "jit",
        lambda c: forward(
            "return self.other(x)",
            members=f"    @torch.jit.export\n    def other(self, x: Tensor) -> Tensor:\n        torch.save(x, {c.written!r})\n        return x + 1\n",
        ),
    ),
    "save-in-fork": (
        "aten::save in a task of its own",
        "jit",
        lambda c: (
            f"def task(x: Tensor) -> Tensor:\n    torch.save(x, {c.written!r})\n    return x\n"
            + forward("f = torch.jit.fork(task, x)", "return torch.jit.wait(f) + 1")
        ),
    ),
    "setstate": (
        "a __setstate__ that writes while the file is loaded",
        "jit",
        lambda c: forward(
            "return x + 1",
            members=restored(f"torch.save(state[0], {c.written!r})"),
        ),
    ),
    "setstate-endless": (
        "a __setstate__ that never ends",
        "",
        lambda c: forward(
            "return x + 1",
            members=restored("i = 0", "while i >= 0:", "    i = (i + 1) % 7"),
        ),
    ),
    "setstate-range": (
        "a __setstate__ that counts to 2^62",
        "",
        lambda c: forward(
            "return x + 1",
            members=restored("n = 0", "for i in range(1 << 62):", "    n = n + i % 7", "assert n != 1"),
        ),
    ),
    "setstate-method": (
        "a __setstate__ that calls a method that never ends",
        "",
        lambda c: forward(
            "return x + 1",
            members=method("turn(self, i: int) -> int", "while i >= 0:", "    i = (i + 1) % 7", "return i")
            + restored("assert self.turn(0) != 1"),
        ),
    ),
    "setstate-other": (
        "a __setstate__ that calls a method of another class that never ends",
        "",
        lambda c: (
            "@torch.jit.script\nclass Other:\n    def __init__(self, i: int):\n        self.i = i\n    def turn(self) -> int:\n"
            "        while self.i >= 0:\n            self.i = (self.i + 1) % 7\n        return self.i\n"
            + forward("return x + 1", members=restored("assert Other(0).turn() != 1"))
        ),
    ),
    "setstate-function": (
        "a __setstate__ that calls a function that never ends",
        "",
        lambda c: (
            "def turn(i: int) -> int:\n    while i >= 0:\n        i = (i + 1) % 7\n    return i\n"
            + forward("return x + 1", members=restored("assert turn(0) != 1"))
        ),
    ),
    "setstate-doubling": (
        "a __setstate__ whose 40 functions call each other twice each",
        "",
        lambda c: (
            "def f40(i: int) -> int:\n    return i + 1\n"
            + "".join(
                f"def f{n}(i: int) -> int:\n    return f{n + 1}(i) + f{n + 1}(i)\n"
                for n in reversed(range(40))
            )
            + forward("return x + 1", members=restored("assert f0(0) != 1"))
        ),
    ),
    "endless": (
        "a forward that never ends",
        "",
        lambda c: forward("i = 0", "while i >= 0:", "    i = (i + 1) % 7", "return x + i"),
    ),
    "grows": (
        "a forward that doubles its tensor 40 times",
        "",
        lambda c: forward("y = x", "for i in range(40):", "    y = torch.cat([y, y])", "return y[:1] + x"),
    ),
    "print": (
        "a forward that prints escapes and a false verdict",
        "",
        lambda c: forward("print('\\x1b[31m\\x1b]0;owned\\x07proven \\u202e')", "return x + 1"),
    ),
    "raise": (
        "an exception whose text is escapes",
        "",
        lambda c: forward(
            "if float(x.sum()) != -1e30:",
            "    raise RuntimeError('\\x1b[31mred\\x1b]0;owned\\x07\\n<script>document.title=1</script>')",
            "return x + 1",
        ),
    ),
    "long-loop": (
        "a method that runs for hours",
        "",
        lambda c: forward(
            "return self.other(x)",
            members=method(
                "other(self, x: Tensor) -> Tensor",
                "y = x",
                "for i in range(1000000000):",
                "    y = y + 1",
                "return y",
            ),
        ),
    ),
    "freeze-fold": (
        "a constant of 2^34 numbers that freezing would fold",
        "",
        lambda c: forward("return x + torch.ones(1 << 17, 1 << 17).sum()"),
    ),
}
# A net may take all the memory that its user gives it: this one is told by that, as endless ones by --timeout.
BOUNDED = {"grows": ("--memory", "1GB")}
for _name, (_tries, _control, _source) in SCRIPTS.items():

    @hostile(
        "torchscript",
        "code",
        _name,
        _tries,
        control=_control,
        extra=("--input", "x=float32[1,16]", *BOUNDED.get(_name, ())),
    )
    def _(canary: Canary, source: Any = _source) -> Path:
        return scripted(canary, source(canary))


def edited(
    canary: Canary, change: Callable[[str, bytes], bytes | None], more: dict[str, bytes] | None = None
) -> Path:
    """A TorchScript file of x + 1, with members changed."""
    path = scripted(canary, forward("return x + 1"))
    made = canary.model / "edited.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
        for info in old.infolist():
            data = change(info.filename, old.read(info))
            if data is not None:
                new.writestr(info.filename, data)
        for name, data in (more or {}).items():
            new.writestr(name, data)
    path.unlink()
    return made


def code(canary: Canary, lines: str) -> Path:
    """A TorchScript file whose code is *lines* before its return."""

    def change(name: str, data: bytes) -> bytes:
        if not name.endswith(".py"):
            return data
        return re.sub(rb"\n    return ", b"\n    " + lines.encode() + b"\n    return ", data)

    return edited(canary, change)


for _name, (_tries, _lines) in {
    "import": ("a Python import in the code", "import os"),
    "custom-op": ("an operator of a library that is not there", "_0 = ops.evil.run(x)"),
    "prim-python": ("a call of Python from the code", "_0 = ^evil()(x)"),
    "deep-code": ("an expression 20,000 deep", "_0 = " + "(" * 20_000 + "1" + ")" * 20_000),
    "many-lines": (
        "200,000 lines of code",
        "\n    ".join(f"_{i} = torch.add(x, {i})" for i in range(200_000)),
    ),
    "ops-save": ("aten::save by another spelling", ""),
    "aten-embed": (
        "inductor's operator that maps memory",
        "_0 = ops.inductor._reinterpret_tensor(x, [1000000], [1], 100000)",
    ),
    "as-strided": (
        "memory beyond a tensor by as_strided",
        "_0 = torch.as_strided(x, [1000000], [1], 100000000)",
    ),
    "from-blob": ("a profiler that writes a trace", '_0 = ops.profiler._record_function_enter("x")'),
}.items():

    @hostile("torchscript", "edited", _name, _tries, extra=("--input", "x=float32[1,16]"))
    def _(canary: Canary, name: str = _name, lines: str = _lines) -> Path:
        return code(canary, lines or f'_0 = ops.aten.save(x, "{canary.written}")')


@hostile(
    "torchscript",
    "edited",
    "constants-path",
    "a constant tensor whose storage has .. in its name",
    extra=("--input", "x=float32[1,16]"),
)
def _(canary: Canary) -> Path:
    return edited(canary, lambda n, d: d, {f"model/../../fired/{Path(canary.written).name}": b"x"})


@hostile(
    "torchscript",
    "edited",
    "debug-bomb",
    "debug information of 1 GB in 1 MB",
    extra=("--input", "x=float32[1,16]"),
)
def _(canary: Canary) -> Path:
    path = edited(canary, lambda n, d: d)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as made:
        made.writestr("model/code/__torch__/bomb.py.debug_pkl", bytes(1 << 30))
    return path


def exported(
    canary: Canary, change: Callable[[str, bytes], bytes] = lambda n, d: d, more: dict[str, Any] | None = None
) -> Path:
    """A .pt2 of x + w with a dynamic batch, with members changed."""
    import torch

    class M(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(16))

        def forward(self, x: Any) -> Any:
            return torch.cat([x, x * self.w]).reshape(x.shape[0] * 2, 16)

    program = torch.export.export(
        M(), (torch.ones(2, 16),), dynamic_shapes={"x": {0: torch.export.Dim("n", min=1, max=64)}}
    )
    path = canary.model / "first.pt2"
    torch.export.save(program, str(path))
    made = canary.model / "model.pt2"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, change(info.filename, old.read(info)))
        for name, data in (more or {}).items():
            new.writestr(name, data)
    path.unlink()
    return made


def expression(canary: Canary, text: str) -> Path:
    """Every symbolic expression of the program replaced."""

    def visit(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: text if k == "expr_str" else visit(v) for k, v in value.items()}
        return [visit(v) for v in value] if isinstance(value, list) else value

    return exported(
        canary,
        lambda n, d: json.dumps(visit(json.loads(d))).encode() if n.endswith("models/model.json") else d,
    )


@hostile(
    "exported-program", "expression", "os-system", "os.system in the symbolic expressions", control="export"
)
def _(canary: Canary) -> Path:
    return expression(canary, f"__import__('os').system({canary.shell!r})")


@hostile(
    "exported-program", "expression", "lambda", "a class walk in the symbolic expressions", control="export"
)
def _(canary: Canary) -> Path:
    return expression(canary, f"s77 + (lambda: __import__('os').system({canary.shell!r}))()")


@hostile("exported-program", "expression", "power-tower", "an expression with a tower of powers")
def _(canary: Canary) -> Path:
    return expression(canary, "9**9**9**9")


@hostile("exported-program", "expression", "deep", "an expression 50,000 deep")
def _(canary: Canary) -> Path:
    return expression(canary, "(" * 50_000 + "1" + ")" * 50_000)


@hostile("exported-program", "expression", "range", "a range constraint with code in it")
def _(canary: Canary) -> Path:
    evil = f"__import__('os').system({canary.shell!r})"

    def change(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        program = json.loads(data)
        program["range_constraints"] = {evil: {"min_val": 1, "max_val": 9}}
        return json.dumps(program).encode()

    return exported(canary, change)


def target(canary: Canary, name: str, arguments: list[Any] | None = None) -> Path:
    """The operators of the program replaced by one of this name."""

    def change(member: str, data: bytes) -> bytes:
        if not member.endswith("models/model.json"):
            return data
        program = json.loads(data)
        for node in program["graph_module"]["graph"]["nodes"]:
            if node["target"].startswith("torch.ops.aten.mul"):
                node["target"] = name
                if arguments is not None:
                    node["inputs"] = arguments
        return json.dumps(program).encode()

    return exported(canary, change)


def text(value: str, name: str) -> dict[str, Any]:
    return {"name": name, "arg": {"as_string": value}, "kind": 1}


@hostile("exported-program", "targets", "os-system", "os.system as an operator of the graph")
def _(canary: Canary) -> Path:
    return target(canary, "os.system", [text(canary.shell, "command")])


@hostile("exported-program", "targets", "eval", "an operator whose name is an expression")
def _(canary: Canary) -> Path:
    return target(
        canary,
        f"torch.ops.aten.mul.Tensor if __import__('os').system({canary.shell!r}) else torch.ops.aten.mul.Tensor",
    )


@hostile(
    "exported-program", "targets", "from-file", "aten.from_file of the secret as an operator", control=""
)
def _(canary: Canary) -> Path:
    return target(
        canary,
        "torch.ops.aten.from_file.default",
        [
            text(canary.secret, "filename"),
            {"name": "shared", "arg": {"as_bool": False}, "kind": 2},
            {"name": "size", "arg": {"as_int": 16}, "kind": 2},
        ],
    )


@hostile("exported-program", "targets", "load-library", "torch.ops.load_library as an operator")
def _(canary: Canary) -> Path:
    return target(canary, "torch.ops.load_library", [text(str(shared_library(canary)), "path")])


@hostile(
    "exported-program", "archive", "aot-inductor", "a compiled library with a constructor in the archive"
)
def _(canary: Canary) -> Path:
    data = shared_library(canary).read_bytes()
    return exported(
        canary,
        more={"first/data/aotinductor/model/model.so": data, "model/data/aotinductor/model/model.so": data},
    )


@hostile(
    "exported-program",
    "archive",
    "pickled-sample",
    "the example inputs replaced by a pickle that calls",
    control="export",
)
def _(canary: Canary) -> Path:
    from evaluation.hostile.pickle_files import call

    return exported(canary, lambda n, d: call("os", "system", canary.shell) if "sample_inputs" in n else d)


@hostile("exported-program", "archive", "pickled-weights", "weights that are said to be pickled, and call")
def _(canary: Canary) -> Path:
    from evaluation.hostile.pickle_files import call

    def change(name: str, data: bytes) -> bytes:
        if name.endswith("_config.json"):
            return data.replace(b'"use_pickle": false', b'"use_pickle": true').replace(
                b'"use_pickle":false', b'"use_pickle":true'
            )
        return (
            call("os", "system", canary.shell) if "/weights/" in name and not name.endswith("json") else data
        )

    return exported(canary, change)


@hostile("exported-program", "archive", "weight-path", "weights whose path leads to the secret")
def _(canary: Canary) -> Path:
    def change(name: str, data: bytes) -> bytes:
        return (
            re.sub(rb'"path_name": ?"[^"]*"', b'"path_name": "../../../../secrets/secret.bin"', data)
            if name.endswith("_config.json")
            else data
        )

    return exported(canary, change)


@hostile("exported-program", "archive", "deep-json", "a program of 100,000 lists in each other")
def _(canary: Canary) -> Path:
    return exported(
        canary, lambda n, d: b"[" * 100_000 + b"]" * 100_000 if n.endswith("models/model.json") else d
    )


@hostile("exported-program", "archive", "script-names", "names in the graph that are escapes and a script")
def _(canary: Canary) -> Path:
    return exported(
        canary,
        lambda n, d: (
            d.replace(b'"x"', b"\"\\u001b[31m<script>document.title='executed'</script>\"")
            if n.endswith("models/model.json")
            else d
        ),
    )
