"""The step that converts a model to MNN, and judges what came out.

What the converter says is not believed (its exit status is 0 and its return value True whatever
happens; a junk file, a missing one and a refused operator included): a conversion has succeeded when
a new, non-empty file is there, no line says that something failed, and the file can be opened again.
Whether it computes the right numbers is the comparison's question.

Measured with MNN 3.6.1.  The script ``MNN.tools.mnnconvert`` is never touched: it installs packages
and reports the arguments to a server; the extension behind it, ``_tools``, does neither.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import uuid
from enum import Enum
from pathlib import Path

import msgspec

from mnnprep.errors import InternalError, RefusedError, UsageError
from mnnprep.mnn.boundary import read_boundary
from mnnprep.mnn.capture import captured, last_lines, without_place_and_time
from mnnprep.mnn.info import MnnInfo, MnnTensor, package_converter, read_info
from mnnprep.mnn.worker import CONVERTER
from mnnprep.model.files import FileRef, file_ref
from mnnprep.model.reach import ProgramPath, ReadPath, WritePath
from mnnprep.safety.faults import fault, refuse_fault
from mnnprep.workers.server import doing
from mnnprep.workers.step import Step

FRONTENDS = ("ONNX", "TORCH", "TF", "TFLITE", "CAFFE", "MNN")
BIZ_CODE = "mnnprep"  # written into the file
OUTPUT_NAME = "model.mnn"
WEIGHTS_SUFFIX = ".weight"

SUCCESS_LINE = "Converted Success!"
NO_FRONTEND_LINE = "Framework Input ERROR or Not Support This Model Type Now!"
REFUSED_OPS_LINE = re.compile(r"These Op Not Support: (?P<ops>.*)")
# Where one of these was printed, the output is not right.  The first is of a model whose external data is
# not there: its weights become whatever the memory held, and the success line is printed all the same.
FAILURE_LINES = ("Can't open file", "Converted Failed!", "Convert error", "Model File Does Not Exist")


class ConvertJob(msgspec.Struct, frozen=True, kw_only=True):
    """Convert ``model`` with MNN's ``frontend`` (one of FRONTENDS) into ``directory/model.mnn``.

    ``extra_model`` is the caffemodel where ``model`` is a prototxt.  ``uuid_seed`` is the sha256 (hex)
    of the artifact: the id that MNN would draw at random is made from it, so that the same artifact
    gives the same bytes.  ``converter`` is the path of an executable that takes MNNConvert's options;
    empty stands for the one in the MNN package.  ``timeout``, in seconds, ends an executable (the
    package's converter runs in this process: its limit is the worker's).  ``fp16`` and ``weight_bits`` (8 or
    4, 0: not) have the weights of convolutions and matrix products kept so; ``static`` resolves the shapes
    for the sizes that the model has.
    """

    model: ReadPath
    frontend: str
    uuid_seed: str
    directory: WritePath
    converter: ProgramPath = ""
    extra_model: ReadPath = ""
    timeout: float = 600.0
    fp16: bool = False
    weight_bits: int = 0
    static: bool = False


class Fault(Enum):
    """The faults of a conversion that made no model; each with the words for people."""

    NO_FRONTEND = "this converter was built without the frontend for this format"
    OPERATORS = "MNN does not support these operators: {}"
    TOLD = "the converter failed: {}"
    NOTHING = "the converter wrote no file"
    BOASTED = "the converter wrote no file, though it printed success"
    SILENT = "the converter wrote a file without saying that it succeeded"
    UNREADABLE = "the converter wrote a file that MNN can't open"
    LATE = "the converter took longer than {} s"
    CRASHED = "the converter crashed with {}"
    STATUS = "the converter ended with exit status {}"


class Mishap(msgspec.Struct, frozen=True):
    """The reason why a conversion made no model.

    ``detail`` is the operators, the line that the converter printed, the signal, the exit status or the
    seconds.

    Two conversions that have equal ones failed in the same way.
    """

    fault: Fault
    detail: str = ""

    @property
    def reason(self) -> str:
        """It in words, one line."""
        return self.fault.value.format(self.detail)


class Converted(msgspec.Struct, frozen=True, kw_only=True):
    """``ok`` with the file, its inputs and the names of its outputs; else the ``mishap``.

    ``weights`` is the file ``model.mnn.weight`` that MNN writes beside a model larger than 2 GB, else
    None.  MNN looks for it by the model's own path with ``.weight`` added, and without it computes
    with other weights, printing only "Can't open file".
    ``version`` is that of the converter, as the file has it; ``refused_ops`` are the operators it
    named as unsupported; ``frontend_missing`` says that the converter was built without the frontend
    asked for; ``unable`` that the time ended, which says nothing of the model; ``log`` holds the
    last lines it printed, without times and places.
    """

    ok: bool
    mishap: Mishap | None = None
    file: FileRef | None = None
    weights: FileRef | None = None
    inputs: list[MnnTensor] = msgspec.field(default_factory=list)
    outputs: list[str] = msgspec.field(default_factory=list)
    version: str = ""
    refused_ops: list[str] = msgspec.field(default_factory=list)
    frontend_missing: bool = False
    unable: bool = False
    log: str = ""

    @property
    def reason(self) -> str:
        """Why it failed, one line; empty if it did not."""
        return self.mishap.reason if self.mishap else ""


def convert(job: ConvertJob) -> Converted:
    """Run the converter and judge what it left; runs in a worker, for the converter may crash.

    Raises:
        UsageError: ``converter`` is not a program that can be started.
        SystemFault: it failed, and the disk is full or the like.
    """
    if job.frontend not in FRONTENDS:
        raise InternalError("a conversion with an unknown frontend was asked for", seen=job.frontend)
    directory = Path(job.directory).absolute()
    output = directory / OUTPUT_NAME
    weights = directory / (OUTPUT_NAME + WEIGHTS_SUFFIX)
    _remove(output, weights)  # a refusal leaves an older file of the same name in place
    doing(f"converting with MNN ({job.frontend})")
    parameters = directory / "parameters.json"
    parameters.write_bytes(fixed_id_parameters(job.uuid_seed))
    argv = _arguments(job, output, parameters)
    with contextlib.chdir(directory), captured() as printed:
        mishap = _run_executable(job.converter, argv, job.timeout) if job.converter else None
        if not job.converter:
            package_converter()(["MNNConvert", *argv])
    _remove(parameters)
    log = without_place_and_time(printed.text)
    mishap = mishap or judge(
        log, wrote=output.is_file() and output.stat().st_size > 0, success_line=not job.converter
    )
    if mishap is None:
        doing("reading the converted model")
        info = _said(str(output))
        if info.version:
            return Converted(
                ok=True,
                file=file_ref(output),
                weights=file_ref(weights) if weights.exists() else None,
                inputs=info.inputs,
                outputs=info.outputs,
                version=info.version,
                log=last_lines(log),
            )
        mishap = Mishap(Fault.UNREADABLE)
    refuse_fault(
        RuntimeError(log), job.directory
    )  # before what was written is removed: a converter tells nobody that the disk is full
    _remove(output, weights)
    return Converted(
        ok=False,
        mishap=mishap,
        refused_ops=refused_ops(log),
        frontend_missing=not has_frontend(log),
        unable=mishap.fault is Fault.LATE,
        log=last_lines(log),
    )


def _said(path: str) -> MnnInfo:
    """Return the converted model's own account: from its bytes if they name a version, else from MNN."""
    with contextlib.suppress(RefusedError):
        info = read_boundary(path)
        if info.version:
            return info
    return read_info(path)


