"""A worker that runs a stranger's model is kept from the rest of the machine, wall by wall; each deed is done
unconfined as well.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import platform
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mnnprep
from mnnprep.attempt.task_metrics import MetricJob
from mnnprep.commands.resolve import resolve
from mnnprep.errors import InternalError, RefusedError
from mnnprep.formats.registry import ARTIFACTS, steps_of
from mnnprep.mnn.convert import ConvertJob
from mnnprep.mnn.frontends import FrontendsJob
from mnnprep.model.files import FileRef
from mnnprep.model.messages import (
    CaseFile,
    LoadJob,
    RunJob,
    RunResult,
    Source,
    Survey,
    SurveyJob,
    WeightsJob,
)
from mnnprep.model.metrics import Metric
from mnnprep.model.request import Limits, Request, make_wants
from mnnprep.model.signature import Signature, TensorSpec
from mnnprep.workers import confine as walls
from mnnprep.workers import host, landlock, launch, reach, seccomp
from mnnprep.workers.confine import Confinement, supported
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.pool import Workers
from mnnprep.workers.reach import confinement_of
from support.command import environment

ALLOWED, REFUSED = 0, 13
pytestmark = pytest.mark.own_workers

LONG = 60.0

confined = pytest.mark.skipif(
    not supported().complete, reason=f"this system can't confine a process: {supported().reason}"
)

PROGRAM = """
import os, socket, subprocess, sys
from pathlib import Path
from mnnprep.workers.confine import Confinement, confine
LOADER = str(next(Path("/lib64").glob("ld-linux-*"), "/lib/ld-linux-aarch64.so.1"))
scratch, source, home = map(Path, sys.argv[1:4])
{before}
if {walls}:
    confine(Confinement(read=(str(source),), write=(str(scratch),), network={network}, execute={execute}))
try:
    {deed}
except OSError as error:
    print(repr(error), file=sys.stderr)
    sys.exit(13)
"""


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A scratch, a source and a home with a secret."""
    scratch, source, home = tmp_path / "scratch", tmp_path / "source", tmp_path / "home"
    for place in (scratch, scratch / "sub", source, home, home / "empty", home / ".ssh"):
        place.mkdir()
    for file in (scratch / "mine", source / "model", home / "file", home / ".ssh/id_rsa"):
        file.write_text("a text")
    return scratch, source, home


