"""The only knowledge of a framework outside its package: one frozen descriptor, light to import.

A descriptor names functions and does not import them (:class:`Deferred`, `workers.step.Step`); what it holds
itself is data, and the function that recognises its files.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

from mnnprep.errors import UsageError
from mnnprep.evidence.check import Check
from mnnprep.formats.inspection import Findings
from mnnprep.formats.streaming import Attached, AttachJob, CompareJob, Skeleton
from mnnprep.model.messages import (
    Cut,
    CutJob,
    Exported,
    ExportJob,
    HalfJob,
    InputSpecs,
    LoadJob,
    Located,
    LocateJob,
    OwnWeightsJob,
    Replayed,
    ReplayJob,
    RunJob,
    RunResult,
    SourceLoaded,
    Survey,
    SurveyJob,
    WeightsJob,
)
from mnnprep.model.searching import Searched, SearchJob
from mnnprep.workers.step import Step, Worker

if TYPE_CHECKING:
    from mnnprep.formats.content import Content

P = ParamSpec("P")
R = TypeVar("R")

OPSETS = (13, 17, 11, 15, 18)  # the order of the search, after the opset that was asked for


@dataclass(frozen=True)
class Deferred(Generic[P, R]):
    """A function whose module is imported when it is first called."""

    module: str
    function: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Import the module and call the function."""
        function: Callable[P, R] = getattr(importlib.import_module(self.module), self.function)
        return function(*args, **kwargs)


class Role(Enum):
    """The role of a source's kind: a model, code that gives one, weights without one, an object in memory."""

    MODEL = "model"
    FACTORY = "factory"
    WEIGHTS = "weights"
    LIVE = "live"


class Option(Enum):
    """A word of the command line that only some kinds of source take."""

    SIGNATURE = "--signature"
    OUTPUTS = "--outputs"
    STATE_DICT = "--weights"  # beside a factory


@dataclass(frozen=True, kw_only=True)
class ArtifactFormat:
    """A format of artifact: its runtime's steps, and MNN's frontend for it.

    ``runtime`` is the module that runs it. ``packaged``: the converter in the MNN package has that frontend.
    ``locate`` finds the nodes of an operator, ``cut`` writes a part of the graph. ``second_file``: the
    converter takes the artifact's second file beside the first. ``silent``: the frontend does not name an
    operator that it refuses, but its list of operators has the names that the file has. ``by_rules``: repairs
    rewrite it. Without ``weights``, the steps of its sources compare them. ``half`` runs it with its numbers
    rounded to half precision, which shows what the type costs at best. ``search`` finds inputs that take its
    values further. ``packages`` are modules whose
    versions a bundle of it records.
    """

    name: str
    run: Step[RunJob, RunResult]
    weights: Step[WeightsJob, Check] | None
    frontend: str
    runtime: str
    packaged: bool = True
    locate: Step[LocateJob, Located] | None = None
    cut: Step[CutJob, Cut] | None = None
    half: Step[HalfJob, RunResult] | None = None
    search: Step[SearchJob, Searched] | None = None
    second_file: bool = False
    silent: bool = False
    by_rules: bool = False
    packages: tuple[str, ...] = ()


Sizes = tuple[tuple[str, int], ...]  # of dimensions, by name


@dataclass(frozen=True)
class ExportRecipe:
    """One method of making an artifact, with its options.

    ``traces``: a decision on data is frozen into the artifact; ``for_decisions``: it differs from the methods
    before it only for a source that decides on data, or where they froze a size; ``precisions``: what it can
    make beside the source's own; ``searches``: it stands for one attempt at each of ``OPSETS``, for a source
    that MNN took at no opset before. ``packages`` are modules whose versions a bundle made so records.
    ``sqnr_db`` is the least SQNR at which an artifact made so may be held to a source that is not floating.
    ``at`` are the sizes to export at, in place of those that the survey began with: a branch on a size is
    frozen as it is taken there.
    """

    method: str
    target: str
    opset: int = 0
    traces: bool = False
    precisions: tuple[str, ...] = ()
    for_decisions: bool = False
    searches: bool = False
    packages: tuple[str, ...] = ()
    sqnr_db: float | None = None
    at: Sizes = ()


@dataclass(frozen=True)
class Streaming:
    """How a source is exported without its weights, which then come from the checkpoint."""

    recipe: ExportRecipe
    export: Step[ExportJob, Skeleton]
    attach: Step[AttachJob, Attached]
    compare: Step[CompareJob, Check]


