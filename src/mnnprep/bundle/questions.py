"""What each check asks, in words, and what to do where it did not pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mnnprep.core.metrics import CHECK as METRIC

DIMENSION = "dimension:"


@dataclass(frozen=True)
class Question:
    """What a check asks, in words, and what to do when it failed or was not run."""

    asks: str
    failed: str
    not_run: str = "prepare the model again; if the check stays not run, its reason says what is missing"


QUESTIONS: Mapping[str, Question] = {
    "inference_mode": Question(
        "Is every layer in inference mode, with no leftover of training?",
        "take the training behaviour out of the source at the place named (call eval(), use"
        " training=self.training, keep the BatchNorm statistics)",
    ),
    "determinism": Question(
        "Does the source give the same outputs twice for the same inputs?",
        "make the random numbers an input of the model, then prepare again",
    ),
    "self_contained": Question(
        "Does the artifact run alone, where neither the source nor its code can be reached?",
        "move what the artifact reaches for into the model, or try another `--method`",
    ),
    "weights": Question(
        "Are the artifact's weights the source's weights, value by value?",
        "try another `--method`, and compare the tensors named with the source's",
    ),
    "reference": Question(
        "Did the untouched source run in its own framework on every case?",
        "give inputs that the source computes with: `--samples`, `--range` or `--dim`",
        "install the source's framework (`mnnprep doctor` says how), then prepare again",
    ),
    "artifact_compare": Question(
        "Does the artifact compute what the source computes?",
        "try another `--method` or a higher `--opset`; the attempts say what each of them gave",
    ),
    "mnn_convert": Question(
        "Did MNN's converter take the artifact and write a model that loads?",
        "try another `--method`, `--opset` or `--to`; `mnnprep check` names the operators that MNN does not"
        " take",
        "name a converter that has the frontend with `--mnnconvert`, or choose another format with `--to`",
    ),
    "mnn_compare": Question(
        "Does MNN compute what the source computes?",
        "`mnnprep bisect` finds the first node that goes wrong; then try another `--method` or `--opset`",
        "it runs as soon as there is a converted model: resolve mnn_convert first",
    ),
    "mnn_session": Question(
        "Does a Session that is resized from size to size give the same as MNN's Module API?",
        "load the model by the Module API, as the snippets do, or make a new Session for every size",
    ),
    "compare": Question(
        "Do the two models compute the same?",
        "compare each with what it was made from; `--samples` gives them real inputs",
    ),
    "vacuity": Question(
        "Do the cases tell this model from one that always gives the same answer?",
        "give inputs that move every output: `--samples` with real data, or a wider `--range`",
    ),
    "noise": Question(
        "Is the source's own rounding noise small enough to tell a right result from a wrong one?",
        "give inputs of the size the model was trained on: `--samples`, or `--range`",
    ),
    "branches": Question(
        "Do the cases take every path that depends on the data?",
        "give samples that take the other paths, or use `--method script`",
    ),
    "coverage": Question(
        "Do the cases run every branch and loop that the inputs' values decide?",
        "give samples that take the other branch, or fix the input that decides with `--range"
        " NAME=VALUE:VALUE`",
        "see why the artifact does not run under onnxruntime's profile",
    ),
    "artifact": Question(
        "Was any artifact made at all?",
        "the attempts say why each method failed; resolve the first of them, or give another `--method`",
    ),
    "samples": Question(
        "Which real inputs were taken, and what values have they?",
        "give other `--samples`",
    ),
    "hashes": Question(
        "Are the bundle's files, byte by byte, those that its manifest names?",
        "take the bundle from where it was made, or prepare the model again",
    ),
    "record": Question(
        "Does the verdict follow from the evidence in the manifest, and the evidence from its own figures?",
        "take the bundle from where it was made, or prepare the model again",
    ),
    "tolerance": Question(
        "Is the stated tolerance the one that the rule gives for what was asked?",
        "prepare the model again: the figures were edited, or made by another rule",
    ),
    "cases": Question(
        "Do the stored cases hold what the signature and their sizes say?",
        "take the bundle from where it was made, or prepare the model again",
    ),
    "report": Question(
        "Is report.html the page that the manifest gives?",
        "write it anew with `mnnprep report`",
    ),
    "signature": Question(
        "Was every file of the bundle signed with the key at hand?",
        "take the bundle from whoever signed it, or ask for the right public key",
        "give the signer's public key with `--key`",
    ),
    "repairs": Question(
        "Does the repaired artifact compute what it computed before the repair?",
        "report the repair that is named: it is a defect of this tool",
    ),
}

_DIMENSION_QUESTION = Question(
    "Does every size of this dimension that was tried come out right?",
    "fix the dimension with `--input`, or narrow its range with `--dim` to the sizes that passed",
    "give the dimension a range with `--dim NAME=MIN:MAX`, then prepare again",
)
_METRIC_QUESTION = Question(
    "What do the remaining differences mean for the task, by this metric?",
    "look at the cases it is worst on; with `--fp16` or `--weight-bits`, keep more bits",
    "its reason says what is missing; a function's file is given with `--metric file.py:function`",
)
_UNKNOWN_QUESTION = Question("", "its reason says what was found")


def question(check: str) -> Question:
    """What *check* asks; unknown names get empty words, never an error."""
    if check.startswith(METRIC):
        return _METRIC_QUESTION
    return _DIMENSION_QUESTION if check.startswith(DIMENSION) else QUESTIONS.get(check, _UNKNOWN_QUESTION)