def run(
    places: tuple[Path, ...],
    deed: str,
    *,
    before: str = "",
    on: bool = True,
    network: bool = False,
    execute: bool = False,
) -> int:
    """The exit code of a process that does *deed*."""
    text = PROGRAM.format(
        before=before, walls=on, network=network, execute=execute, deed=textwrap.indent(deed, "    ").strip()
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", text, *places],
        env=environment(),
        capture_output=True,
        timeout=LONG,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode in (ALLOWED, REFUSED), done.stderr.decode()
    return done.returncode


DEEDS = {
    "write a new file": "(home / 'new').write_text('x')",
    "write over a file": "(home / 'file').write_text('x')",
    "append to a file": "open(home / 'file', 'a')",
    "cut a file short": "os.truncate(home / 'file', 0)",
    "remove a file": "os.unlink(home / 'file')",
    "remove a directory": "os.rmdir(home / 'empty')",
    "make a directory": "os.mkdir(home / 'new')",
    "rename a file": "os.rename(home / 'file', home / 'other')",
    "move a file out of the scratch": "os.rename(scratch / 'mine', home / 'mine')",
    "move a file into the scratch": "os.rename(home / 'file', scratch / 'file')",
    "link a file out of the scratch": "os.link(scratch / 'mine', home / 'mine')",
    "link a file into the scratch": "os.link(home / 'file', scratch / 'file')",
    "make a symbolic link": "os.symlink('/', home / 'link')",
    "make a pipe": "os.mkfifo(home / 'pipe')",
    "write to the source": "(source / 'model').write_text('x')",
    "read a secret": "(home / '.ssh/id_rsa').read_text()",
    "read a secret through a link": (
        "l = scratch / 'l'; l.is_symlink() or l.symlink_to(home / '.ssh/id_rsa'); l.read_text()"
    ),
    "read a secret by way of dots": "(scratch / '../home/.ssh/id_rsa').read_text()",
    "list a directory": "os.listdir(home)",
    "read the parent's environment": "Path(f'/proc/{os.getppid()}/environ').read_bytes()",
    "read the parent's memory": "os.open(f'/proc/{os.getppid()}/mem', os.O_RDONLY)",
    "change a mode": "os.chmod(home / 'file', 0o777)",
    "change the mode of an open file": "os.fchmod(os.open(source / 'model', os.O_RDONLY), 0o777)",
    "change a time": "os.utime(home / 'file', (1, 1))",
    "change an owner": "os.chown(home / 'file', os.getuid(), os.getgid())",
    "start a program": "os.execv('/bin/true', ['true'])",
    "start a program beside": "subprocess.run(['/bin/true'], check=True)",
    "start a program by posix_spawn": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
    "start a program that it wrote": (
        "t = scratch / 't'; t.write_bytes(Path('/bin/true').read_bytes()); os.execv(LOADER, [LOADER, str(t)])"
    ),
    "open a socket": "socket.socket(socket.AF_INET)",
    "open an IPv6 socket": "socket.socket(socket.AF_INET6)",
    "open a datagram socket": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "open a unix socket": "socket.socket(socket.AF_UNIX)",
    "open a netlink socket": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "open a pair of sockets": "socket.socketpair()",
    "send a signal to its parent": "os.kill(os.getppid(), 0)",
    "be traced": (
        "import ctypes\nif ctypes.CDLL(None, use_errno=True).ptrace(0, 0, None, None): raise"
        " OSError(ctypes.get_errno(), 'ptrace')"
    ),
}


@confined
@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
def test_a_confined_process_can_not(places: tuple[Path, Path, Path], deed: str) -> None:
    before = {p: p.read_bytes() for p in places[2].rglob("*") if p.is_file()} | {
        places[1] / "model": b"a text"
    }
    assert run(places, deed) == REFUSED
    assert {p: p.read_bytes() for p in [*places[2].rglob("*"), places[1] / "model"] if p.is_file()} == before
    assert (places[2] / "empty").is_dir()
    assert run(places, deed, on=False) == ALLOWED, (
        "the deed itself must be possible, or its refusal says nothing"
    )


LISTENING = "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); t = socket.socket()"


@confined
@pytest.mark.parametrize("deed", ["t.connect(s.getsockname())", "t.bind(('127.0.0.1', 0))", "s.listen(2)"])
def test_a_socket_from_before_is_neither_bound_nor_connected(
    places: tuple[Path, Path, Path], deed: str
) -> None:
    assert run(places, deed, before=LISTENING) == REFUSED
    assert run(places, deed, before=LISTENING, on=False) == ALLOWED


FINE = {
    "write, move, link and remove in its scratch": "\n".join(
        [
            "(scratch / 'sub/a').write_text('x')",
            "os.rename(scratch / 'sub/a', scratch / 'b')",
            "os.link(scratch / 'b', scratch / 'sub/c')",
            "os.symlink(source / 'model', scratch / 'd'); assert (scratch / 'd').read_text() == 'a text'",
            (
                "os.truncate(scratch / 'b', 0); os.unlink(scratch / 'b'); os.mkdir(scratch / 'new');"
                " os.rmdir(scratch / 'new')"
            ),
        ]
    ),
    "read its source": "assert (source / 'model').read_text() == 'a text'",
    "import what it has not yet imported": "import json, decimal, sqlite3, numpy, msgspec",
    "load a library": "import ctypes.util; ctypes.CDLL('libm.so.6').cos",
    "throw away": "open(os.devnull, 'w').write('x')",
    "look at itself": (
        "Path('/proc/self/status').read_text(); Path('/proc/self/maps').read_text(); os.cpu_count()"
    ),
    "start threads": "import threading; t = threading.Thread(target=len, args=('',)); t.start(); t.join()",
    "fork and end its child": "pid = os.fork() or os._exit(0); os.waitpid(pid, 0)",
    "copy a file with its mode": "import shutil; shutil.copyfile(source / 'model', scratch / 'copy')",
}


@confined
@pytest.mark.parametrize("deed", FINE.values(), ids=FINE)
def test_a_confined_process_can(places: tuple[Path, Path, Path], deed: str) -> None:
    assert run(places, deed) == ALLOWED


@confined
def test_what_is_lifted_is_lifted_alone(places: tuple[Path, Path, Path]) -> None:
    assert run(places, DEEDS["open a socket"], network=True) == ALLOWED
    assert run(places, DEEDS["start a program beside"], network=True) == REFUSED
    assert run(places, DEEDS["start a program beside"], execute=True) == ALLOWED
    assert run(places, DEEDS["open a socket"], execute=True) == REFUSED
    assert run(places, DEEDS["write a new file"], execute=True, network=True) == REFUSED


@confined
def test_a_thread_and_a_child_are_confined_as_well(places: tuple[Path, Path, Path]) -> None:
    child = (
        "pid = os.fork()\nif not pid:\n    try: {}\n    except OSError: os._exit(13)\n    os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    thread = "import concurrent.futures as c; c.ThreadPoolExecutor().submit(lambda: {}).result()"
    for way in (child, thread):
        assert run(places, way.format(DEEDS["read a secret"])) == REFUSED
        assert run(places, way.format(DEEDS["read a secret"]), on=False) == ALLOWED


@confined
def test_a_second_confinement_only_narrows(places: tuple[Path, Path, Path]) -> None:
    again = "confine(Confinement(read=(str(home),), write=(str(home),), network=True, execute=True)); "
    for deed in ("read a secret", "write a new file", "open a socket", "start a program beside"):
        assert run(places, again + DEEDS[deed]) == REFUSED


# Systems that have less


def test_a_kernel_without_landlock_is_named_and_crashes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "syscall", _no_landlock)
    monkeypatch.setattr(seccomp, "missing", lambda: "no seccomp, either")
    walls.supported.cache_clear()
    try:
        found = walls.supported()
        assert (found.landlock, found.seccomp, found.complete, str(found)) == (0, False, False, "none")
        assert "no Landlock" in found.reason
        assert "no seccomp, either" in found.reason
        assert walls.confine(Confinement()) == found
        assert Path(__file__).read_text()
    finally:
        walls.supported.cache_clear()


def _no_landlock(*_: object) -> int:
    raise OSError(38, "Function not implemented")


@pytest.mark.parametrize(
    ("version", "lacking"), [(1, "links"), (2, "truncation"), (3, "devices"), (5, "signals"), (6, "")]
)
def test_an_older_landlock_says_what_it_does_not_keep(
    version: int, lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: version)
    walls.supported.cache_clear()
    try:
        found = walls.supported()
        assert found.landlock == version
        assert (lacking in found.reason) if lacking else not found.reason
    finally:
        walls.supported.cache_clear()


@confined
@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_every_older_version_keeps_a_secret(version: int, places: tuple[Path, Path, Path]) -> None:
    """The rights and structures of an older ABI are taken by this kernel as well."""
    older = f"from mnnprep.workers import landlock; landlock.abi = lambda: {version}"
    assert run(places, DEEDS["read a secret"], before=older) == REFUSED
    assert run(places, DEEDS["write a new file"], before=older) == REFUSED
    assert (
        run(places, "(scratch / 'x').write_text('x'); (source / 'model').read_text()", before=older)
        == ALLOWED
    )


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_refuses_its_calls_and_no_other(machine: str) -> None:
    architecture, column = seccomp._ARCHITECTURES[machine]
    calls = seccomp.ALWAYS | seccomp.NETWORK | seccomp.EXECUTE
    numbers = {number for pair in calls.values() if (number := pair[column]) is not None}
    program = seccomp._filter(calls, machine)
    refused = seccomp._ERRNO | 1
    assert {n for n in range(1024) if _evaluated(program, architecture, n) == refused} == numbers
    assert {_evaluated(program, architecture, n) for n in range(1024)} == {refused, seccomp._ALLOW}
    assert _evaluated(program, 0x40000003, 0) == refused  # a 32-bit call
    if machine == "x86_64":
        assert _evaluated(program, architecture, seccomp._X32 + 41) == refused


def _evaluated(program: list[tuple[int, int, int, int]], architecture: int, number: int) -> int:
    """What the BPF *program* returns for a call."""
    value = at = 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code == seccomp._LOAD:
            value = {seccomp._NUMBER_AT: number, seccomp._ARCHITECTURE_AT: architecture}[k]
        elif code == seccomp._RETURN:
            return k
        else:
            at += yes if (value == k if code == seccomp._EQUAL else value >= k) else no


def test_an_unknown_machine_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert "riscv64" in seccomp.missing()


# What a job may reach


def job_types() -> Iterator[type[msgspec.Struct]]:
    for module in pkgutil.walk_packages(mnnprep.__path__, "mnnprep."):
        if not module.name.endswith("__main__"):
            for name, thing in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if (
                    name.endswith("Job")
                    and issubclass(thing, msgspec.Struct)
                    and thing.__module__ == module.name
                ):
                    yield thing


# The texts in jobs that are no paths of files that the step reads or writes.
TEXTS = {
    "method",
    "tflite_precision",
    "frontend",
    "uuid_seed",
    "format",
    "variant",
    "shapes",
    "hints",
    "signature",
}
NAMES = {
    "fixed",
    "operators",
    "known",
    "forbid",
    "rules",
    "supported",
    "outputs",
    "inputs",
    "values",
    "frozen",
    "names",
    "layouts",
}
NAMES |= {"input_names", "output_names", "exact"}
TEXTS |= {"label"}


def test_every_path_in_a_job_says_how_it_is_reached() -> None:
    """A new field of a job must be a path of one of the kinds in model/reach.py, or stand in the lists
    above.
    """
    types = list(job_types())
    assert len(types) > 20
    for struct in types:
        kinds = dict(reach._kinds(struct))
        for field in msgspec.structs.fields(struct):
            if field.type is str:
                assert field.name in TEXTS, f"{struct.__name__}.{field.name}"
            elif field.type in (list[str], dict[str, str], list[str] | None):
                assert field.name in NAMES, f"{struct.__name__}.{field.name}"
            if field.name in ("directory", "target"):
                assert kinds[field.name] in ("write", "read"), f"{struct.__name__}.{field.name}"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch/step").mkdir(parents=True)
    (tmp_path / "scratch/out").mkdir()
    return tmp_path / "scratch"


def reached(job: msgspec.Struct, scratch: Path, **options: Any) -> Confinement:
    found = confinement_of(job, scratch=scratch, directory=scratch / "step", **options)
    assert found is not None
    return found


def survey_job(scratch: Path, **source: Any) -> SurveyJob:
    return SurveyJob(
        source=Source(**{"kind": "onnx", "path": "/a/model.onnx"} | source),
        wants=make_wants(),
        directory=str(scratch / "out"),
    )


def run_job(scratch: Path, model: str = "/b/model.onnx") -> RunJob:
    cases = [CaseFile(index=0, origin="seed 0", dims={}, file=FileRef("/b/cases/0.npz", "", 0))]
    return RunJob(model=model, cases=cases, signature=Signature((), ()), directory=str(scratch / "out"))


def test_a_step_reads_what_its_job_names_and_writes_in_its_own_directories(scratch: Path) -> None:
    found = reached(survey_job(scratch, beside=["/a/w.bin"]), scratch)
    assert set(found.read) == {str(scratch), "/a/model.onnx", "/a/w.bin"}
    assert set(found.write) == {str(scratch / "step"), str(scratch / "out")}
    assert not found.network
    assert not found.execute
    assert set(reached(run_job(scratch), scratch).read) == {str(scratch), "/b/model.onnx", "/b/cases/0.npz"}
    assert "/bundle" in reached(run_job(scratch), scratch, reads=["/bundle"]).read
    assert reached(WeightsJob(model="/m", source_model="/s"), scratch).read == (str(scratch), "/m", "/s")


def test_code_of_the_user_is_not_confined_and_the_artifact_is(scratch: Path) -> None:
    for source in ({"trust": True}, {"kind": "torch-factory", "path": "net.py:net", "search_path": ["/x"]}):
        assert (
            confinement_of(survey_job(scratch, **source), scratch=scratch, directory=scratch / "step") is None
        )
    own = MetricJob(metric=Metric(name="m.py:f", function="/x/m.py:f"), cases=[], runs={})
    assert confinement_of(own, scratch=scratch, directory=scratch / "step") is None
    assert reached(MetricJob(metric=Metric(name="top1"), cases=[], runs={}), scratch)
    assert reached(run_job(scratch), scratch)  # whatever its source was


def test_a_program_of_the_user_is_started_for_its_own_steps_alone(scratch: Path) -> None:
    convert = ConvertJob(model="/m", frontend="ONNX", uuid_seed="0" * 64, directory=str(scratch / "out"))
    assert not reached(convert, scratch).execute
    assert reached(msgspec.structs.replace(convert, converter="/x/MNNConvert"), scratch).execute
    assert reached(FrontendsJob(converter="/x/MNNConvert"), scratch).execute


def test_a_job_that_is_to_write_outside_the_scratch_is_a_defect(scratch: Path, tmp_path: Path) -> None:
    with pytest.raises(InternalError):
        reached(msgspec.structs.replace(run_job(scratch), directory=str(tmp_path)), scratch)


def test_a_worker_that_loads_for_others_may_do_what_they_may(scratch: Path) -> None:
    assert reached(survey_job(scratch), scratch, stays=True).write == (str(scratch),)


def test_links_among_samples_are_followed_and_those_of_a_snapshot(scratch: Path, tmp_path: Path) -> None:
    image = tmp_path / "elsewhere.png"
    image.write_bytes(b"")
    samples = tmp_path / "samples/deeper"
    samples.mkdir(parents=True)
    (samples / "0.png").symlink_to(image)
    wants = make_wants(samples=str(tmp_path / "samples"))
    assert (
        str(image.resolve())
        in reached(msgspec.structs.replace(survey_job(scratch), wants=wants), scratch).read
    )
    model = tmp_path / "models--a--b/snapshots/0123/saved"
    model.mkdir(parents=True)
    (tmp_path / "models--a--b/blobs").mkdir()
    (model / "link").symlink_to(image)
    found = reached(survey_job(scratch, kind="savedmodel", path=str(model)), scratch).read
    assert str(tmp_path / "models--a--b/blobs") in found
    assert str(image) not in found  # an archive may hold a link to anything


def test_a_source_names_the_files_that_it_refers_to(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import helper

    weight = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4, 4]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g", ports[:1], ports[1:], [weight]
    )
    path = tmp_path / "model.onnx"
    onnx.save_model(
        helper.make_model(graph), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    assert resolve(Request(source=str(path))).beside == [str(tmp_path / "weights.bin")]


# What a user is told


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """This process believes that it is confined to the directory."""
    monkeypatch.setattr(walls, "_confinement", Confinement(write=(str(tmp_path),)))
    return tmp_path


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (PermissionError(13, "Permission denied", "/home/x/.ssh/id_rsa"), "/home/x/.ssh/id_rsa"),
        (PermissionError(1, "Operation not permitted"), "socket"),
        (
            RuntimeError(
                "{{function_node __wrapped__WriteFile}} /etc/cron.d/x; Permission denied [Op:WriteFile]"
            ),
            "/etc/cron.d/x",
        ),
        (
            RefusedError(
                "the source does not run",
                seen="RuntimeError: unable to open </etc/shadow>: Permission denied",
            ),
            "/etc/shadow",
        ),
    ],
)
def test_a_refusal_of_the_wall_says_what_was_tried_and_what_lifts_it(
    error: Exception, named: str, within: Path
) -> None:
    found = walls.explained(error)
    assert isinstance(found, RefusedError)
    assert named in found.what
    assert "--trust" in found.next


