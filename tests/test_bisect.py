"""`bisect` from the command line: every kind of outcome, on faults that MNN has by itself or that a converter
plants.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mnnprep
from evaluation.nets.mnn_models import Value, floats, node, save
from mnnprep.evidence.verdict import Verdict
from mnnprep.model.files import file_ref, load_arrays
from support.command import call, prepared

RNG = np.random.default_rng(0)
W = (RNG.standard_normal((8, 8)) / 3).astype(np.float32)
FOUND, USAGE, REFUSED = 0, 2, 3

# A converter that changes a node, named by its output, before it does MNN's work.
CONVERTER = """#!{python}
import os, sys
import numpy as np, onnx
from onnx import numpy_helper
import _tools
arguments = sys.argv[1:]
place = arguments.index("--modelFile") + 1
model = onnx.load(arguments[place])
produced = {{o: n for n in model.graph.node for o in n.output}}
def scaled(tensor, by, name):
    return numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(by), name)
{change}
onnx.save(model, "changed.onnx")
arguments[place] = os.path.abspath("changed.onnx")
_tools.mnnconvert(["MNNConvert", *arguments])
"""


def converter(path: Path, change: str) -> Path:
    path.write_text(CONVERTER.format(python=sys.executable, change=change))
    path.chmod(0o755)
    return path


def replaced(output: str, op_type: str) -> str:
    """The change that gives the node of *output* another operator."""
    return f"if {output!r} in produced: produced[{output!r}].op_type = {op_type!r}"


def chain(path: Path, *, shape: Sequence[int | str] = (2, 8)) -> Path:
    """Ten nodes: two products with two branches between them."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="first"),
        node("Sigmoid", ["a"], ["b"], name="left"),
        node("Tanh", ["a"], ["c"], name="right"),
        node("Mul", ["b", "c"], ["d"], name="gate"),
        node("Add", ["d", "x"], ["e"], name="sum"),
        node("Softplus", ["e"], ["f"], name="soft"),
        node("MatMul", ["f", "w"], ["g"], name="second"),
        node("Abs", ["g"], ["h"], name="abs"),
        node("Sqrt", ["h"], ["i"], name="root"),
        node("Sin", ["i"], ["y"], name="sine"),
    ]
    return save(path, nodes, [floats("x", *shape)], [floats("y", *shape)], {"w": W})


def found(bundle: Path, *options: str | Path) -> dict[str, Any]:
    """The document of ``mnnprep bisect --json``, which must have ended with 0."""
    result = call("bisect", bundle, "--json", *options)
    assert result.code == FOUND, result.err
    document: dict[str, Any] = result.document()
    return document


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The proven bundle of `chain`."""
    root = tmp_path_factory.mktemp("clean")
    assert prepared(chain(root / "net.onnx", shape=("batch", 8)), root / "out").verdict is Verdict.PROVEN
    return root / "out"


def remade(clean: Path, target: Path, faulty: Path) -> Path:
    """*clean* as *faulty* makes it; without a converted model where that fails."""
    shutil.copytree(clean, target)
    (target / "model.mnn").unlink()
    made = target / "unproven.mnn"
    subprocess.run(
        [faulty, "-f", "ONNX", "--modelFile", target / "model.onnx", "--MNNModel", made],
        cwd=target.parent,
        capture_output=True,
    )
    record = json.loads((target / "manifest.json").read_text())
    record["mnn"] = None
    record["files"] = [f for f in record["files"] if f["path"] != "model.mnn"]
    if made.exists():
        ref = file_ref(made)
        record["mnn"] = {"path": made.name, "sha256": ref.sha256, "size": ref.size}
        record["files"].append(record["mnn"])
    (target / "manifest.json").write_text(json.dumps(record))
    return target


def replay(directory: Path) -> subprocess.CompletedProcess[str]:
    """A repro's own program, in a process of its own."""
    return subprocess.run(
        [sys.executable, str(directory / "replay.py")], capture_output=True, text=True, timeout=120
    )