def has_frontend(log: str) -> bool:
    """Whether the converter that printed *log* was built with the frontend it was asked for."""
    return NO_FRONTEND_LINE not in log


def refused_ops(log: str) -> list[str]:
    """Return the operators that *log* names as unsupported, without the frontend's prefix.

    ``ONNX::Hardmax`` becomes ``Hardmax``.
    """
    found = {
        name.strip().rpartition("::")[2]
        for match in REFUSED_OPS_LINE.finditer(log)
        for name in match["ops"].split("|")
    }
    return sorted(found - {""})


def judge(log: str, *, wrote: bool, success_line: bool) -> Mishap | None:
    """Why a conversion that printed *log* failed; None when nothing speaks against it.

    ``wrote``: a new, non-empty file is there.  ``success_line``: this converter is known to print one.
    """
    if not has_frontend(log):
        return Mishap(Fault.NO_FRONTEND)
    if refused := refused_ops(log):
        return Mishap(Fault.OPERATORS, ", ".join(refused))
    for line in log.splitlines():
        if any(text in line for text in FAILURE_LINES):
            return Mishap(Fault.TOLD, line.strip())
    if not wrote:
        return Mishap(Fault.BOASTED if SUCCESS_LINE in log else Fault.NOTHING)
    if success_line and SUCCESS_LINE not in log:
        return Mishap(Fault.SILENT)
    return None


def fixed_id_parameters(seed: str) -> bytes:
    """Return the ``--compressionParamsFile`` that compresses nothing and fixes the model's id.

    The id is made from *seed* (hex, 32 digits or more).
    """
    return msgspec.json.encode({"version": "0.0.0", "mnn_uuid": str(uuid.UUID(hex=seed[:32])), "algo": []})


def _arguments(job: ConvertJob, output: Path, parameters: Path) -> list[str]:
    """MNNConvert's options, all paths absolute."""
    model = os.path.abspath(job.model)
    files = (
        ["--prototxt", model, "--modelFile", os.path.abspath(job.extra_model)]
        if job.extra_model
        else ["--modelFile", model]
    )
    kept = ["--saveStaticModel"] if job.static else []
    kept += ["--fp16"] if job.fp16 else []
    if job.weight_bits:
        kept += ["--weightQuantBits", str(job.weight_bits)]
    return [
        "-f",
        job.frontend,
        *files,
        "--MNNModel",
        str(output),
        "--bizCode",
        BIZ_CODE,
        "--compressionParamsFile",
        str(parameters),
        *kept,
    ]


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _run_executable(converter: str, argv: list[str], timeout: float) -> Mishap | None:
    """Run *converter*; what speaks against it, by how it ended.

    It stays in the worker's process group, which ends with the worker: whatever it started goes with it.
    """
    program = os.path.abspath(converter)
    try:
        done = subprocess.run([program, *argv], stdin=subprocess.DEVNULL, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return Mishap(Fault.LATE, f"{timeout:g}")
    except OSError as error:
        raise UsageError(
            "the converter could not be started",
            seen=f"{os.path.basename(converter)}: {error.strerror}",
            next="give the path of a MNNConvert executable",
        ) from error
    if done.returncode == -signal.SIGXFSZ:
        raise fault(errno.EFBIG, os.getcwd())
    if done.returncode < 0:
        return Mishap(Fault.CRASHED, signal.Signals(-done.returncode).name)
    return Mishap(Fault.STATUS, str(done.returncode)) if done.returncode else None


CONVERT = Step.of(convert, CONVERTER)