def test_another_error_keeps_its_own_words(within: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert walls.explained(ValueError("a shape")) is None
    assert walls.explained(PermissionError(13, "Permission denied", str(within / "unreadable"))) is None
    monkeypatch.setattr(walls, "_confinement", None)
    assert walls.explained(PermissionError(13, "Permission denied", "/home/x")) is None


# Canaries: graphs with operators that reach out, past every list

LISTS: dict[str, tuple[str, str]] = {
    "formats/tensorflow/effects.py": ("found = sorted(set(effects))", "found: list[str] = []"),
    "formats/torch/stateless.py": ("    if first is not None:", "    if False:"),
}
"""A module of mnnprep that refuses such operators in a worker, and how to switch that off: a text of it, and
what replaces that.
"""


@pytest.fixture(scope="module")
def past_the_lists(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Workers]]:
    """Workers of an mnnprep whose lists are switched off: a copy made of links, but for the modules in
    LISTS.
    """
    root = tmp_path_factory.mktemp("package") / "mnnprep"
    assert mnnprep.__file__ is not None
    real = Path(mnnprep.__file__).parent
    shutil.copytree(real, root, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (text, other) in LISTS.items():
        module = (real / name).read_text()
        assert text in module, f"{name} has changed: say in LISTS how it is switched off"
        (root / name).unlink()
        (root / name).write_text(module.replace(text, other))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "PACKAGE", root)
        yield lambda: Workers(Limits(timeout=LONG * 3))