class TestPlanted:
    @pytest.mark.parametrize(
        ("output", "op_type", "label"),
        [
            ("a", "Gemm", "MatMul first"),
            ("c", "Sigmoid", "Tanh right"),
            ("f", "Relu", "Softplus soft"),
            ("y", "Cos", "Sin sine"),
        ],
    )
    def test_the_node_is_named(
        self, clean: Path, tmp_path: Path, output: str, op_type: str, label: str
    ) -> None:
        change = (
            replaced(output, op_type)
            if op_type != "Gemm"
            else (
                "if 'a' in produced:\n    t = next(t for t in model.graph.initializer if t.name == 'w')\n"
                "    model.graph.initializer.append(scaled(t, 1.1, 'v'))\n    produced['a'].input[1] = 'v'"
            )
        )
        faulty = converter(tmp_path / "faulty", change)
        remade(clean, tmp_path / "out", faulty)
        document = found(tmp_path / "out", "--mnnconvert", faulty)
        assert (document["outcome"], document["nodes"], document["failure"]) == ("node", [label], "differs")
        assert document["made_here"]
        assert document["alone"] > 1
        assert document["conversions"] <= 3  # two where the fault makes two nodes equal, which MNN merges
        assert document["unexplained"] == []

    def test_error_from_upstream_is_told_from_error_made_here(self, clean: Path, tmp_path: Path) -> None:
        """Everything behind ``sum`` is wrong in the whole model, and right alone."""
        faulty = converter(tmp_path / "faulty", replaced("e", "Sub"))
        remade(clean, tmp_path / "out", faulty)
        document = found(tmp_path / "out", "--mnnconvert", faulty)
        assert document["nodes"] == ["Add sum"]
        assert document["upstream"] < 0.1
        assert document["alone"] > 1

    def test_a_converter_that_is_right_now(self, clean: Path, tmp_path: Path) -> None:
        """The bundle's file came from another converter: that is said, and no node is blamed."""
        faulty = converter(tmp_path / "faulty", replaced("e", "Sub"))
        remade(clean, tmp_path / "out", faulty)
        document = found(tmp_path / "out")
        assert (document["outcome"], document["nodes"], document["made_here"]) == ("stale", [], False)
        assert "prepare the model again" in document["reason"]

    def test_nodes_that_are_wrong_only_together(self, clean: Path, tmp_path: Path) -> None:
        """A fusion gone wrong: the fault shows where both nodes are in one model, and the value between is no
        output.
        """
        change = (
            "named = {o.name for o in model.graph.output}\nif {'g', 'h'} <= set(produced) and 'g' not in"
            " named: produced['h'].op_type = 'Neg'"
        )
        faulty = converter(tmp_path / "faulty", change)
        remade(clean, tmp_path / "out", faulty)
        document = found(tmp_path / "out", "--mnnconvert", faulty, "-o", tmp_path / "repro")
        assert document["outcome"] in ("context", "fused")
        assert "Abs abs" in document["nodes"]
        cut = onnx.load(tmp_path / "repro" / "model.onnx")
        assert {"second", "abs"} <= {n.name for n in cut.graph.node}

    def test_rounding_that_adds_up(self, tmp_path: Path) -> None:
        """Every product a little off, none beyond the tolerance: no node is blamed, and where it grows is
        shown.
        """
        nodes = [node("MatMul", [f"v{i}", "w"], [f"v{i + 1}"], name=f"product{i}") for i in range(8)]
        save(
            tmp_path / "net.onnx",
            nodes,
            [floats("v0", 2, 8)],
            [floats("v8", 2, 8)],
            {"w": np.linalg.qr(W)[0].astype(np.float32)},
        )
        prepared(tmp_path / "net.onnx", tmp_path / "clean")
        change = "for t in model.graph.initializer:\n    if t.name == 'w': t.CopyFrom(scaled(t, 1.0003, 'w'))"
        faulty = converter(tmp_path / "faulty", change)
        document = found(remade(tmp_path / "clean", tmp_path / "out", faulty), "--mnnconvert", faulty)
        assert (document["outcome"], document["made_here"]) == ("gradual", False)
        assert len(document["growth"]) >= 3
        assert document["conversions"] <= 2 * np.log2(8) + 10

    def test_a_small_error_that_grows(self, tmp_path: Path) -> None:
        """Off by a third of the tolerance where it is made, and beyond it where a difference of nearly equal
        numbers shows it.
        """
        nodes = [
            node("MatMul", ["x", "w"], ["a"], name="product"),
            node("Softsign", ["a"], ["b"], name="sign"),
            node("MatMul", ["x", "w"], ["c"], name="again"),
            node("Softsign", ["c"], ["d"], name="other"),
            node("Mul", ["d", "near"], ["e"], name="near"),
            node("Sub", ["b", "e"], ["y"], name="difference"),
        ]
        save(
            tmp_path / "net.onnx",
            nodes,
            [floats("x", 2, 8)],
            [floats("y", 2, 8)],
            {"w": W, "near": np.array(0.98, np.float32)},
        )
        prepared(tmp_path / "net.onnx", tmp_path / "clean")
        change = (
            "if 'a' in produced:\n    t = next(t for t in model.graph.initializer if t.name == 'w')\n"
            "    model.graph.initializer.append(scaled(t, 1.0004, 'v'))\n    produced['a'].input[1] = 'v'"
        )
        faulty = converter(tmp_path / "faulty", change)
        document = found(remade(tmp_path / "clean", tmp_path / "out", faulty), "--mnnconvert", faulty)
        assert document["nodes"] == ["MatMul product"]
        assert 0.1 < document["alone"] < 1

    def test_a_node_whose_addition_crashes_the_converter(self, clean: Path, tmp_path: Path) -> None:
        faulty = converter(tmp_path / "faulty", "if 'f' in produced: os.abort()")
        remade(clean, tmp_path / "out", faulty)
        document = found(tmp_path / "out", "--mnnconvert", faulty)
        assert (document["outcome"], document["failure"], document["nodes"]) == (
            "node",
            "crash",
            ["Softplus soft"],
        )
        assert document["conversions"] <= 2 * np.log2(10) + 10

    def test_two_nodes_that_crash_it_together(self, clean: Path, tmp_path: Path) -> None:
        faulty = converter(tmp_path / "faulty", "if {'c', 'f'} <= set(produced): os.abort()")
        remade(clean, tmp_path / "out", faulty)
        document = found(tmp_path / "out", "--mnnconvert", faulty, "-o", tmp_path / "repro")
        assert (document["outcome"], document["nodes"]) == ("context", ["Softplus soft"])
        assert "right" in {n.name for n in onnx.load(tmp_path / "repro" / "model.onnx").graph.node}

    def test_it_is_halved_where_the_values_are_too_many(
        self, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mnnprep.commands.bisect.SHARE_FOR_VALUES", 0.0)
        faulty = converter(tmp_path / "faulty", replaced("f", "Relu"))
        remade(clean, tmp_path / "out", faulty)
        said: list[str] = []
        halved = mnnprep.bisect(tmp_path / "out", mnnconvert=faulty, tell=said.append)
        assert halved.nodes == ["Softplus soft"]
        assert any("halving over" in line for line in said)


class TestMnnsOwn:
    """What MNN 3.6.1 gets wrong by itself, with the package's converter."""

    def less(self, path: Path) -> Path:
        nodes = [
            node("MatMul", ["x", "w"], ["a"], name="product"),
            node("Abs", ["a"], ["b"], name="abs"),
            node("Neg", ["b"], ["c"], name="neg"),
            node("Less", ["c", "k"], ["d"], name="less"),
            node("Cast", ["d"], ["e"], to=1, name="cast"),
            node("Mul", ["a", "e"], ["y"], name="mask"),
        ]
        return save(
            path,
            nodes,
            [floats("x", "batch", 8)],
            [floats("y", "batch", 8)],
            {"w": W, "k": np.array(-0.3, np.float32)},
        )

    def test_the_repro_replays(self, tmp_path: Path) -> None:
        prepared(self.less(tmp_path / "net.onnx"), tmp_path / "out", "--no-repair")
        document = found(tmp_path / "out", "-o", tmp_path / "repro")
        assert (document["nodes"], document["conversions"]) == (["Less less"], 1)
        assert document["repro"] == [
            "README.md",
            "expected.npz",
            "finding.json",
            "inputs.npz",
            "mnn.npz",
            "model.onnx",
            "replay.py",
        ]
        assert sorted(p.name for p in (tmp_path / "repro").iterdir()) == document["repro"]
        again = replay(tmp_path / "repro")
        assert again.returncode == 1
        (line,) = [line for line in again.stdout.splitlines() if line.startswith("replay: ")]
        assert "elements are wrong" in line
        text = (tmp_path / "repro" / "README.md").read_text()
        assert "Less less" in text
        assert str(tmp_path) not in text + (tmp_path / "repro" / "finding.json").read_text()

    def test_the_same_repro_twice(self, tmp_path: Path) -> None:
        prepared(self.less(tmp_path / "net.onnx"), tmp_path / "out", "--no-repair")
        for name in ("one", "two"):
            found(tmp_path / "out", "-o", tmp_path / name)
        assert {p.name: p.read_bytes() for p in (tmp_path / "one").iterdir()} == {
            p.name: p.read_bytes() for p in (tmp_path / "two").iterdir()
        }

    def test_one_case_of_several(self, tmp_path: Path) -> None:
        prepared(self.less(tmp_path / "net.onnx"), tmp_path / "out", "--no-repair")
        document = found(tmp_path / "out", "--case", "1")
        assert (document["nodes"], document["case"], document["explained"]) == (["Less less"], 1, [])

    def test_a_crash_when_it_runs(self, tmp_path: Path) -> None:
        nodes = [
            node("Tanh", ["x"], ["a"]),
            node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], name="pool"),
            node("Exp", ["b"], ["y"]),
        ]
        save(tmp_path / "net.onnx", nodes, [floats("x", 1, 1, 4, 4)], [floats("y", 1, 1, 3, 3)])
        prepared(tmp_path / "net.onnx", tmp_path / "out", "--no-repair")
        document = found(tmp_path / "out", "-o", tmp_path / "repro")
        assert (document["outcome"], document["failure"], document["nodes"]) == (
            "node",
            "crash",
            ["MaxPool pool"],
        )
        assert replay(tmp_path / "repro").returncode < 0

    def test_a_refusal(self, tmp_path: Path) -> None:
        nodes = [
            node("Tanh", ["x"], ["a"]),
            node("Hardmax", ["a"], ["b"], name="hard"),
            node("Exp", ["b"], ["y"]),
        ]
        save(tmp_path / "net.onnx", nodes, [floats("x", 2, 4)], [floats("y", 2, 4)])
        prepared(tmp_path / "net.onnx", tmp_path / "out", "--no-repair")
        document = found(tmp_path / "out")
        assert (document["outcome"], document["failure"], document["nodes"]) == (
            "node",
            "refused",
            ["Hardmax hard"],
        )
        assert document["conversions"] == 2

    @staticmethod
    def graph(
        name: str, nodes: list[onnx.NodeProto], inputs: list[Value], outputs: list[Value]
    ) -> onnx.GraphProto:
        return helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info(*i) for i in inputs],
            [helper.make_tensor_value_info(*o) for o in outputs],
        )

    def test_inside_an_if(self, tmp_path: Path) -> None:
        then = self.graph(
            "t",
            [node("Less", ["n", "k"], ["p"], name="less"), node("Cast", ["p"], ["q"], to=1, name="cast")],
            [],
            [floats("q", 2, 8)],
        )
        other = self.graph("e", [node("Neg", ["n"], ["r"])], [], [floats("r", 2, 8)])
        nodes = [
            node("Abs", ["x"], ["a"]),
            node("Neg", ["a"], ["n"]),
            node("ReduceSum", ["n"], ["s"], keepdims=0),
            node("Less", ["s", "z"], ["c"]),
            node("If", ["c"], ["i"], name="choice", then_branch=then, else_branch=other),
            node("Add", ["i", "x"], ["y"]),
        ]
        weights = {"k": np.array(-0.5, np.float32), "z": np.array(1e6, np.float32)}
        save(tmp_path / "net.onnx", nodes, [floats("x", 2, 8)], [floats("y", 2, 8)], weights)
        prepared(tmp_path / "net.onnx", tmp_path / "out", "--no-repair")
        document = found(tmp_path / "out", "-o", tmp_path / "repro")
        assert (document["outcome"], document["nodes"], document["where"]) == (
            "node",
            ["Less less"],
            "then_branch of If choice",
        )
        assert [n.op_type for n in onnx.load(tmp_path / "repro" / "model.onnx").graph.node] == ["Less"]

    def test_inside_a_loop(self, tmp_path: Path) -> None:
        """Wrong from the third iteration on, where both sides of the comparison are negative."""
        body = self.graph(
            "b",
            [
                node("Sub", ["v", "one"], ["w2"], name="step"),
                node("Less", ["w2", "limit"], ["p"], name="less"),
                node("Cast", ["p"], ["q"], to=1, name="cast"),
                node("Add", ["w2", "q"], ["v2"], name="add"),
                node("Identity", ["cond"], ["cond2"]),
            ],
            [("i", TensorProto.INT64, []), ("cond", TensorProto.BOOL, []), floats("v", 2, 8)],
            [("cond2", TensorProto.BOOL, []), floats("v2", 2, 8)],
        )
        nodes = [
            node("Sigmoid", ["x"], ["a"]),
            node("Loop", ["m", "", "a"], ["l"], name="loop", body=body),
            node("Exp", ["l"], ["y"]),
        ]
        weights = {
            "m": np.array(4, np.int64),
            "one": np.array(0.9, np.float32),
            "limit": np.array(-1.2, np.float32),
        }
        save(tmp_path / "net.onnx", nodes, [floats("x", 2, 8)], [floats("y", 2, 8)], weights)
        prepared(tmp_path / "net.onnx", tmp_path / "out", "--no-repair")
        document = found(tmp_path / "out")
        assert document["where"] == "body of Loop loop"
        assert (document["outcome"], document["nodes"]) == ("node", ["Less less"])


