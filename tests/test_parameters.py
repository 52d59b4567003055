"""The record has the right number of parameters, whatever holds them in the source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mnnprep.formats.onnx.parameters import parameters


def constant(name: str, array: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))


def net(nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto] | None = None) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(
        helper.make_graph(nodes, "net", [x], [y], initializers or []),
        opset_imports=[helper.make_opsetid("", 13)],
    )


def test_weights_in_constant_nodes_count_and_shapes_do_not() -> None:
    weight, shape = np.ones((3, 4), np.float32), np.array([1, 4], np.int64)
    nodes = [
        constant("w", weight),
        constant("shape", shape),
        constant("half", np.float32(0.5)),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Mul", ["m", "half"], ["h"]),
        helper.make_node("Reshape", ["h", "shape"], ["y"]),
    ]
    assert parameters(net(nodes)) == 12
    assert parameters(net(nodes[1:], [numpy_helper.from_array(weight, "w")])) == 12


def test_weights_in_bodies_and_functions_count_once() -> None:
    body = helper.make_graph(
        [constant("w", np.ones(5, np.float32)), helper.make_node("Add", ["x", "w"], ["out"])],
        "body",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(7, np.float16), "v")],
    )
    model = net([helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)])
    inside = [constant("w", np.ones(11, np.float32)), helper.make_node("Add", ["a", "w"], ["b"])]
    model.functions.append(
        helper.make_function("own", "F", ["a"], ["b"], inside, [helper.make_opsetid("", 13)])
    )
    assert parameters(model) == 2 * (5 + 7) + 11


def test_a_frozen_graphs_weights_count_and_a_variables_graph_counts_its_variables() -> None:
    from types import SimpleNamespace

    pytest.importorskip("tensorflow")
    from tensorflow.core.framework.graph_pb2 import GraphDef

    from mnnprep.formats.tensorflow.derived import count

    weights = {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}
    skeleton = SimpleNamespace(graph=GraphDef(), values={})
    assert count(skeleton, weights) == 9  # type: ignore[arg-type]
    skeleton.values = {"w": lambda: weights["w"]}
    assert count(skeleton, weights) == 6  # type: ignore[arg-type]


class TestTorch:
    @pytest.fixture(scope="class")
    @staticmethod
    def net(tmp_path_factory: pytest.TempPathFactory) -> object:
        torch = pytest.importorskip("torch")
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).eval()

    def test_a_frozen_script_has_the_parameters_of_what_it_was_made_from(self, net: object) -> None:
        import torch

        from mnnprep.formats.torch.parameters import parameter_count

        script = torch.jit.script(net)
        assert (
            parameter_count(net) == parameter_count(script) == parameter_count(torch.jit.freeze(script)) == 26
        )

    def test_an_exported_program_has_its_parameters(self, net: object) -> None:
        import torch

        from mnnprep.formats.torch.parameters import parameter_count

        program = torch.export.export(net, (torch.zeros(1, 3),))
        assert parameter_count(program.module()) == 26


def test_an_mnn_file_counts_the_weights_of_its_layers(tmp_path: Path) -> None:
    """Found in the file that MNN's converter makes of a model with a known number of parameters."""
    import subprocess
    import sys

    from mnnprep.formats.mnn_file.summary import read_summary

    weight, bias = np.ones((4, 3, 1, 1), np.float32), np.linspace(0, 1, 4, dtype=np.float32)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 5, 5])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 5, 5])
    table = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"]), helper.make_node("Mul", ["c", "t"], ["y"])]
    held = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(bias, "b"),
        numpy_helper.from_array(table, "t"),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "net", [x], [y], held),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "a.onnx")
    code = (
        "import sys, _tools; _tools.mnnconvert(['MNNConvert', '-f', 'ONNX', '--modelFile', 'a.onnx',"
        " '--MNNModel', 'a.mnn', '--bizCode', 'x'])"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=120, check=True)
    assert read_summary(tmp_path / "a.mnn").parameters == 12 + 4 + 25
