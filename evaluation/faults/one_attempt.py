"""One attempt of ``prepare`` on a net, as it is or with a fault in it: the stages alone.

The workers are shared by all attempts, and a net is surveyed and exported once for all its faults.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from msgspec.structs import replace as changed

from mnnprep.attempt.builder import ArtifactBuilder, start_export
from mnnprep.attempt.results import AttemptResult, Made
from mnnprep.attempt.verifier import Verifier
from mnnprep.commands.resolve import resolve
from mnnprep.evidence.check import Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.backend import ExportRecipe, SourceSteps
from mnnprep.formats.registry import steps_of
from mnnprep.model.files import file_ref
from mnnprep.model.messages import Exported, Source, Survey, SurveyJob
from mnnprep.model.request import Limits, Request
from mnnprep.model.searching import ORIGIN_SEARCHED
from mnnprep.workers.host import Reply
from mnnprep.workers.pool import Workers


@dataclass(frozen=True)
class Prepared:
    """A net that was surveyed and exported."""

    request: Request
    source: Source
    steps: SourceSteps
    recipe: ExportRecipe
    survey: Survey
    exported: Exported


class Bench:
    """Use as a context manager: it holds the workers."""

    def __enter__(self) -> Bench:
        self.workers = Workers(Limits())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.workers.__exit__(kind, error, trace)

    def prepared(self, request: Request) -> Prepared:
        """Survey and export the source of *request* by its first recipe, with the repairs that it needs.

        Raises:
            ValueError: it is not proven as it is.
        """
        source = resolve(request)
        steps = steps_of(source.kind)
        recipe = steps.attempts(request.to, request.method, request.opset)[0]
        survey = self.workers.run(
            steps.survey,
            SurveyJob(source=source, wants=request.wants, directory=str(self.workers.directory("survey"))),
        )
        exported = start_export(self.workers, steps, source, request.wants, recipe).result().value
        net = Prepared(request, source, steps, recipe, survey, exported)
        verifier, made = self._made(net, exported)
        result = verifier.verify(made)
        if result.repairable and (repaired := verifier.repair(result)) is not None:
            result = repaired
            rules = tuple(repair.rule for repair in result.repairs)
            net = replace(net, request=changed(request, repairs=rules))
        if result.verdict is not Verdict.PROVEN:
            raise ValueError(result.reason)
        return net

    def attempt(
        self, net: Prepared, *, artifact: Path | None = None, converted: Path | None = None
    ) -> AttemptResult:
        """Verify a net with *artifact* for its export, or *converted* for what MNN is given."""
        verifier, made = self._made(net, with_file(net.exported, artifact))
        if converted is not None:
            _, spoiled = self._made(net, with_file(net.exported, converted))
            made = replace(made, converting=spoiled.converting)
        return verifier.verify(made)

    def _made(self, net: Prepared, exported: Exported) -> tuple[Verifier, Made]:
        builder = ArtifactBuilder(self.workers, net.request, lambda _: None)
        done: Future[Reply[Exported]] = Future()
        done.set_result(Reply(exported, 0.0, 0))
        made = builder.build(net.recipe, done)
        if not isinstance(made, Made):
            raise ValueError(made.reason)
        verifier = Verifier(
            net.survey, net.source, builder, steps=net.steps, private=[], wants=net.request.wants
        )
        return verifier, made


def with_file(exported: Exported, file: Path | None) -> Exported:
    """*exported* with *file* in place of its own, if there is one."""
    return exported if file is None else changed(exported, files=[file_ref(file)])


def failed(result: AttemptResult) -> list[str]:
    """The required checks that failed."""
    return [c.check for c in result.checks if c.required and c.status is Status.FAILED]


def by_search(result: AttemptResult) -> bool:
    """Whether a search found the case that fails."""
    assert result.survey is not None
    return any(case.origin.startswith(ORIGIN_SEARCHED) for case in result.survey.cases)