class TestNothingFound:
    def test_a_clean_bundle(self, clean: Path, tmp_path: Path) -> None:
        document = found(clean, "-o", tmp_path / "repro")
        assert (document["outcome"], document["failure"], document["nodes"], document["conversions"]) == (
            "agrees",
            "",
            [],
            0,
        )
        assert not (tmp_path / "repro").exists()
        assert "nothing found" in call("bisect", clean).out

    def test_an_artifact_that_is_not_the_source(self, clean: Path, tmp_path: Path) -> None:
        """Another reference: MNN is what the artifact is, and the source is something else."""
        shutil.copytree(clean, tmp_path / "out")
        record = json.loads((tmp_path / "out" / "manifest.json").read_text())
        path = tmp_path / "out" / record["cases"][0]["path"]
        from mnnprep.model.files import save_arrays

        save_arrays(path, {n: a + 1 if n.startswith("outputs/") else a for n, a in load_arrays(path).items()})
        ref = file_ref(path)
        record["cases"][0] |= {"sha256": ref.sha256, "size": ref.size}
        (tmp_path / "out" / "manifest.json").write_text(json.dumps(record))
        document = found(tmp_path / "out")
        assert (document["outcome"], document["artifact_differs"]) == ("agrees", [0])
        assert "not MNN's fault" in document["message"]

    @pytest.mark.parametrize("options", [["--case", "99"], ["--mnnconvert", "missing"], ["-o", "."]])
    def test_a_wrong_call(self, clean: Path, options: list[str]) -> None:
        assert call("bisect", clean, *options).code == USAGE

    def test_no_bundle(self, tmp_path: Path) -> None:
        result = call("bisect", tmp_path / "missing")
        assert result.code == USAGE
        assert "mnnprep prepare" in result.err

    def test_a_file_that_was_changed(self, clean: Path, tmp_path: Path) -> None:
        shutil.copytree(clean, tmp_path / "out")
        with (tmp_path / "out" / "model.onnx").open("ab") as file:
            file.write(b"\0")
        result = call("bisect", tmp_path / "out")
        assert result.code == REFUSED
        assert "model.onnx" in result.err

    def test_a_target_that_exists(self, clean: Path, tmp_path: Path) -> None:
        (tmp_path / "repro").mkdir()
        (tmp_path / "repro" / "kept").write_text("kept")
        assert call("bisect", clean, "-o", tmp_path / "repro").code == USAGE
        assert (tmp_path / "repro" / "kept").read_text() == "kept"


