"""What a bundle says of precision low: by a run there if there was one, else by its operators."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest

from mnnprep.attempt.known_at_low import known
from mnnprep.attempt.results import TargetProof
from mnnprep.bundle.manifest import AgainstLow, KnownFault
from mnnprep.bundle.manifest_view import meaning
from mnnprep.commands.record import told_of_low
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.mnn.run import MnnRunResult
from mnnprep.mnn.settings import FLOAT16, FLOAT32
from mnnprep.model.target import Target
from mnnprep.repair.steps import KnownJob, known_wrong
from mnnprep.workers.failure import StepFailed
from support.command import call, prepared
from support.manifests import golden

KNOWN = AgainstLow(known=[KnownFault(rule="recurrent-sequence", node="LSTM y", hazard="it repeats")])
RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}  # by the gates that each has


def recurrent(path: Path, kind: str, output: str = "y") -> Path:
    """A net of one recurrent operator, which gives its outputs of all steps or the last state."""
    gates = RECURRENT[kind]
    of = {"y": "float[5, 1, 1, 2] y", "h": "float[1, 1, 2] h"}[output]
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[5, 1, 3] x) => ({of})'
        f" <float[1, {2 * gates}, 3] w = {{{', '.join(['0.5', '-0.25', '0.125'] * 2 * gates)}}},"
        f" float[1, {2 * gates}, 2] r = {{{', '.join(['0.25', '-0.5'] * 2 * gates)}}}>"
        f" {{ {'y, ' if output == 'y' else ', '}h = {kind}<hidden_size = 2>(x, w, r) }}"
    )
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("kind", "output", "found"), [("LSTM", "y", 1), ("GRU", "y", 1), ("LSTM", "h", 0), ("RNN", "y", 0)]
)
def test_what_is_known_of_operators(tmp_path: Path, kind: str, output: str, found: int) -> None:
    path = recurrent(tmp_path / "m.onnx", kind, output)
    assert len(known_wrong(KnownJob(model=str(path))).known_wrong_at_low) == found


def test_a_bundle_without_a_target_says_what_the_app_must_set(tmp_path: Path) -> None:
    manifest = prepared(recurrent(tmp_path / "m.onnx", "LSTM"), tmp_path / "out")
    assert manifest.verdict.value == "proven"
    (fault,) = manifest.runtime.against_low.known if manifest.runtime.against_low else ()
    assert fault.rule == "recurrent-sequence"
    again = call("verify", tmp_path / "out")
    assert again.code == 0
    for text in (
        meaning(manifest),
        (tmp_path / "out" / "report.html").read_text(),
        " ".join(again.out.split()),
    ):
        assert "The app must set precision=high or normal" in text


def proof(text: str, arithmetic: str, status: Status) -> TargetProof:
    target = Target.parse(text)
    check = catalog.TARGET.of(str(target)).passed(subject=str(target))
    check = Check(check=check.check, required=True, status=status, subject=str(target), reason="why")
    ran = MnnRunResult(outputs={}, errors={}, arithmetic=arithmetic) if status is not Status.NOT_RUN else None
    return TargetProof(target, check, ran)


def test_a_run_there_decides() -> None:
    high = proof("arm64:high", FLOAT32, Status.PASSED)
    right = proof("arm64:low", FLOAT16, Status.PASSED)
    wrong = proof("arm64:low", FLOAT16, Status.FAILED)
    absent = proof("arm64:low", "", Status.NOT_RUN)
    assert told_of_low([high, wrong], KNOWN) == AgainstLow(targets=["arm64:low"])
    assert told_of_low([high, right], KNOWN) is None
    assert told_of_low([high], KNOWN) == told_of_low([absent], KNOWN) == KNOWN
    assert told_of_low([wrong, right], None) == AgainstLow(targets=["arm64:low"])


def test_the_first_sentence_names_what_is_proven_and_what_is_wrong() -> None:
    manifest = golden("proven")
    checks = [proof("arm64:high", FLOAT32, Status.PASSED), proof("arm64:low", FLOAT16, Status.FAILED)]
    told = meaning(
        msgspec.structs.replace(manifest, evidence=[*manifest.evidence, *(p.check for p in checks)])
    )
    assert told.startswith(
        "model.mnn is proven for this machine, arm64:high, and wrong on arm64:low. The app must"
    )
    assert "with low its outputs are wrong" in told


def test_what_can_not_be_looked_for_is_unknown() -> None:
    failed: Future[Any] = Future()
    failed.set_exception(StepFailed("timeout", "took too long"))
    assert "took too long" in known(failed).unknown
    assert known(None).unknown == ""
