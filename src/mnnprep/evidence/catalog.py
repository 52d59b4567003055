"""The catalogue: every check there is, one row a check. Whatever emits a check makes it from its row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from mnnprep.evidence.row import Family, Need, Role, Row

_TRUSTED = "get the bundle from where it was made, or prepare the model again"

INFERENCE_MODE = Row(
    name="inference_mode",
    question="Is every layer in inference mode, with no leftover of training?",
    catches="dropout and batch norms that compute as in training, in the source and in the artifact",
    if_failed="remove the training behaviour from the source at the place named (call eval(), use"
    " training=self.training, keep the BatchNorm statistics)",
    need=Need.ALWAYS,
)
DETERMINISM = Row(
    name="determinism",
    question="Does the source give the same outputs twice for the same inputs?",
    catches="a random operator, or a model that keeps state between calls",
    if_failed="make the random numbers an input of the model, then prepare again",
    role=Role.PROVABILITY,
    need=Need.ALWAYS,
)
SELF_CONTAINED = Row(
    name="self_contained",
    question="Does the artifact run alone, without access to the source or its code?",
    catches="an artifact that needs the source, its code or a file beside it",
    if_failed="move whatever the artifact reaches for into the model, or try another `--method`",
    need=Need.ALWAYS,
)
WEIGHTS = Row(
    name="weights",
    question="Are the artifact's weights the source's weights, value by value?",
    catches="an artifact that does not hold the source's parameters, bit by bit: also a change too small for"
    " the outputs to show",
    if_failed="try another `--method`, and compare the tensors named with the source's",
    need=Need.ALWAYS,
)
REFERENCE = Row(
    name="reference",
    question="Did the untouched source run in its own framework on every case?",
    catches="a source that nothing can be compared with: its framework is missing, or does not run it",
    if_failed="give inputs that the source accepts: `--samples`, `--range` or `--dim`",
    if_not_run="install the source's framework (`mnnprep doctor` says how), then prepare again",
    need=Need.ALWAYS,
)
ARTIFACT_COMPARE = Row(
    name="artifact_compare",
    question="Does the artifact compute what the source computes?",
    catches="an export that computes something else; its first call has other values than the reference's, so"
    " that what a model keeps of its first call shows",
    if_failed="try another `--method` or a higher `--opset`; the attempts say what each of them gave",
    need=Need.ALWAYS,
)
MNN_CONVERT = Row(
    name="mnn_convert",
    question="Did MNN's converter take the artifact and write a model that loads?",
    catches="a converter that refuses, crashes, or says success for nothing",
    if_failed="try another `--method`, `--opset` or `--to`; `mnnprep check` names the operators that MNN does"
    " not take",
    if_not_run="name a converter that has the frontend with `--mnnconvert`, or choose another format with"
    " `--to`",
    if_followed="name a converter that has the frontend with `--mnnconvert`, or resolve what kept the"
    " attempts by ONNX from being proven",
    role=Role.USABILITY,
    need=Need.ALWAYS,
)
MNN_COMPARE = Row(
    name="mnn_compare",
    question="Does MNN compute what the source computes?",
    catches="a converted model that computes something else, or something else each time",
    if_failed="`mnnprep bisect` finds the first node that goes wrong; then try another `--method` or"
    " `--opset`",
    if_not_run="it runs as soon as there is a converted model: resolve mnn_convert first",
    need=Need.ALWAYS,
)
TARGET = Family(
    "target:",
    Row(
        name="target:NAME",
        question="Does MNN on this target compute what the source computes?",
        catches="what another CPU, a lower precision or another version of MNN computes otherwise: overflow"
        " and lost digits in half precision, an operator that an older engine ignores",
        if_failed="`mnnprep bisect BUNDLE --target NAME` finds the first node that goes wrong; set a higher"
        " precision in the app, or ship a newer engine",
        if_not_run="its reason names what to install; `mnnprep target list` says what is here",
    ),
)
VACUITY = Row(
    name="vacuity",
    question="Do the cases tell this model from one that always gives the same answer?",
    catches="inputs that prove nothing: outputs that no input tried moves",
    if_failed="give inputs that move every output: `--samples` with real data, or a wider `--range`",
    role=Role.PROVABILITY,
    need=Need.ALWAYS,
)
DIMENSION = Family(
    "dimension:",
    Row(
        name="dimension:NAME",
        question="Does every size of this dimension that was tried come out right?",
        catches="a size that was frozen while exporting: right at the shape of the export, and nowhere else;"
        " the node that keeps it and your line are named",
        if_failed="fix the dimension with `--input`, or narrow its range with `--dim` to the sizes that"
        " passed",
        if_not_run="give the dimension a range with `--dim NAME=MIN:MAX`, then prepare again",
        if_followed="its sizes are compared as soon as the artifact and MNN's model run: resolve first what"
        " keeps them from it",
        need=Need.ALWAYS,
    ),
)
NOISE = Row(
    name="noise",
    question="Is the source's own rounding noise small enough to tell a right result from a wrong one?",
    catches="a model that can't be told from its own rounding on the inputs at hand",
    if_failed="give inputs of the size the model was trained on: `--samples`, or `--range`",
    role=Role.PROVABILITY,
)
BRANCHES = Row(
    name="branches",
    question="Do the cases take every path that depends on the data?",
    catches="a decision on data that a trace froze, and no input took the other way",
    if_failed="give samples that take the other paths, or use `--method script`",
    role=Role.PROVABILITY,
)
COVERAGE = Row(
    name="coverage",
    question="Do the cases run every branch and loop that the inputs' values decide?",
    catches="a branch or loop of the graph that input values decide, and no case ran",
    if_failed="give samples that take the other branch, or fix the input that decides with `--range"
    " NAME=VALUE:VALUE`",
    if_not_run="see why the artifact does not run under onnxruntime's profile",
    role=Role.PROVABILITY,
)
STANDARD = Row(
    name="standard",
    question="Does onnxruntime, which gives the reference, compute every node as the ONNX standard says?",
    catches="an ONNX node that onnxruntime computes differently from the ONNX standard: no reference, so"
    " no proof",
    if_failed="export the nodes named in a form on which onnxruntime and the standard agree",
    if_not_run="export the nodes named in a form on which onnxruntime and the standard agree",
)
REPAIRS = Row(
    name="repairs",
    question="Does the repaired artifact compute what it computed before the repair?",
    catches="a repair of the graph that changes what it computes",
    if_failed="report the repair that is named: it is a defect of this tool",
)
ARTIFACT = Row(
    name="artifact",
    question="Was any artifact made at all?",
    catches="a source of which no method makes anything",
    if_failed="the attempts say why each method failed; resolve the first of them, or give another"
    " `--method`",
    role=Role.USABILITY,
)
METRIC = Family(
    "metric:",
    Row(
        name="metric:NAME",
        question="What do the remaining differences mean for the task, by this metric?",
        catches="differences that matter for the task; required where a value to reach was given",
        if_failed="look at the cases it is worst on; with `--fp16` or `--weight-bits`, keep more bits",
        if_not_run="its reason says what is missing; a function's file is given with `--metric"
        " file.py:function`",
    ),
)
SAMPLES = Row(
    name="samples",
    question="Which real inputs were taken, and what are their values?",
    catches="samples chosen by mistake: their files, and the range of each input's values",
    if_failed="give other `--samples`",
    role=Role.INFORMATIVE,
    need=Need.NEVER,
)
GIVEN_OUTPUTS = Row(
    name="given_outputs",
    question="Does the source compute the outputs that the samples hold?",
    catches="samples whose outputs are another model's: such a run is refused; the check counts the others",
    if_failed="give samples with the outputs of this model, or without outputs",
    role=Role.INFORMATIVE,
    need=Need.NEVER,
)
MNN_SESSION = Row(
    name="mnn_session",
    question="Does a Session that is resized from size to size give the same as MNN's Module API?",
    catches="a Session that is resized and disagrees with the Module API",
    if_failed="load the model by the Module API, as the snippets do, or make a new Session for every size",
    role=Role.INFORMATIVE,
    need=Need.NEVER,
)
PRECISION = Row(
    name="precision",
    question="What does the lower precision of the weights cost?",
    catches="what float16 or integer weights cost: SQNR, errors, and how often the largest class stays",
    if_failed="accept less with `--budget`, or keep more bits with `--weight-bits`",
    role=Role.INFORMATIVE,
    need=Need.NEVER,
)
THIRD_OPINION = Row(
    name="third_opinion",
    question="Does a third runtime, mnnprep's own ONNX form of a Caffe net, agree with OpenCV?",
    catches="a reference of Caffe that another implementation disputes",
    if_failed="look at the layers around the output that is named: two importers read them differently",
    if_not_run="its reason names what the third runtime does not take; the proof does without it",
    role=Role.INFORMATIVE,
    need=Need.NEVER,
)
STANDING = Row(
    name="standing",
    question="If MNN and the reference disagree, which one does the third runtime side with?",
    catches="a reference that stands alone against MNN and the third opinion, and is itself disputed",
    if_failed="find out which is right, with outputs of the original Caffe in the samples; the verdict does"
    " not depend on it",
    role=Role.INFORMATIVE,
    need=Need.NEVER,
)
UNUSED_WEIGHTS = Row(
    name="unused_weights",
    question="Does the network have every layer that the caffemodel holds weights of?",
    catches="a prototxt that leaves out layers of its caffemodel: a branch of training, or the wrong pair",
    if_failed="give the prototxt that belongs to the caffemodel, if the layers named should be there",
    role=Role.INFORMATIVE,
    need=Need.NEVER,
)
FRONTEND_OPERATORS = Row(
    name="frontend_operators",
    question="Does MNN's Torch frontend have a name for every operator of the TorchScript?",
    catches="TorchScript operators that MNN's Torch frontend refuses",
    if_failed="prepare `--to onnx`",
    if_followed="resolve what kept the attempts by ONNX from being proven",
    role=Role.INFORMATIVE,
    need=Need.NEVER,
)
OPERATORS = Row(
    name="operators",
    question="Does MNN's converter read every operator of the artifact?",
    catches="operators that MNN does not read; asked by older versions alone",
    if_failed="`mnnprep check` names the operators that MNN does not take",
)
HASHES = Row(
    name="hashes",
    question="Are the bundle's files, byte by byte, those that its manifest names?",
    catches="a file that was changed, lost or added since",
    if_failed=_TRUSTED,
)
RECORD = Row(
    name="record",
    question="Does the verdict follow from the evidence in the manifest, and the evidence from its own"
    " figures?",
    catches="a manifest that was edited: a verdict, a status or a size that its figures do not support",
    if_failed=_TRUSTED,
)
CASES = Row(
    name="cases",
    question="Do the stored cases hold what the signature and their sizes say?",
    catches="stored inputs or outputs of other names, shapes or dtypes",
    if_failed=_TRUSTED,
)
TOLERANCE = Row(
    name="tolerance",
    question="Is the stated tolerance the one that the rule gives for what was asked?",
    catches="a tolerance that was widened",
    if_failed="prepare the model again: the figures were edited, or made by another rule",
)
REPORT = Row(
    name="report",
    question="Is report.html the page that the manifest gives?",
    catches="a report that says something else than the manifest",
    if_failed="write it again with `mnnprep report`",
)
SIGNATURE = Row(
    name="signature",
    question="Was every file of the bundle signed with the key at hand?",
    catches="a signature that nobody looked at; one that does not hold is refused before anything is read",
    if_failed="get the bundle from its signer, or ask for the right public key",
    if_not_run="give the signer's public key with `--key`",
)
COMPARE = Row(
    name="compare",
    question="Do the two models compute the same?",
    catches="an output that is missing or differs",
    if_failed="compare each model with its source; `--samples` gives them real inputs",
)

# By the command that asks them, in the order of the documentation.
PREPARING: tuple[Row | Family, ...] = (
    INFERENCE_MODE,
    DETERMINISM,
    SELF_CONTAINED,
    WEIGHTS,
    REFERENCE,
    ARTIFACT_COMPARE,
    MNN_CONVERT,
    MNN_COMPARE,
    TARGET,
    VACUITY,
    DIMENSION,
    NOISE,
    BRANCHES,
    COVERAGE,
    STANDARD,
    REPAIRS,
    ARTIFACT,
    METRIC,
    SAMPLES,
    GIVEN_OUTPUTS,
    MNN_SESSION,
    PRECISION,
    THIRD_OPINION,
    STANDING,
    UNUSED_WEIGHTS,
    FRONTEND_OPERATORS,
    OPERATORS,
)
VERIFYING: tuple[Row | Family, ...] = (
    SIGNATURE,
    HASHES,
    RECORD,
    CASES,
    TOLERANCE,
    REPORT,
    ARTIFACT_COMPARE,
    MNN_COMPARE,
    TARGET,
    METRIC,
)
COMPARING: tuple[Row | Family, ...] = (DETERMINISM, VACUITY, NOISE, COMPARE, METRIC)
ALL: tuple[Row | Family, ...] = tuple(dict.fromkeys((*PREPARING, *VERIFYING, *COMPARING)))

# Required of every proof; `dimension:NAME` joins for every dynamic dimension.
REQUIRED: tuple[str, ...] = tuple(
    entry.name for entry in PREPARING if isinstance(entry, Row) and entry.need is Need.ALWAYS
)
# Failing one of these says that the inputs or the source can't prove anything, not that something is wrong.
PROVABILITY = frozenset(e.name for e in ALL if isinstance(e, Row) and e.role is Role.PROVABILITY)
# Failing one of these leaves nothing to compare.
USABILITY = frozenset(e.name for e in ALL if isinstance(e, Row) and e.role is Role.USABILITY)

_ROWS: Mapping[str, Row] = {entry.name: entry for entry in ALL if isinstance(entry, Row)}
_FAMILIES = tuple(entry for entry in ALL if isinstance(entry, Family))
_UNKNOWN = Row(name="", question="", catches="", if_failed="its reason says what was found")


def row(check: str) -> Row:
    """Return the row of the check of this name.

    A name that is not in the catalogue gets empty words, never an error.
    """
    if check in _ROWS:
        return _ROWS[check]
    family = next((f for f in _FAMILIES if f.has(check)), None)
    return family.of(family.member(check)) if family else replace(_UNKNOWN, name=check)


def fits(check: str, rows: Iterable[Row | Family]) -> bool:
    """Whether one of *rows* is that of the check of this name."""
    return any(entry.has(check) if isinstance(entry, Family) else entry.name == check for entry in rows)