class TestExternalData:
    def test_only_what_is_needed_is_taken(self, tmp_path: Path) -> None:
        """Weights in a file of their own; the piece has those of its node alone."""
        weights = {f"w{i}": RNG.standard_normal((64, 64)).astype(np.float32) for i in range(4)}
        tensors = []
        for name, array in weights.items():
            (tmp_path / f"{name}.bin").write_bytes(array.tobytes())
            tensor = TensorProto(
                name=name, data_type=TensorProto.FLOAT, dims=array.shape, data_location=TensorProto.EXTERNAL
            )
            tensor.external_data.add(key="location", value=f"{name}.bin")
            tensors.append(tensor)
        nodes = [
            n
            for i in range(4)
            for n in (
                node("MatMul", [f"t{i}", f"w{i}"], [f"p{i}"], name=f"p{i}"),
                node("Tanh", [f"p{i}"], [f"t{i + 1}"]),
            )
        ]
        nodes.insert(0, node("Sigmoid", ["x"], ["t0"]))
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info(*floats("x", 1, 64))],
            [helper.make_tensor_value_info(*floats("t4", 1, 64))],
            tensors,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
        change = (
            "if 'p2' in produced:\n    t = next(t for t in model.graph.initializer if t.name == 'w2')\n"
            "    model.graph.initializer.append(scaled(t, 1.2, 'v'))\n    produced['p2'].input[1] = 'v'"
        )
        faulty = converter(tmp_path / "faulty", change)
        prepared(tmp_path / "net.onnx", tmp_path / "out", "--mnnconvert", faulty)
        assert (tmp_path / "out" / "model.onnx.data").is_file()
        document = found(tmp_path / "out", "--mnnconvert", faulty, "-o", tmp_path / "repro")
        assert document["nodes"] == ["MatMul p2"]
        cut = onnx.load(tmp_path / "repro" / "model.onnx")
        assert [t.name for t in cut.graph.initializer] == ["w2"]
        np.testing.assert_array_equal(numpy_helper.to_array(cut.graph.initializer[0]), weights["w2"])


