"""Sizes between those that are compared: which are taken, and that a wrong one fails the proof."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from evaluation.nets.mnn_models import floats, node, save
from mnnprep.attempt.mnn_verifier import _also_between
from mnnprep.attempt.sizes_between import MOST, _spread, sizes_between
from mnnprep.bundle.manifest import read_manifest
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Status
from mnnprep.mnn.run import MnnRunResult
from mnnprep.model.files import FileRef, file_ref, save_arrays
from mnnprep.model.messages import CaseFile, Survey
from mnnprep.model.signature import Dim, Signature, TensorSpec
from support.command import call

IMAGE = TensorSpec("x", "float32", ("n", 3, "h", "w"))


def a_survey(sizes: list[tuple[int, int, int]], dims: tuple[Dim, ...] = ()) -> Survey:
    cases = [
        CaseFile(index=i, origin="seed", dims=dict(zip("nhw", size, strict=True)), file=FileRef("", "", 0))
        for i, size in enumerate(sizes)
    ]
    signature = Signature((IMAGE,), (), dims or (Dim("n", 1, 4), Dim("h", 8, 32), Dim("w", 8, 32)))
    return Survey(signature=signature, cases=cases, checks=[], noise={})


def test_sizes_are_new_spread_and_no_larger_than_what_was_compared() -> None:
    compared = [(1, 8, 8), (2, 16, 16), (1, 32, 32)]
    found = sizes_between(a_survey(compared))
    assert len(found) == MOST == len({(s["h"], s["w"]) for s in found})
    assert all(s["n"] == 1 and s["h"] % 8 == s["w"] % 8 == 0 for s in found)
    assert {"n": 1, "h": 8, "w": 8} not in found
    few = sizes_between(a_survey([(1, 8, 8), (1, 8, 16)]))
    assert all(s["h"] * s["w"] <= 8 * 16 for s in few)


def test_a_narrow_range_is_taken_as_it_is() -> None:
    dims = (Dim("n", 1, 4), Dim("h", 3, 5), Dim("w", 7, 7))
    found = sizes_between(a_survey([(1, 3, 7), (1, 5, 7)], dims))
    assert found == [{"n": 1, "h": 4, "w": 7}]


def test_an_open_batch_alone_gives_none() -> None:
    survey = a_survey([(1, 8, 8)])
    signature = Signature((TensorSpec("x", "float32", ("n", 3, 8, 8)),), (), (Dim("n", 1, 4),))
    assert sizes_between(msgspec.structs.replace(survey, signature=signature)) == []


def test_combinations_pair_every_size_with_different_ones() -> None:
    assert list(_spread([[1, 2, 3]])) == [(1,), (2,), (3,)]
    pairs = list(_spread([[1, 2, 3], [4, 5]]))
    assert set(pairs) == {(a, b) for a in (1, 2, 3) for b in (4, 5)}


@pytest.mark.parametrize(("off", "status"), [(0.0, Status.PASSED), (0.5, Status.FAILED)])
def test_a_size_that_is_wrong_fails_the_comparison(tmp_path: Path, off: float, status: Status) -> None:
    outputs = {"y": np.ones(4, np.float32)}
    case, given = tmp_path / "case.npz", tmp_path / "given.npz"
    save_arrays(case, {f"outputs/{name}": array for name, array in outputs.items()})
    save_arrays(given, {name: array + np.float32(off) for name, array in outputs.items()})
    cases = [CaseFile(index=0, origin="seed 0 at other sizes", dims={"h": 24}, file=file_ref(case))]
    ran = MnnRunResult(outputs={"0": file_ref(given)}, errors={}, narrowed={}, narrowed_inputs={})
    check = _also_between(catalog.MNN_COMPARE.passed(), cases, ran, Tolerance())
    assert (check.status, check.numbers["sizes_between"]) == (status, 1)
    assert ("at sizes between" in check.reason) == (off > 0)


def test_a_convolution_of_open_sizes_is_compared_between_them(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    conv = node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    save(
        tmp_path / "m.onnx",
        [conv],
        [floats("x", 1, 3, "h", "w_")],
        [floats("y", 1, 4, "h", "w_")],
        {"w": weight},
    )
    options = ("--dim", "h=8:24", "--dim", "w_=8:24")
    assert call("prepare", tmp_path / "m.onnx", *options, "-o", tmp_path / "out").code == 0
    (check,) = (c for c in read_manifest(tmp_path / "out").evidence if c.check == "mnn_compare")
    assert check.numbers["sizes_between"] > 0
