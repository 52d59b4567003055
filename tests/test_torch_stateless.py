"""A TorchScript archive or exported program that does more than compute is refused from its file, before
torch opens it.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch")

from mnnprep.commands.inspect import inspect_file  # noqa: E402
from mnnprep.commands.resolve import resolve  # noqa: E402
from mnnprep.errors import RefusedError  # noqa: E402
from mnnprep.formats.torch import operators  # noqa: E402
from mnnprep.formats.torch.load import load  # noqa: E402
from mnnprep.formats.torch.program_json import program_faults  # noqa: E402
from mnnprep.formats.torch.script_code import script_faults  # noqa: E402
from mnnprep.formats.torch.stateless import require_stateless  # noqa: E402
from mnnprep.model.messages import Source  # noqa: E402
from mnnprep.model.request import Request  # noqa: E402
from support.command import answer  # noqa: E402

Change = Callable[[str, bytes], bytes]


OTHER = "class Other(Module):\n  def {}(self: __torch__.Other) -> int:\n    while True:\n      pass\n"
DOUBLING = "".join(
    f"def f{i}() -> int:\n  return __torch__.f{i + 1}() + __torch__.f{i + 1}()\n" for i in range(40)
)


class _Identity(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


class _Pair(NamedTuple):
    first: torch.Tensor
    second: int


class _Scripted(torch.nn.Module):
    """What scripted models really hold: recurrence, branches, loops, containers, hooks, strings."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.LSTM(4, 4)])
        self.tail = torch.nn.ModuleList([torch.nn.MultiheadAttention(4, 2)])
        self.rows[0].register_forward_hook(_hook)

    def forward(
        self, x: torch.Tensor, n: int = 3, mode: str = "a"
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        assert x.dim() == 2, f"two dimensions, not {x.dim()}"
        kept: list[torch.Tensor] = []
        for row in self.rows:
            x = row(x)[0] if isinstance(row, torch.nn.LSTM) else row(x)
        for attention in self.tail:
            x = attention(x, x, x)[0]
        i = 0
        while i < n and not mode.startswith("b"):
            kept.append(x[i % 2, ..., None] * 2**i)
            i += 1
        with torch.no_grad():
            scale = torch.zeros([n], dtype=torch.float16, device=x.device).to(x.dtype)
        named = {"sum": x.sum(), "scale": scale}
        pair = _Pair(torch.jit.wait(torch.jit.fork(torch.relu, x)), n)
        if x.sum() > 0:
            print(pair.second)
        return (
            pair.first,
            named,
            torch.nn.functional.interpolate(torch.einsum("ij,kj->ik", x, x)[None, None], scale_factor=2.0),
        )


def _hook(module: torch.nn.Module, x: tuple[torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    return y + 1


def _quantized() -> Any:
    torch.backends.quantized.engine = "fbgemm"
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LSTM(4, 4))
    return torch.jit.script(torch.ao.quantization.quantize_dynamic(net, {torch.nn.Linear, torch.nn.LSTM}))


def _changed(path: Path, target: Path, change: Change, extra: dict[str, bytes] | None = None) -> Path:
    """The archive *path* again, its records as *change* gives them, and *extra* ones in its folder."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in source.namelist():
            archive.writestr(name, change(name, source.read(name)))
        for name, data in (extra or {}).items():
            archive.writestr(f"{source.namelist()[0].partition('/')[0]}/{name}", data)
    return target


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "m.pt"
    torch.jit.script(_Identity().eval()).save(str(path))
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "m.pt2"
    batch, length = torch.export.Dim("batch", min=1, max=8), torch.export.Dim("length", min=2)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, more: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            y = self.layer(x).reshape(x.shape[0] * x.shape[1], 4)
            return {"y-1": torch.cond(y.sum() > 0, lambda t: t + 1, lambda t: t - 1, (y,)) + more["k"]}

    shapes = {"x": {0: batch, 1: length}, "more": {"k": None}}
    torch.export.save(
        torch.export.export(Net().eval(), (torch.rand(2, 3, 4), {"k": torch.ones(1)}), dynamic_shapes=shapes),
        path,
    )
    return path


def _with_line(line: str) -> Change:
    """The change that puts *line* at the beginning of forward."""

    def change(name: str, data: bytes) -> bytes:
        if not (name.endswith(".py") and b"def forward" in data):
            return data
        head, colon, body = data.partition(b"-> Tensor:\n")
        return head + colon + f"    {line}\n".encode() + body

    return change


def _refusal(path: Path, kind: str = "torchscript") -> str:
    with pytest.raises(RefusedError) as raised:
        require_stateless(path, kind)
    return raised.value.seen


class TestTorchScript:
    def test_what_real_models_hold_is_allowed(self, tmp_path: Path) -> None:
        for made in (
            torch.jit.script(_Scripted().eval()),
            _quantized(),
            torch.jit.trace(_Identity(), torch.ones(1)),
        ):
            path = tmp_path / "m.pt"
            made.save(str(path))
            require_stateless(path, "torchscript")

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ('torch.save(x, "CANARY")', "aten::save"),
            ('x.save("CANARY")', "aten::save"),
            ('getattr(x, "save")("CANARY")', "a call of something other than a name"),
            ('_0 = getattr(x, "save")', "aten::save"),
            ("_0 = torch.save", "aten::save"),
            ("_0 = torch", "the namespace torch as a value"),
            ('_0 = torch.from_file("CANARY")', "aten::from_file"),
            ("_0 = ops.mine.run(x)", "mine::run"),
            ("_0 = ops.aten", "the operator aten,"),
            ("_0 = ops.prim.rpc_sync(x)", "prim::rpc_sync"),
            ("_0 = __torch__.torch.classes.dist_rpc.WorkerInfo.__new__(x)", "torch.classes.dist_rpc"),
            ("_0 = __torch__.torch", "as a value"),
            ("_0 = unheard(x)", "a call of unheard"),
            ("_0 = x.unheard(x)", "method unheard"),
            ('_0 = r"a"', "a string with a prefix"),
            ("# type: (Tensor) -> Tensor", "a comment with types"),
            ("_0 = x\f", "isn't as torch writes it"),
            ("_0 = \\\n        x", "isn't as torch writes it"),
            ("_0 = " + "(" * 5000 + ")" * 5000, "isn't as torch writes it"),
        ],
    )
    def test_what_is_not_allowed_is_named_with_its_line(
        self, tmp_path: Path, script: Path, line: str, said: str
    ) -> None:
        seen = _refusal(_changed(script, tmp_path / "bad.pt", _with_line(line)))
        assert said in seen
        assert seen.startswith("m/code/__torch__")

    def test_a_file_that_writes_when_it_is_loaded_is_refused_and_fires_with_trust_alone(
        self, tmp_path: Path
    ) -> None:
        class Stateful(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.ones(1)

            @torch.jit.export
            def __getstate__(self) -> tuple[torch.Tensor, bool]:
                return (self.weight, self.training)

            @torch.jit.export
            def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
                self.weight = state[0]
                self.training = state[1]

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + self.weight

        canary = tmp_path / "canary"
        torch.jit.script(Stateful().eval()).save(str(tmp_path / "m.pt"))

        def change(name: str, data: bytes) -> bytes:
            return data.replace(
                b"    self.weight = (state)[0]\n",
                f'    self.weight = (state)[0]\n    torch.save(self.weight, "{canary}")\n'.encode(),
            )

        bad = _changed(tmp_path / "m.pt", tmp_path / "bad.pt", change)
        assert bad.read_bytes() != (tmp_path / "m.pt").read_bytes()
        for refuse in (
            lambda: resolve(Request(source=str(bad))),
            lambda: load(Source(kind="torchscript", path=str(bad))),
        ):
            with pytest.raises(RefusedError, match="more than compute"):
                refuse()
        assert not canary.exists()
        load(Source(kind="torchscript", path=str(bad), trust=True))
        assert canary.exists()

    @pytest.mark.parametrize(
        ("state", "more", "said"),
        [
            ("while True:\n      pass", "", "a loop"),
            ("for i in range(9223372036854775807):\n      pass", "", "a loop"),
            ("_0 = [i for i in range(9223372036854775807)]", "", "a loop"),
            (
                "_0 = self.goes_round()",
                "  def goes_round(self: __torch__.M) -> int:\n    while True:\n      pass\n",
                "a loop",
            ),
            (
                "_0 = self.again()",
                "  def again(self: __torch__.M) -> int:\n    return self.again()\n",
                "again, which calls itself",
            ),
            (
                '_0 = getattr(self, "again")',
                "  def again(self: __torch__.M) -> int:\n    return self.again()\n",
                "again, which",
            ),
            ("_0 = self.other.goes_round()", OTHER.format("goes_round"), "a loop"),
            ("_0 = __torch__.Other.__new__(__torch__.Other)", OTHER.format("__init__"), "a loop"),
            ("_0 = self.other[0]", OTHER.format("__getitem__"), "a loop"),
            ("_0 = self.other + 1", OTHER.format("__add__"), "a loop"),
            ("_0 = __torch__.goes_round()", "def goes_round() -> int:\n  while True:\n    pass\n", "a loop"),
            (
                "f = __torch__.first\n    _0 = fork(f)",
                "def first() -> int:\n  return __torch__.first()\n",
                "first, which calls itself",
            ),
            ("_0 = __torch__.f0()", DOUBLING, "more than 10000 calls"),
        ],
    )
    def test_what_may_never_end_while_the_file_is_loaded_is_refused(
        self, state: str, more: str, said: str
    ) -> None:
        head = (
            "class M(Module):\n  def __setstate__(self: __torch__.M, state: Tuple[Tensor, bool]) ->"
            " NoneType:\n"
        )
        text = f"{head}    {state}\n    self.training = (state)[1]\n    return None\n{more}"
        found = [fault for fault in script_faults({"m.py": text.encode()}) if fault.endless]
        assert said in found[0].what
        unread = text.replace("__setstate__", "forward")  # the limits of a run hold for what is called later
        assert not any(fault.endless for fault in script_faults({"m.py": unread.encode()}))

    def test_an_endless_setstate_of_a_real_file_is_refused_before_torch_opens_it(
        self, tmp_path: Path
    ) -> None:
        class Endless(torch.nn.Module):
            @torch.jit.export
            def __getstate__(self) -> tuple[torch.Tensor, bool]:
                return (torch.ones(1), self.training)

            @torch.jit.export
            def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
                i = 0
                while i >= 0:
                    i = (i + 1) % 7
                self.training = state[1]

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + 1

        torch.jit.script(Endless().eval()).save(str(tmp_path / "m.pt"))
        with pytest.raises(RefusedError, match="may never end"):
            resolve(Request(source=str(tmp_path / "m.pt")))

    def test_an_own_method_can_not_hide_an_operator(self, tmp_path: Path, script: Path) -> None:
        def change(name: str, data: bytes) -> bytes:
            method = b"  def save(self: Any,\n    name: str) -> str:\n    return name\n"
            return _with_line('x.save("CANARY")')(name, data) + (method if name.endswith(".py") else b"")

        assert "aten::save" in _refusal(_changed(script, tmp_path / "bad.pt", change))

    def test_an_own_method_can_not_hide_an_operator_of_a_later_torch(self) -> None:
        code = {
            "c.py": (
                b"class M(Module):\n  def later(self: M) -> int:\n    return 1\n  def forward(self: M, x:"
                b" Tensor) -> int:\n    return x.later()\n"
            )
        }
        assert not list(script_faults(code))
        assert [f.place for f in script_faults(code, frozenset({"later"}))] == ["c.py:5"]

    def test_a_record_that_torch_finds_under_another_case_is_judged(
        self, tmp_path: Path, script: Path
    ) -> None:
        bad = _changed(
            script,
            tmp_path / "bad.pt",
            lambda _, data: data,
            {"CODE/__torch__/Evil.PY": b'torch.save(1, "CANARY")\n'},
        )
        assert "aten::save" in _refusal(bad)
        bad = _changed(script, tmp_path / "bad.pt", lambda _, data: data, {"DATA.pkl": b"N."})
        assert "DATA.pkl" in _refusal(bad)

    def test_a_class_of_c_plus_plus_in_the_pickle_is_refused(self, tmp_path: Path, script: Path) -> None:
        held = b"c__torch__.torch.classes.dist_rpc\nWorkerInfo\n)\x81."
        assert "torch.classes.dist_rpc.WorkerInfo" in _refusal(
            _changed(
                script,
                tmp_path / "bad.pt",
                lambda name, data: held if name.endswith("constants.pkl") else data,
            )
        )

    def test_every_operator_of_this_torch_is_listed_or_refused(self) -> None:
        """Of a PyTorch that nothing else was imported with: torch._inductor, say, registers its own."""
        every = set(
            answer("import torch\nanswer = [schema.name for schema in torch._C._jit_get_all_schemas()]")
        )
        registered = {name for name in every if name.partition("::")[0] in operators.NAMESPACES}
        unreviewed = sorted(registered - operators.allowed() - operators.REFUSED)
        assert not unreviewed or torch.__version__ > "2.14", f"review them: {unreviewed}"
        assert not operators.allowed() & operators.REFUSED
        assert {"aten::conv2d", "quantized::linear", "prim::device"} <= operators.allowed()
        assert {"aten::save", "aten::from_file", "prim::rpc_sync"} <= operators.REFUSED


class TestExportedProgram:
    def test_real_programs_are_allowed(self, program: Path) -> None:
        require_stateless(program, "exported-program")
        before = dict(os.environ)
        load(Source(kind="exported-program", path=str(program)))
        assert dict(os.environ) == before

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ('"torch.ops.aten.linear.default"', '"torch.os.system"', "the operator torch.os.system"),
            ('"torch.ops.aten.linear.default"', '"torch.ops.mine.run.default"', "torch.ops.mine.run"),
            ('"torch.ops.aten.linear.default"', '"_operator.methodcaller"', "_operator.methodcaller"),
            ('"torch.ops.aten.linear.default"', '"#mine"', "#mine"),
            ('"torch.ops.aten.linear.default"', '"torch.ops.aten.save.default"', "aten.save"),
            (
                '"torch.ops.higher_order.cond"',
                '"torch.ops.higher_order.triton_kernel_wrapper_mutation"',
                "triton",
            ),
            ("Symbol('s27', positive=True, integer=True)", "__import__('os').system('id')", "the expression"),
            (
                "Symbol('s27', positive=True, integer=True)",
                "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
                "the expression",
            ),
            ("Symbol('s27', positive=True, integer=True)", "LShift(1, 99999999999)", "the expression"),
            ("Symbol('s27', positive=True, integer=True)", "().__class__", "the expression"),
            ('"guards_code": []', '"guards_code": ["print(1) == 2"]', "the expression"),
            ('"guards_code": []', '"guards_code": ["L[\'x\'].__class__ == 2"]', "the expression"),
            ('"name": "linear"', '"name": "a=print(1)"', "the name 'a=print(1)'"),
            ('"layer.weight"', '"layer.__class__.weight"', "the name"),
            ("builtins.dict", "collections.defaultdict", "collections.defaultdict"),
            ('\\\\\\"y-1\\\\\\"', '\\\\\\"y(1)\\\\\\"', "the keys"),
        ],
    )
    def test_what_torch_would_evaluate_is_refused(
        self, tmp_path: Path, program: Path, old: str, new: str, said: str
    ) -> None:
        def change(name: str, data: bytes) -> bytes:
            if not name.endswith("model.json"):
                return data
            assert old.encode() in data
            return data.replace(old.encode(), new.encode())

        assert said in _refusal(_changed(program, tmp_path / "bad.pt2", change), "exported-program")

    def test_arithmetic_and_guards_on_sizes_are_allowed(self) -> None:
        sizes = (
            "Max(1, FloorDiv(Add(Mul(Integer(2), Symbol('s27', positive=True, integer=True)), Integer(-1)),"
            " 2) + s0 // 3)"
        )
        guards = ["L['x'].size()[0] <= 8", "Eq(Mod(L['x']['k'].size()[1], 8), 0)"]
        text = json.dumps({"a": {"expr_str": sizes}, "guards_code": guards})
        assert not list(program_faults(text.encode()))

    def test_a_pickle_of_anything_but_tensors_is_refused(self, tmp_path: Path, program: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return (print, ("CANARY",))

        buffer = io.BytesIO()
        torch.save(Evil(), buffer)
        bad = _changed(
            program,
            tmp_path / "bad.pt2",
            lambda name, data: buffer.getvalue() if "sample_inputs" in name else data,
        )
        assert "__builtin__.print" in _refusal(bad, "exported-program")
        plain = pickle.dumps(Evil())
        bad = _changed(
            program, tmp_path / "bad.pt2", lambda name, data: plain if "sample_inputs" in name else data
        )
        with pytest.raises(RefusedError, match="damaged"):
            require_stateless(bad, "exported-program")

    @pytest.mark.parametrize(
        "record",
        [
            "data/constants/opaque_obj_0",
            "data/constants/custom_obj_0",
            "DATA/aotinductor/model/x.so",
            "run.py",
        ],
    )
    def test_other_records_are_refused(self, tmp_path: Path, program: Path, record: str) -> None:
        bad = _changed(program, tmp_path / "bad.pt2", lambda _, data: data, {record: b"x"})
        assert "neither program nor tensors" in _refusal(bad, "exported-program")

    def test_machine_code_is_never_loaded_not_even_with_trust(self, tmp_path: Path, program: Path) -> None:
        bad = _changed(
            program, tmp_path / "bad.pt2", lambda _, data: data, {"data/aotinductor/model/x.so": b"x"}
        )
        with pytest.raises(RefusedError, match="never loaded"):
            resolve(Request(source=str(bad), trust=True))


def test_inspect_warns_of_what_prepare_refuses(tmp_path: Path, script: Path, program: Path) -> None:
    bad = _changed(script, tmp_path / "bad.pt", _with_line('x.save("CANARY")'))
    assert any("aten::save" in warning for warning in inspect_file(bad).warnings)
    bad = _changed(
        program,
        tmp_path / "bad.pt2",
        lambda _, data: data.replace(b"torch.ops.aten.linear.default", b"torch.os.system"),
    )
    assert any("torch.os.system" in warning for warning in inspect_file(bad).warnings)
    assert not inspect_file(script).warnings
    assert not inspect_file(program).warnings