def test_another_format_is_refused(clean: Path, tmp_path: Path) -> None:
    """Its manifest says that the artifact is no ONNX file."""
    shutil.copytree(clean, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    record = json.loads(path.read_text())
    record["artifact"]["format"] = "torchscript"
    path.write_text(json.dumps(record))
    result = call("bisect", tmp_path / "out")
    assert result.code == REFUSED
    assert "--to onnx" in result.err


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (None, "holds no cases"),
        ("objects", "could not be read as arrays"),
        ("inputs", "could not be read as arrays"),
        ("compressed", "could not be read as arrays"),
    ],
)
def test_a_bundle_without_cases_to_use_is_refused(
    clean: Path, tmp_path: Path, case: str | None, words: str
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(clean, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    first = manifest["cases"][0]
    manifest["cases"] = [first] if case else []
    if case:
        path = bundle / first["path"]
        pickled = np.array([{}], object)
        changed = {
            "objects": {"inputs/x": pickled, "outputs/y": pickled},
            "inputs": {"inputs/x": pickled},
            "compressed": {},
        }[case]
        save = np.savez_compressed if case == "compressed" else np.savez
        save(path, **(load_arrays(path) | changed))
        data = path.read_bytes()
        first |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    result = call("bisect", bundle)
    assert result.code == 3, result.err
    assert words in result.err
