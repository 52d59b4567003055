"""The report, and the golden manifests that it and the other views are tested on."""

from __future__ import annotations

import ast
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mnnprep import deps
from mnnprep.bundle import manifest_view as digest
from mnnprep.bundle import report, usage
from mnnprep.bundle.manifest import (
    SCHEMA,
    AgainstLow,
    KnownFault,
    Manifest,
    RuntimeRecord,
    read_manifest,
)
from mnnprep.bundle.report import render
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.errors import RefusedError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import OutputError, Status
from mnnprep.evidence.verdict import PREPARE, Verdict, verdict
from mnnprep.safety.printable import plain
from mnnprep.text import decimal_size
from support.command import answer
from support.manifests import DATA, GOLDEN, golden, hostile


class Page(HTMLParser):
    """What the tests ask of a page: its text, its tags, and that every element is closed in order."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.addresses: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.words.append(data)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_manifests_are_canonical_and_their_verdict_follows(name: str) -> None:
    manifest = golden(name)
    assert manifest.to_bytes() == (DATA / f"manifest-{name}.json").read_bytes()
    assert manifest.schema == SCHEMA
    assert verdict(manifest.evidence, PREPARE.with_dims(manifest.signature.dims)) is manifest.verdict
    assert manifest.verdict.value == name


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_manifests_are_read_from_a_bundle(name: str, tmp_path: Path) -> None:
    shutil.copy(DATA / f"manifest-{name}.json", tmp_path / "manifest.json")
    assert read_manifest(tmp_path) == golden(name)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_page_is_one_deterministic_self_contained_document(name: str) -> None:
    html = render(golden(name))
    assert html == render(golden(name))
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(page.tags)
    assert page.addresses == []
    assert "http" not in html.replace("http-equiv", "")
    assert "url(" not in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


@pytest.mark.parametrize("name", GOLDEN)
def test_the_page_says_everything_the_manifest_does(name: str) -> None:
    manifest = golden(name)
    text = Page(render(manifest)).text
    wanted = [name, digest.meaning(manifest), "mnnprep verify DIR"]
    wanted += [c.check for c in manifest.evidence] + [c.reason for c in manifest.evidence]
    wanted += [a.reason for a in manifest.artifact.attempts] + [
        n for a in manifest.artifact.attempts for n in a.notes
    ]
    wanted += (
        [f.path for f in manifest.files]
        + [f.sha256 for f in manifest.files]
        + [f.sha256 for f in manifest.source.files]
    )
    wanted += [c.origin for c in manifest.cases] + [f"{k} {v}" for k, v in manifest.tools.items()]
    wanted += [t.mnn_name for t in (*manifest.signature.inputs, *manifest.signature.outputs)]
    assert [w for w in wanted if w not in text] == []


def test_what_stands_in_the_way_comes_first() -> None:
    text = Page(render(golden("differs"))).text
    way, signature = text.index("What stands in the way"), text.index("Signature")
    assert way < text.index("2 of 2 outputs differ in case 5") < signature
    assert way < text.index("mnnprep bisect") < signature
    assert "What stands in the way" not in Page(render(golden("proven"))).text


def test_not_run_is_never_shown_as_passed() -> None:
    text = Page(render(golden("unproven"))).text
    assert re.search(r"– not run mnn_convert", text)
    assert re.search(r"every output MNN – not run", text)
    assert "in an app" not in text


def test_a_claim_that_the_evidence_does_not_bear_is_disputed() -> None:
    forged = msgspec.structs.replace(golden("differs"), verdict=Verdict.PROVEN)
    text = Page(render(forged)).text
    assert "The manifest claims “proven”, but the evidence in it gives “differs”" in text
    assert "do not ship" in text


def test_a_missing_check_is_shown() -> None:
    manifest = golden("proven")
    without = msgspec.structs.replace(
        manifest, evidence=[c for c in manifest.evidence if c.check != "weights"]
    )
    text = Page(render(without)).text
    assert "the evidence does not hold this check" in text
    assert "1 missing" in text


@pytest.mark.parametrize("name", GOLDEN)
def test_hostile_names_stay_text(name: str) -> None:
    html = render(msgspec.convert(hostile(msgspec.to_builtins(golden(name))), Manifest))
    page = Page(html)
    assert "script" not in page.tags
    assert "<script" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "{{ 7*7 }}" in page.text


def test_without_jinja2_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deps, "installed", lambda module: module != "jinja2")
    report._template.cache_clear()
    with pytest.raises(RefusedError) as error:
        render(golden("proven"))
    assert error.value.next == "pip install 'mnnprep[report]'"


def test_worst_errors_take_each_figure_at_its_worst() -> None:
    outputs = [
        OutputError("y", 0, max_abs=1.0, max_rel=0.1, cosine=0.9, sqnr_db=20.0, excess=0.5),
        OutputError("y", 1, max_abs=0.5, max_rel=0.2, cosine=0.8, sqnr_db=None, excess=0.7),
        OutputError("z", 0, problem="shape [2], but the reference has [3]"),
    ]
    y, z = digest.worst_errors([catalog.MNN_COMPARE.passed(outputs=outputs), catalog.VACUITY.failed("no")])
    assert (y.output, y.stage, y.case, y.max_abs, y.max_rel, y.cosine, y.sqnr_db, y.excess) == (
        "y",
        "MNN",
        1,
        1.0,
        0.2,
        0.8,
        20.0,
        0.7,
    )
    assert y.comparable
    assert not z.comparable
    assert z.problem.startswith("shape")


def test_a_size_is_not_blamed_for_another_dimension() -> None:
    sizes = {(s.dim, s.size): s for s in digest.sizes_tried(golden("differs"))}
    batch, sequence = sizes["batch", 2].mnn, sizes["sequence", 128].mnn
    assert batch is not None
    assert sequence is not None
    assert (batch.excess or 0) < 1 < (sequence.excess or 0)
    assert not sizes["sequence", 128].proven


def test_obstacles_put_what_failed_first() -> None:
    found = digest.obstacles(golden("refused").evidence, digest.required_names(golden("refused")))
    assert [(o.check, o.status) for o in found] == [
        ("mnn_convert", Status.FAILED),
        ("mnn_compare", Status.NOT_RUN),
    ]
    assert digest.obstacles(golden("proven").evidence, digest.required_names(golden("proven"))) == []


def test_obstacles_of_another_question_than_the_first_proof() -> None:
    """What `verify` asks: only its own checks count, and one that is not required stands in nobody's way."""
    evidence = [
        catalog.HASHES.passed(),
        catalog.ARTIFACT_COMPARE.not_run("not installed", required=False),
        catalog.MNN_COMPARE.failed("off"),
    ]
    assert [o.check for o in digest.obstacles(evidence)] == ["mnn_compare"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (None, "–"),
        (17, "17"),
        (1.234567, "1.235"),
        (3.4e-7, "3.4e-7"),
        (1e-4, "1e-4"),
        (1e300, "1e300"),
        (-0.5, "-0.5"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert digest.number(value) == text


def test_small_texts() -> None:
    assert [digest.share(x) for x in (None, 0.0, 4e-4, 0.052, 0.5, 1.0, 15.23)] == [
        "–",
        "0 %",
        "< 0.1 %",
        "5.2 %",
        "50 %",
        "100 %",
        "15.2× too far",
    ]
    assert [decimal_size(x) for x in (0, 812, 3_412_345, 2_500_000_000)] == [
        "0 B",
        "812 B",
        "3.41 MB",
        "2.5 GB",
    ]
    assert [digest.cosine_text(x) for x in (None, 1.0, 0.5, 1 - 2.0e-9)] == ["–", "1", "0.5000", "1 − 2e-9"]
    assert plain("a\x00b\n\u202ec\U000e0001") == "a\\x00b\n\\u202ec\\U000e0001"
    assert "50 dB" in digest.tolerance_words(Tolerance(sqnr_db=50.0))[0]
    assert "1e-4" in digest.tolerance_words(Tolerance())[0]


def test_the_python_of_a_hostile_signature_compiles() -> None:
    manifest = msgspec.convert(hostile(msgspec.to_builtins(golden("differs"))), Manifest)
    compile(usage.python_snippet(manifest), "snippet", "exec")
    cpp = usage.cpp_snippet(manifest)
    assert "\\033[31m" in cpp
    assert all(line.count('"') % 2 == 0 for line in cpp.replace('\\"', "").splitlines())


def test_the_python_runs_in_mnn(tmp_path: Path) -> None:
    """Names with / and : and an int32 input, in MNN, from the text of the report."""
    pytest.importorskip("onnx")
    from evaluation.nets.mnn_models import convert, small_net

    small_net(tmp_path / "model.onnx")
    convert(tmp_path, "--modelFile", "model.onnx", "--MNNModel", "model.mnn")
    data = msgspec.to_builtins(golden("proven"))
    tensor = data["signature"]["inputs"][0]
    data["signature"]["inputs"] = [tensor | {"name": "net/x:0", "mnn_name": "net/x:0", "shape": ["batch", 3]}]
    data["signature"]["outputs"] = [
        tensor | {"name": "net/y:0", "mnn_name": "net/y:0", "shape": ["batch", 3]}
    ]
    code = usage.python_snippet(msgspec.convert(data, Manifest)) + "\nanswer = output_net_y_0.tolist()\n"
    assert np.array_equal(answer(code, cwd=tmp_path), np.full((2, 3), 0.5))


def test_settings_that_the_proof_needs_are_said_first_and_set_in_the_snippets() -> None:
    manifest = golden("proven")
    evidence = [
        (
            msgspec.structs.replace(c, numbers={**c.numbers, "excess_at_default_settings": 14.6})
            if c.check == "mnn_compare"
            else c
        )
        for c in manifest.evidence
    ]
    hinted = msgspec.structs.replace(
        manifest, runtime=RuntimeRecord(hints={"WINOGRAD_MEMORY_LEVEL": 1}), evidence=evidence
    )
    assert "must set" not in digest.meaning(manifest)
    assert (
        "The app must set WINOGRAD_MEMORY_LEVEL=1 in MNN's runtime; with MNN's defaults its error is 14.6"
        " times the tolerance." in digest.meaning(hinted)
    )
    assert "runtime.set_hint(3, 1)" in usage.python_snippet(hinted)
    assert "runtime->setHint(MNN::Interpreter::WINOGRAD_MEMORY_LEVEL, 1);" in usage.cpp_snippet(hinted)


LSTM = KnownFault(rule="recurrent-sequence", node="LSTM a\nb*/ \\", hazard="MNN repeats the first steps")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            AgainstLow(known=[LSTM]),
            ("prepared with --target arm64:low", "MNN repeats the first steps: LSTM a"),
        ),
        (AgainstLow(targets=["arm64:low"]), ("with low its outputs are wrong (measured on arm64:low)",)),
    ],
)
def test_what_speaks_against_low_is_said_first_and_in_the_snippets(
    found: AgainstLow, words: tuple[str, ...]
) -> None:
    manifest = golden("proven")
    warned = msgspec.structs.replace(manifest, runtime=RuntimeRecord(against_low=found))
    assert "precision" not in digest.meaning(manifest)
    assert "precision=" not in usage.python_snippet(manifest)
    told = digest.meaning(warned)
    assert "The app must set precision=high or normal" in told
    assert all(word in told for word in words)
    assert "\n" not in told
    assert "The app must set precision=high or normal" in report.render(warned)
    for snippet, mark in ((usage.python_snippet(warned), "# "), (usage.cpp_snippet(warned), "// ")):
        lines = snippet.splitlines()
        first = next(n for n, line in enumerate(lines) if "The app must set" in line)
        comment = [line.removeprefix(mark) for line in lines[first:] if line.startswith(mark)]
        assert " ".join(comment).startswith("The app must set precision=high or normal")
        assert not any(line.endswith("\\") for line in lines)
    ast.parse(usage.python_snippet(warned))


def test_what_could_not_be_looked_for_is_said() -> None:
    unknown = RuntimeRecord(against_low=AgainstLow(unknown="ran out of memory"))
    told = digest.meaning(msgspec.structs.replace(golden("proven"), runtime=unknown))
    assert told.endswith("Whether it is right at precision low could not be told: ran out of memory.")


def test_the_page_does_not_hang_on_the_order_of_names() -> None:
    """A manifest's file has them sorted; `verify` compares the page with that of the file."""
    manifest = golden("proven")
    dims = {name: next(iter(manifest.signature.dims.values())) for name in ("z", "a")}
    mixed = msgspec.structs.replace(
        manifest, signature=msgspec.structs.replace(manifest.signature, dims=dims)
    )
    stored = msgspec.json.decode(mixed.to_bytes(), type=Manifest)
    assert list(stored.signature.dims) == ["a", "z"]
    assert report.page_bytes(mixed) == report.page_bytes(stored)