@dataclass(frozen=True, kw_only=True)
class SourceSteps:
    """The steps of a kind of source, and its methods in the order in which they are tried.

    ``load`` loads it once for the others, if that is slow; ``weights_in_file``: the source is its own
    record of weights; ``weights`` compares an artifact's weights with the source's if that is loaded, in
    place of the artifact's own step; ``replay`` runs it on another source's cases.
    """

    survey: Step[SurveyJob, Survey]
    export: Step[ExportJob, Exported]
    recipes: tuple[ExportRecipe, ...]
    load: Step[LoadJob, SourceLoaded] | None = None
    weights: Step[OwnWeightsJob, Check] | None = None
    replay: Step[ReplayJob, Replayed] | None = None
    weights_in_file: bool = False
    streaming: Streaming | None = None

    @property
    def worker(self) -> Worker:
        """The worker that holds the source's framework."""
        return self.survey.worker

    def targets(self) -> tuple[str, ...]:
        """The formats of its artifacts, the default first."""
        return tuple(dict.fromkeys(recipe.target for recipe in self.recipes))

    def attempts(self, to: str, method: str, opset: int, tflite_precision: str = "") -> list[ExportRecipe]:
        """The recipes in order for ``--to`` and ``--method`` (``auto``: all), opset search from *opset*.

        Raises:
            UsageError: this kind of source does not have the target or the method.
        """
        if to and to not in self.targets():
            raise UsageError(
                f"this source can't be prepared to {to}",
                seen=f"--to {to}",
                next="choose " + " or ".join(self.targets()),
            )
        chosen = [r for r in self.recipes if (not to or r.target == to) and method in ("auto", r.method)]
        if not chosen:
            methods = dict.fromkeys(r.method for r in self.recipes if not to or r.target == to)
            raise UsageError(
                f"this source has no method {method}" + (f" to {to}" if to else ""),
                seen=f"--method {method}",
                next="choose auto, " + ", ".join(methods),
            )
        if tflite_precision:
            chosen = [r for r in chosen if tflite_precision in r.precisions]
            if not chosen:
                raise UsageError(
                    f"this source can't be prepared in {tflite_precision}",
                    seen=f"--precision {tflite_precision}",
                    next="prepare a TensorFlow source --to tflite",
                )
        if method != "auto":
            chosen = [replace(chosen[0], for_decisions=False, searches=False)]
        found: list[ExportRecipe] = []
        for recipe in chosen:
            if recipe.searches:
                found += [replace(recipe, opset=at) for at in dict.fromkeys((opset, *OPSETS))]
            else:
                found.append(replace(recipe, opset=max(opset, recipe.opset) if recipe.opset else 0))
        return found


@dataclass(frozen=True, kw_only=True)
class SourceKind:
    """One kind of source.

    ``name`` stands in manifests and in messages between processes; ``suffixes`` are the usual ends of the
    file's name (content decides first). Without ``steps`` it is recognised and not prepared. ``options`` are
    those that go with it. ``runs_code``: loading it executes code that the file names, so that it needs
    ``--trust``; ``judge`` raises RefusedError for a file that would do more than compute. ``complete`` finds
    and checks the second file of a pair: ``(path, kind, other, wants) -> (kind, path, weights)``.
    ``refers_to`` lists the files that the one at a path refers to; ``require_loadable`` refuses what no
    framework loads. ``inspect`` reads the file; ``operators`` counts the operators that MNN's ``frontend``
    must list, and ``side_effects`` are those of them that may do more than compute.
    """

    name: str
    title: str
    suffixes: tuple[str, ...] = ()
    role: Role = Role.MODEL
    steps: SourceSteps | None = None
    options: frozenset[Option] = frozenset()
    runs_code: bool = False
    judge: Deferred[[Path, str], None] | None = None
    complete: Deferred[[str, str, str, InputSpecs], tuple[str, str, str]] | None = None
    refers_to: Deferred[[Path], list[str]] | None = None
    require_loadable: Deferred[[Path], None] | None = None
    inspect: Deferred[[Path, str], Findings] | None = None
    operators: Deferred[[Path], dict[str, int]] | None = None
    side_effects: Deferred[[Mapping[str, int]], list[str]] | None = None
    frontend: str = ""
    by_rules: bool = False

    @property
    def prepared(self) -> bool:
        """Whether this version prepares it (else it is recognised only)."""
        return self.steps is not None


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One framework.

    ``sniff`` gives the kind of a file that is one of its own, else nothing, and raises RefusedError for one
    of its own that is damaged; ``sniff_directory`` the same for a directory, given its path and the names in
    it. ``packages`` are the modules that it needs, in the order to install them, and ``extra`` is the extra
    of mnnprep that brings them, empty if the core has them; ``recorded`` are further modules whose
    versions a bundle records. A factory whose file imports one of ``factory_imports`` is of the kind
    ``factory``. ``live`` is the module that takes a live object for the time of a run.
    """

    framework: str
    kinds: tuple[SourceKind, ...]
    artifacts: tuple[ArtifactFormat, ...] = ()
    sniff: Callable[[Content], str]
    sniff_directory: Callable[[Path, Sequence[str]], str] | None = None
    packages: tuple[str, ...] = ()
    recorded: tuple[str, ...] = ()
    extra: str = ""
    factory: str = ""
    factory_imports: frozenset[str] = frozenset()
    live: str = ""