GRAPHS = """
import sys
import tensorflow as tf

place, target, secret = sys.argv[1:]

def save(name, reach):
    class Net(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, 3], tf.float32, name="x")])
        def __call__(self, x):
            return {"y": x + tf.cast(reach(), tf.float32)}
    net = Net()
    tf.saved_model.save(net, f"{place}/{name}", signatures={"serving_default": net.__call__})

def write():
    with tf.control_dependencies([tf.io.write_file(target, "written")]):
        return tf.constant(1)

save("write", write)
save("read", lambda: tf.strings.length(tf.io.read_file(secret)))
"""


@confined
def test_a_graph_that_writes_or_reads_a_file_is_stopped_by_the_wall(
    past_the_lists: Callable[[], Workers], tmp_path: Path
) -> None:
    target, secret = tmp_path / "home/written", tmp_path / "home/secret"
    target.parent.mkdir()
    secret.write_text("a secret")
    subprocess.run(
        [sys.executable, "-P", "-c", GRAPHS, tmp_path, target, secret],
        check=True,
        capture_output=True,
        timeout=LONG * 3,
    )
    steps = steps_of("savedmodel")
    with past_the_lists() as workers:

        def survey(name: str, trust: bool) -> Survey:
            source = Source(kind="savedmodel", path=str(tmp_path / name), trust=trust)
            job = SurveyJob(source=source, wants=make_wants(), directory=str(workers.directory("survey")))
            return workers.run(steps.survey, job)

        for name, path in (("write", target), ("read", secret)):
            with pytest.raises(StepFailed) as caught:
                survey(name, trust=False)
            assert isinstance(caught.value.error, RefusedError), caught.value.log
            assert str(path) in caught.value.error.what
            assert "--trust" in caught.value.error.next
        assert not target.exists()
        assert survey("read", trust=True).cases
        assert survey("write", trust=True).cases
        assert target.read_text() == "written"


