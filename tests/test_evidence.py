"""The verdict: a pure function of the evidence that can't be talked into `proven`."""

from __future__ import annotations

import string

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnnprep.core.evidence import (
    PROVABILITY,
    REQUIRED,
    USABILITY,
    Check,
    Status,
    Verdict,
    failed,
    not_run,
    passed,
    verdict,
)

settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")

NAMES = (
    *REQUIRED,
    *sorted(PROVABILITY),
    *sorted(USABILITY),
    "dimension:batch",
    "dimension:sequence",
    "repairs",
    "operators",
)
DIM_NAMES = st.lists(st.sampled_from(["batch", "sequence"]), unique=True)
CHECKS = st.builds(
    Check,
    check=st.sampled_from(NAMES),
    status=st.sampled_from(Status),
    required=st.booleans(),
    reason=st.text(string.ascii_letters, max_size=5),
)
RANK = {Verdict.PROVEN: 0, Verdict.UNPROVEN: 1, Verdict.DIFFERS: 2, Verdict.REFUSED: 3}


def complete(dims: list[str]) -> list[Check]:
    return [passed(name) for name in (*REQUIRED, *(f"dimension:{d}" for d in dims))]


@given(DIM_NAMES)
def test_a_complete_proof_is_proven(dims: list[str]) -> None:
    assert verdict(complete(dims), dims) is Verdict.PROVEN


def test_no_evidence_is_refused() -> None:
    assert verdict([]) is Verdict.REFUSED


@given(DIM_NAMES, st.data())
def test_a_missing_check_is_never_proven(dims: list[str], data: st.DataObject) -> None:
    evidence = complete(dims)
    evidence.remove(data.draw(st.sampled_from(evidence)))
    assert verdict(evidence, dims) is Verdict.UNPROVEN


@given(DIM_NAMES, st.data(), st.sampled_from([Status.FAILED, Status.NOT_RUN]))
def test_a_check_that_did_not_pass_is_never_proven(
    dims: list[str], data: st.DataObject, status: Status
) -> None:
    evidence = complete(dims)
    index = data.draw(st.integers(0, len(evidence) - 1))
    evidence[index] = msgspec.structs.replace(evidence[index], status=status, reason="a reason")
    outcome = verdict(evidence, dims)
    name = evidence[index].check
    if status is Status.NOT_RUN or name in PROVABILITY:
        assert outcome is Verdict.UNPROVEN
    else:
        assert outcome is (Verdict.REFUSED if name in USABILITY else Verdict.DIFFERS)


@pytest.mark.parametrize("name", [*REQUIRED, "dimension:batch"])
@pytest.mark.parametrize("make", [failed, not_run])
def test_a_required_check_can_not_be_declared_optional(name: str, make: object) -> None:
    assert callable(make)
    evidence = [c for c in complete(["batch"]) if c.check != name] + [make(name, "a reason", required=False)]
    assert verdict(evidence, ["batch"]) is not Verdict.PROVEN


@given(st.lists(CHECKS, max_size=14), DIM_NAMES)
def test_proven_only_when_every_wanted_check_passed(evidence: list[Check], dims: list[str]) -> None:
    if verdict(evidence, dims) is Verdict.PROVEN:
        wanted = {*REQUIRED, *(f"dimension:{d}" for d in dims)}
        assert wanted <= {c.check for c in evidence}
        assert all(c.status is Status.PASSED for c in evidence if c.required or c.check in wanted)


@given(st.lists(CHECKS, max_size=14), DIM_NAMES, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(evidence: list[Check], dims: list[str], random: object) -> None:
    mixed = list(evidence)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert verdict(mixed, dims[::-1]) is verdict(evidence, dims)


@given(st.lists(CHECKS, min_size=1, max_size=14), DIM_NAMES, st.data())
def test_more_that_failed_never_makes_it_better(
    evidence: list[Check], dims: list[str], data: st.DataObject
) -> None:
    bad = msgspec.structs.replace(
        data.draw(CHECKS), status=data.draw(st.sampled_from([Status.FAILED, Status.NOT_RUN]))
    )
    before, after = verdict(evidence, dims), verdict([*evidence, bad], dims)
    if bad.check not in {f"dimension:{d}" for d in dims} | set(REQUIRED) or bad.check in {
        c.check for c in evidence
    }:
        assert RANK[after] >= RANK[before]
    assert not (after is Verdict.PROVEN and before is not Verdict.PROVEN)


@given(st.lists(CHECKS, max_size=14), DIM_NAMES)
def test_it_is_pure_and_takes_any_iterable(evidence: list[Check], dims: list[str]) -> None:
    copy = list(evidence)
    assert verdict(iter(evidence), iter(dims)) is verdict(evidence, dims)
    assert evidence == copy


def test_exit_codes() -> None:
    assert {v.value: v.exit_code for v in Verdict} == {"proven": 0, "unproven": 1, "differs": 1, "refused": 3}


@given(st.lists(CHECKS, max_size=5))
def test_evidence_survives_json(evidence: list[Check]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(evidence), type=list[Check]) == evidence
