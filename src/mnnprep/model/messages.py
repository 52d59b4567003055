"""The messages across the process boundary: jobs and replies of the steps every format has.

A step is a function ``step(job: SomeJob) -> SomeReply`` that runs in a worker; both are msgspec
structs, written as JSON.  Arrays and models cross as files, named by :class:`FileRef`.
"""

from __future__ import annotations

import msgspec

from mnnprep.evidence.check import Check
from mnnprep.model.constraints import Constraint
from mnnprep.model.files import FileRef
from mnnprep.model.half import HalfType
from mnnprep.model.preprocess import Recipe
from mnnprep.model.reach import LinkedPath, ReadPath, WritePath
from mnnprep.model.signature import Dim, Signature, TensorSpec
from mnnprep.model.steps import Quantized, Step


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The source as the user has it.

    ``kind`` is a name in `formats.registry.SOURCE_KINDS`; ``path`` a file, a directory or a factory;
    ``weights`` a checkpoint for a factory, or the second file of a format that has two.

    ``search_path`` is where the user's own modules are found (never given to a step that runs an artifact).
    ``signature`` names the one to take of a source that has several, ``outputs`` the ends of a graph that
    does not say them.  ``lean``: its weights are large, so they are mapped from the checkpoint in place of
    being copied, and no second copy of them (in float64, or to compare with) is made.  ``beside`` are the
    files that ``path`` refers to.
    """

    kind: str
    path: ReadPath
    weights: ReadPath = ""
    factory_args: dict[str, str] = msgspec.field(default_factory=dict)
    search_path: list[str] = msgspec.field(default_factory=list)
    trust: bool = False
    signature: str = ""
    outputs: tuple[str, ...] = ()
    lean: bool = False
    beside: list[ReadPath] = msgspec.field(default_factory=list)

    @property
    def runs_own_code(self) -> bool:
        """Whether code of the user's runs when this is loaded.

        That is a factory's, or what a trusted file holds.
        """
        return self.trust or bool(self.search_path)


ORIGIN = "samples "  # what the origin of a case from a sample begins with, in the manifest too
DEFAULT_SAMPLE_LIMIT = 64


class InputSpecs(msgspec.Struct, frozen=True, kw_only=True):
    """The user's declarations about the inputs.

    ``samples`` is a path (`reference/samples.py`), of whose files at most ``sample_limit`` are taken;
    ``preprocess`` says how an image or a sound becomes an input, one of each at most.
    """

    inputs: tuple[TensorSpec, ...] = ()
    dims: tuple[Dim, ...] = ()
    ranges: dict[str, tuple[float, float]] = msgspec.field(default_factory=dict)
    samples: LinkedPath = ""
    seed: int = 0
    preprocess: tuple[Recipe, ...] = ()
    sample_limit: int = DEFAULT_SAMPLE_LIMIT


class CaseFile(msgspec.Struct, frozen=True, kw_only=True):
    """One case on disk: an npz of ``inputs/NAME`` and, once the reference ran, ``outputs/NAME``.

    ``origin`` says where the inputs came from (``seed 0``, ``samples a.npz``); ``dims`` the size of
    every dynamic dimension.
    """

    index: int
    origin: str
    dims: dict[str, int]
    file: FileRef


class LoadJob(msgspec.Struct, frozen=True, kw_only=True):
    """Load ``source`` into the worker, so that the steps after it find it there.

    ``samples`` are what they will read.
    """

    source: Source
    samples: LinkedPath = ""


class SourceLoaded(msgspec.Struct, frozen=True):
    """``threads`` are those of the process afterwards: more than one, and it must not be forked."""

    threads: int


class SurveyJob(msgspec.Struct, frozen=True, kw_only=True):
    """Survey ``source`` with the inputs that ``wants`` declares; write the cases to ``directory``."""

    source: Source
    wants: InputSpecs
    directory: WritePath


class RefusedPair(msgspec.Struct, frozen=True):
    """The ``sizes`` of two dimensions, by name, that the source refuses together, with its words."""

    sizes: dict[str, int]
    reason: str

    def __str__(self) -> str:
        return f"{', '.join(f'{name}={size}' for name, size in self.sizes.items())}: {self.reason}"


class Sweep(msgspec.Struct, kw_only=True):
    """The dynamic dimensions, by name.

    It has the ``sizes`` for which a case exists, those that the source itself ``refused``, with its words,
    and the constraint that explains it; if that leaves out part of a declared range, the range that ``fits``;
    the ``sums`` of other dimensions that some have to be (``past+new``), and the pairs of sizes that it
    refused together.
    """

    sizes: dict[str, list[int]] = msgspec.field(default_factory=dict)
    refused: dict[str, dict[int, str]] = msgspec.field(default_factory=dict)
    constraints: dict[str, Constraint] = msgspec.field(default_factory=dict)
    fits: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    sums: dict[str, str] = msgspec.field(default_factory=dict)
    refused_pairs: list[RefusedPair] = msgspec.field(default_factory=list)


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """The untouched source's own account: signature, cases with reference outputs, checks.

    ``noise`` is the noise floor of every floating output in each case, as
    :class:`~mnnprep.comparison.tolerance.Tolerance` has it; what was not measured is filled in
    when a comparison asks for it; ``steps`` are those of the outputs of a net that rounds while it computes,
    ``quantized`` says what the integers of its inputs and outputs stand for;
    ``exempt`` names the outputs that don't depend on the values of any
    input, by design, with the reason; ``weights`` is an npz of the source's tensors by name (``used/NAME``
    and ``other/NAME``), or None when the source's own file says it all, or its worker is asked; ``decides``
    names the places of the source where a value decides what is computed, ``one_sided`` those where every
    input tried decided alike; ``sweep`` is what became of the dynamic dimensions; ``third_opinion`` holds the
    same cases with the outputs of a third runtime, to say who stands alone if the reference and MNN disagree.
    """

    signature: Signature
    cases: list[CaseFile]
    checks: list[Check]
    noise: dict[str, list[float | None] | float]
    steps: dict[str, Step] = msgspec.field(default_factory=dict)
    quantized: dict[str, Quantized] = msgspec.field(default_factory=dict)
    exempt: dict[str, str] = msgspec.field(default_factory=dict)
    weights: FileRef | None = None
    decides: list[str] = msgspec.field(default_factory=list)
    one_sided: list[str] = msgspec.field(default_factory=list)
    sweep: Sweep = msgspec.field(default_factory=Sweep)
    parameters: int = 0
    notes: list[str] = msgspec.field(default_factory=list)
    third_opinion: list[CaseFile] = msgspec.field(default_factory=list)


class ExportJob(msgspec.Struct, frozen=True, kw_only=True):
    """Make an artifact of ``source`` by ``method`` in ``directory`` (empty, the step's own).

    ``tflite_precision`` is that of a TFLite artifact: empty (the source's), ``float16`` or ``int8``.
    ``places``: each node keeps where in the user's code it came from, if the exporter says; such a file is
    for a diagnosis, not for a bundle. ``at`` are sizes of dimensions to export at, in place of the survey's
    first.
    """

    source: Source
    wants: InputSpecs
    method: str
    opset: int
    directory: WritePath
    tflite_precision: str = ""
    places: bool = False
    at: dict[str, int] = msgspec.field(default_factory=dict)


class OpsetRefused(msgspec.Struct, frozen=True):
    """An opset at which an operator of the model has no form, and the exporter's words for it."""

    opset: int
    reason: str


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact. ``files[0]`` is the model; ``opset`` is read from it (0 if the format has none).

    ``refused_opsets`` are those tried before it that an operator of the model does not have;
    ``operators`` the operators that MNN's frontend will meet, if it publishes no other way to ask;
    ``sqnr_db`` is what an artifact of other numbers than the source's (float16, int8, dequantized) must
    reach; ``decided`` the places of the source whose decisions on values were frozen when it was made;
    ``form`` a digest of an ONNX graph's nodes, which two opsets may have in common.
    """

    format: str
    opset: int
    files: list[FileRef]
    checks: list[Check] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)
    refused_opsets: list[OpsetRefused] = msgspec.field(default_factory=list)
    operators: list[str] = msgspec.field(default_factory=list)
    sqnr_db: float | None = None
    decided: list[str] = msgspec.field(default_factory=list)
    form: str = ""


class CoverageJob(msgspec.Struct, frozen=True, kw_only=True):
    """See which nodes of ``model`` the ``cases`` run.

    ``fixed`` are the inputs that were declared to take one value only.
    """

    model: ReadPath
    cases: list[CaseFile]
    directory: WritePath
    fixed: list[str] = msgspec.field(default_factory=list)


class DiffJob(msgspec.Struct, frozen=True, kw_only=True):
    """Compare ``first`` with ``second``, two exports of one source at other sizes."""

    first: ReadPath
    second: ReadPath


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes, in the graph's order, that compute otherwise in the two.

    Each has its operator and name, what differs, and its place in the code.
    """

    nodes: list[str]


class WeightsJob(msgspec.Struct, frozen=True, kw_only=True):
    """Compare the weights in ``model`` with ``source`` or with those in ``source_model``.

    ``source`` is an npz as in `Survey.weights`; ``source_model`` is a file of the same format, which refers
    to the files ``beside``.
    """

    model: ReadPath
    source: ReadPath = ""
    source_model: ReadPath = ""
    beside: list[ReadPath] = msgspec.field(default_factory=list)


class OwnWeightsJob(msgspec.Struct, frozen=True, kw_only=True):
    """Compare the weights in ``model`` with those that reach an output of ``source`` in ``cases``.

    ``model`` is an artifact of ``format``; the comparison runs in the worker that has ``source`` loaded.
    """

    model: ReadPath
    format: str
    source: Source
    cases: list[CaseFile]


class TextJob(msgspec.Struct, frozen=True, kw_only=True):
    """Write the MNN model ``source`` as JSON to ``target``, or the other way round.

    The files ``beside`` go with it.
    """

    source: ReadPath
    target: WritePath
    from_json: bool
    beside: list[ReadPath] = msgspec.field(default_factory=list)


class TextWritten(msgspec.Struct, frozen=True):
    """The file that was written."""

    file: FileRef


class CutJob(msgspec.Struct, frozen=True, kw_only=True):
    """Write the part of ``model`` that the ``nodes`` make to ``directory``.

    The nodes are numbers of a :class:`Cut`; without them, only list the nodes.
    """

    model: ReadPath
    directory: WritePath
    nodes: list[int] = msgspec.field(default_factory=list)


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """The part, or None if only a list was asked for.

    ``labels`` are the nodes that an input reaches, in an order in which each comes after what it needs: its
    operator and its name; ``needs[i]`` are the numbers of those that node i takes something from.  What is
    computed from constants alone comes along with what uses it.
    """

    file: FileRef | None
    labels: list[str]
    needs: list[list[int]]


class LocateJob(msgspec.Struct, frozen=True, kw_only=True):
    """Find the nodes of these ``operators`` in ``model``.

    Without ``operators``, those of others than the ``known`` ones.
    """

    model: ReadPath
    operators: list[str] = msgspec.field(default_factory=list)
    known: list[str] = msgspec.field(default_factory=list)


class Located(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes found, each as an engineer looks for it: its operator and its name."""

    nodes: list[str]


class RunJob(msgspec.Struct, frozen=True, kw_only=True):
    """Run the model file ``model`` on ``cases``; write the outputs of case i to ``directory/i.npz``.

    ``signature`` gives the names in the model; ``fresh`` loads the model anew for every case (else one load
    serves all, so that changes of shape are exercised); ``forbid`` are top-level modules of the user's that
    must not be importable; ``trust``: its operators may have side effects.
    """

    model: ReadPath
    cases: list[CaseFile]
    signature: Signature
    directory: WritePath
    fresh: bool = False
    forbid: list[str] = msgspec.field(default_factory=list)
    trust: bool = False


class HalfJob(RunJob, frozen=True, kw_only=True):
    """Run ``model`` as :class:`RunJob` does, with its numbers rounded to ``rounding``.

    Inputs, weights and the results of its operators are rounded; within an operator it computes in float32.
    """

    rounding: HalfType


class ReplayJob(msgspec.Struct, frozen=True, kw_only=True):
    """Run ``source``, untouched and in its own framework, on the inputs of ``cases``.

    They are matched to its own by name, else by dtype and shape, else by place.

    With ``noise``, the outputs are in place of the numbers how far the source's own rounding moves each
    floating output in each of its own cases.
    """

    source: Source
    wants: InputSpecs
    cases: list[CaseFile]
    signature: Signature
    directory: WritePath
    noise: bool = False


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """A replay's outputs: ``ran`` holds them by the source's own names.

    ``inputs`` maps the cases' input names to the source's.
    """

    ran: RunResult
    inputs: dict[str, str]


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """``outputs[i]`` is the npz of case i (plain output names).

    ``errors`` maps a case's index to why it failed.

    ``narrowed`` maps an output to the dtype that the runtime gives in place of the signature's.
    """

    outputs: dict[str, FileRef] = msgspec.field(default_factory=dict)
    errors: dict[str, str] = msgspec.field(default_factory=dict)
    narrowed: dict[str, str] = msgspec.field(default_factory=dict)
    narrowed_inputs: dict[str, str] = msgspec.field(default_factory=dict)