@pytest.fixture
def maps(tmp_path: Path) -> tuple[Path, Path]:
    """A script that makes and maps a file outside of its scratch, and that file."""
    import torch

    target = tmp_path / "home/mapped"
    target.parent.mkdir()

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.path = str(target)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.from_file(self.path, shared=True, size=3, dtype=torch.float32)

    torch.jit.script(Net()).save(str(tmp_path / "net.pt"))
    return tmp_path / "net.pt", target


@confined
def test_a_script_that_opens_a_file_is_stopped_by_the_wall_where_its_artifact_runs(
    past_the_lists: Callable[[], Workers], maps: tuple[Path, Path], tmp_path: Path
) -> None:
    import numpy as np

    from mnnprep.model.files import file_ref, save_arrays

    script, target = maps
    save_arrays(tmp_path / "0.npz", {"inputs/x": np.ones(3, np.float32), "outputs/y": np.ones(3, np.float32)})
    case = CaseFile(index=0, origin="seed 0", dims={}, file=file_ref(tmp_path / "0.npz"))
    signature = Signature((TensorSpec("x", "float32", (3,)),), (TensorSpec("y", "float32", (3,)),))
    kind = ARTIFACTS["torchscript"]
    with past_the_lists() as workers:
        job = RunJob(
            model=str(script), cases=[case], signature=signature, directory=str(workers.directory("run"))
        )
        with pytest.raises(StepFailed, match="which its confinement refuses") as raised:
            workers.run(kind.run, job)
        assert raised.value.unable  # the check of the artifact is not run: nothing was learnt of it
        assert not target.exists()
        job = RunJob(
            model=str(script), cases=[case], signature=signature, directory=str(workers.directory("run"))
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mnnprep.workers.host.confinement_of", lambda *_, **__: None)
            assert workers.run(kind.run, job).outputs
        assert target.exists()


@confined
def test_workers_that_serve_several_sources_load_each_of_them(tmp_path: Path) -> None:
    import torch

    steps = steps_of("torchscript")
    with Workers(Limits(timeout=LONG * 3)) as workers:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            torch.jit.script(torch.nn.ReLU()).save(str(tmp_path / name / "net.pt"))
            job = LoadJob(source=Source(kind="torchscript", path=str(tmp_path / name / "net.pt")))
            assert workers.submit(steps.load, job, in_worker=True).result().value.threads


@confined
def test_the_command_refuses_such_a_script_and_says_why(maps: tuple[Path, Path], tmp_path: Path) -> None:
    """Whichever wall it meets first."""
    from support.command import call

    script, target = maps
    result = call(
        "prepare",
        script,
        "-o",
        tmp_path / "out",
        "--input",
        "x=float32[3]",
        "--to",
        "torchscript",
    )
    assert result.code == RefusedError.exit_code, result.err
    assert "--trust" in result.err
    assert not target.exists()
    assert not (tmp_path / "out").exists()


@confined
@pytest.mark.parametrize("deed", ["refused", "abort", "killed"])
def test_a_step_that_the_wall_stops_says_nothing_of_the_artifact(deed: str, tmp_path: Path) -> None:
    """Its check is not run, however the wall shows: as an error, as a case refused, as a crash with its
    words, as SIGSYS.
    """
    (tmp_path / "secret").write_text("x")
    (tmp_path / "scratch").mkdir()
    job = msgspec.structs.replace(run_job(tmp_path), model=deed, directory=str(tmp_path / "scratch"))
    confinement = reached(job, tmp_path / "scratch")
    program = f"""
import os, signal
from mnnprep.safety.faults import refuse_fault
from mnnprep.model.net import Refused
from mnnprep.errors import ConfinedError
from mnnprep.workers.confine import Confinement, confine, explained
confine(Confinement(write=({str(tmp_path / "scratch")!r},)))
try:
    open({str(tmp_path / "secret")!r})
except OSError as error:
    assert isinstance(explained(error), ConfinedError)
    refused = Refused(str(error))
    refused.__cause__ = error
    try:
        refuse_fault(refused, {str(tmp_path / "scratch")!r})
    except ConfinedError:
        print("stopped")
"""
    if deed == "refused":
        done = subprocess.run(
            [sys.executable, "-P", "-c", program],
            env=environment(),
            capture_output=True,
            timeout=LONG,
            text=True,
        )
        assert done.stdout == "stopped\n", done.stderr
        return
    log = f"terminate called: {tmp_path / 'secret'}: Permission denied" if deed == "abort" else ""
    (tmp_path / "scratch/step").mkdir()
    (tmp_path / "scratch/step/log.txt").write_text(log)
    pending = host._Pending("a:b", tmp_path / "scratch/step", RunResult, 1.0, 0, confinement=confinement)
    fate = {
        "exit": 0,
        "signal": signal.SIGABRT if deed == "abort" else signal.SIGSYS,
        "limit": "",
        "seconds": 0.0,
        "peak": 0,
    }
    with pytest.raises(StepFailed) as raised:
        host._judge(pending, fate)
    assert raised.value.unable
