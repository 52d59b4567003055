"""The verdict: a pure function of the evidence that can't be talked into `proven`."""

from __future__ import annotations

import string
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.row import Family, Row
from mnnprep.evidence.verdict import COMPARE, PREPARE, VERIFY, Profile, Verdict, verdict

NAMES = (
    *catalog.REQUIRED,
    *sorted(catalog.PROVABILITY),
    *sorted(catalog.USABILITY),
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
    return [catalog.row(name).passed() for name in (*catalog.REQUIRED, *(f"dimension:{d}" for d in dims))]


@given(DIM_NAMES)
def test_a_complete_proof_is_proven(dims: list[str]) -> None:
    assert verdict(complete(dims), PREPARE.with_dims(dims)) is Verdict.PROVEN


def test_no_evidence_is_refused() -> None:
    assert verdict([], PREPARE) is Verdict.REFUSED


@given(DIM_NAMES, st.data())
def test_a_missing_check_is_never_proven(dims: list[str], data: st.DataObject) -> None:
    evidence = complete(dims)
    evidence.remove(data.draw(st.sampled_from(evidence)))
    assert verdict(evidence, PREPARE.with_dims(dims)) is Verdict.UNPROVEN


@given(DIM_NAMES, st.data(), st.sampled_from([Status.FAILED, Status.NOT_RUN]))
def test_a_check_that_did_not_pass_is_never_proven(
    dims: list[str], data: st.DataObject, status: Status
) -> None:
    evidence = complete(dims)
    index = data.draw(st.integers(0, len(evidence) - 1))
    evidence[index] = msgspec.structs.replace(evidence[index], status=status, reason="a reason")
    outcome = verdict(evidence, PREPARE.with_dims(dims))
    name = evidence[index].check
    if status is Status.NOT_RUN or name in catalog.PROVABILITY:
        assert outcome is Verdict.UNPROVEN
    else:
        assert outcome is (Verdict.REFUSED if name in catalog.USABILITY else Verdict.DIFFERS)


@pytest.mark.parametrize("name", [*catalog.REQUIRED, "dimension:batch"])
@pytest.mark.parametrize("make", [Row.failed, Row.not_run])
def test_a_required_check_can_not_be_declared_optional(name: str, make: Callable[..., Check]) -> None:
    optional = make(catalog.row(name), "a reason", required=False)
    evidence = [c for c in complete(["batch"]) if c.check != name] + [optional]
    assert verdict(evidence, PREPARE.with_dims(["batch"])) is not Verdict.PROVEN


@given(st.lists(CHECKS, max_size=14), DIM_NAMES)
def test_proven_only_when_every_wanted_check_passed(evidence: list[Check], dims: list[str]) -> None:
    if verdict(evidence, PREPARE.with_dims(dims)) is Verdict.PROVEN:
        wanted = {*catalog.REQUIRED, *(f"dimension:{d}" for d in dims)}
        assert wanted <= {c.check for c in evidence}
        assert all(c.status is Status.PASSED for c in evidence if c.required or c.check in wanted)


@given(st.lists(CHECKS, max_size=14), DIM_NAMES, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(evidence: list[Check], dims: list[str], random: object) -> None:
    mixed = list(evidence)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert verdict(mixed, PREPARE.with_dims(dims[::-1])) is verdict(evidence, PREPARE.with_dims(dims))


@given(st.lists(CHECKS, min_size=1, max_size=14), DIM_NAMES, st.data())
def test_more_that_failed_never_makes_it_better(
    evidence: list[Check], dims: list[str], data: st.DataObject
) -> None:
    bad = msgspec.structs.replace(
        data.draw(CHECKS), status=data.draw(st.sampled_from([Status.FAILED, Status.NOT_RUN]))
    )
    before, after = (
        verdict(evidence, PREPARE.with_dims(dims)),
        verdict([*evidence, bad], PREPARE.with_dims(dims)),
    )
    if bad.check not in {f"dimension:{d}" for d in dims} | set(catalog.REQUIRED) or bad.check in {
        c.check for c in evidence
    }:
        assert RANK[after] >= RANK[before]
    assert not (after is Verdict.PROVEN and before is not Verdict.PROVEN)


@given(st.lists(CHECKS, max_size=14), DIM_NAMES)
def test_it_is_pure_and_takes_any_iterable(evidence: list[Check], dims: list[str]) -> None:
    copy = list(evidence)
    assert verdict(iter(evidence), PREPARE.with_dims(iter(dims))) is verdict(
        evidence, PREPARE.with_dims(dims)
    )
    assert evidence == copy


def test_exit_codes() -> None:
    assert {v.value: v.exit_code for v in Verdict} == {"proven": 0, "unproven": 1, "differs": 1, "refused": 3}


@given(st.lists(CHECKS, max_size=5))
def test_evidence_survives_json(evidence: list[Check]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(evidence), type=list[Check]) == evidence


# What each command's evidence can hold: the checks that it emits, required or not as it may say.
PROFILES = {"prepare": PREPARE, "verify": VERIFY, "compare": COMPARE}
EVERY_PROFILE = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
VERDICTS = st.sampled_from(Verdict)


def emitted(profile: Profile) -> st.SearchStrategy[list[Check]]:
    """Evidence of checks that fit into *profile*."""
    rows = [e.of("x") if isinstance(e, Family) else e for e in profile.rows]
    return st.lists(
        st.builds(
            Check,
            check=st.sampled_from([row.name for row in rows]),
            status=st.sampled_from(Status),
            required=st.booleans(),
        ),
        max_size=10,
    )


@EVERY_PROFILE
def test_what_a_profile_requires_fits_into_it(profile: Profile) -> None:
    assert profile.required
    assert all(profile.fits(name) for name in profile.required)
    assert profile.with_dims(["batch"]).required == (*profile.required, "dimension:batch")


@EVERY_PROFILE
def test_all_that_a_profile_requires_is_a_proof(profile: Profile) -> None:
    evidence = [catalog.row(name).passed() for name in profile.required]
    assert verdict(evidence, profile) is Verdict.PROVEN
    for check in evidence:
        assert verdict([c for c in evidence if c is not check], profile) is Verdict.UNPROVEN


@EVERY_PROFILE
@given(st.data())
def test_no_profile_is_talked_into_proven(profile: Profile, data: st.DataObject) -> None:
    evidence = data.draw(emitted(profile))
    if verdict(evidence, profile) is Verdict.PROVEN:
        assert set(profile.required) <= {c.check for c in evidence}
        assert all(c.status is Status.PASSED for c in evidence if c.required or c.check in profile.required)


@EVERY_PROFILE
@given(st.data())
def test_nothing_is_proven_beyond_what_was_recorded(profile: Profile, data: st.DataObject) -> None:
    evidence, recorded = data.draw(emitted(profile)), data.draw(VERDICTS)
    alone, bounded = verdict(evidence, profile), verdict(evidence, profile.at_most(recorded))
    if alone in (Verdict.DIFFERS, Verdict.REFUSED):
        assert bounded is alone
    else:
        assert bounded is (alone if recorded is Verdict.PROVEN else recorded)


@given(emitted(VERIFY), VERDICTS)
def test_verify_goes_by_what_it_was_asked_and_what_was_recorded(
    evidence: list[Check], recorded: Verdict
) -> None:
    evidence += [catalog.row(name).passed() for name in VERIFY.required]
    required = [c for c in evidence if c.required or c.check in VERIFY.required]
    if any(c.status is Status.FAILED for c in required):
        expected = Verdict.DIFFERS
    elif any(c.status is Status.NOT_RUN for c in required) and recorded is Verdict.PROVEN:
        expected = Verdict.UNPROVEN
    else:
        expected = recorded
    assert verdict(evidence, VERIFY.at_most(recorded)) is expected


@given(emitted(COMPARE))
def test_compare_differs_by_its_comparisons_alone(evidence: list[Check]) -> None:
    evidence += [catalog.row(name).passed() for name in COMPARE.required]
    required = [c for c in evidence if c.required or c.check in COMPARE.required]
    wrong = [c for c in required if c.status is Status.FAILED]
    if any(c.check == "compare" or catalog.METRIC.has(c.check) for c in wrong):
        expected = Verdict.DIFFERS
    elif all(c.status is Status.PASSED for c in required):
        expected = Verdict.PROVEN
    else:
        expected = Verdict.UNPROVEN
    assert verdict(evidence, COMPARE) is expected
