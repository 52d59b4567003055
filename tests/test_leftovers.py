"""What a run keeps while it runs is gone when it ends, and when it was killed, once the next one runs;
nothing of anybody else's is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mnnprep.errors import SystemFault
from mnnprep.model.files import atomic_write
from mnnprep.safety import leftovers
from mnnprep.safety.leftovers import Scratch

HOLDS = (
    "import sys, time; from pathlib import Path; from mnnprep.model.files import atomic_write; from"
    " mnnprep.safety.leftovers import Scratch\n"
)


def held(code: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
    """A process that has run *code*, which holds something, and waits to be killed."""
    code = f"{HOLDS}{code}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def killed(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_scratch_is_kept_while_its_process_lives_and_no_longer(temporary: Path) -> None:
    code = (
        "s = Scratch(); (s.path / 'file').write_text('x'); (s.path / 'd').mkdir(); print('held', flush=True);"
        " time.sleep(60)"
    )
    process = held(code)
    (theirs,) = temporary.iterdir()
    os.utime(theirs, (0, 0))  # age says nothing
    with Scratch() as mine:
        assert {*temporary.iterdir()} == {mine, theirs}
        killed(process)
        assert (theirs / "file").exists()
    assert [*temporary.iterdir()] == [theirs]
    with Scratch() as mine:
        assert [*temporary.iterdir()] == [mine]
    assert [*temporary.iterdir()] == []


def test_nothing_but_a_scratch_is_taken_for_one(
    temporary: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Directories of a user's by such a name, links, and other people's."""
    for name in ("mnnprep-examples", "mnnprep-notes"):
        (temporary / name).mkdir()
        (temporary / name / "mine").write_text("mine")
    (temporary / "mnnprep-afile000").write_text("mine")
    other = tmp_path_factory.mktemp("other")
    (other / leftovers.SCRATCH_LOCK).touch()
    (temporary / "mnnprep-alink000").symlink_to(other)
    (temporary / "mnnprep-inside00").mkdir()
    (temporary / "mnnprep-inside00" / leftovers.SCRATCH_LOCK).symlink_to(other / leftovers.SCRATCH_LOCK)
    before = sorted(p.name for p in temporary.iterdir())
    with Scratch():
        pass
    assert sorted(p.name for p in temporary.iterdir()) == before
    assert (other / leftovers.SCRATCH_LOCK).exists()


def test_another_users_scratch_is_not_touched(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = temporary / "mnnprep-abcdefgh"
    left.mkdir()
    (left / leftovers.SCRATCH_LOCK).touch()
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with Scratch():
        assert left.exists()
    monkeypatch.undo()
    leftovers._sweep(temporary)
    assert not left.exists()


def test_a_scratch_that_was_being_removed_is_told_for_one(temporary: Path) -> None:
    """Its lock goes last; and one that was made a moment ago is empty."""
    (temporary / "mnnprep-abcdefgh").mkdir()
    (temporary / "mnnprep-ijklmnop").mkdir()
    (temporary / "mnnprep-ijklmnop" / leftovers.SCRATCH_LOCK).touch()
    with Scratch() as mine:
        assert [*temporary.iterdir()] == [mine]


def test_links_in_a_scratch_are_not_followed(
    temporary: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "kept").write_text("kept")
    with Scratch() as mine:
        (mine / "link").symlink_to(other)
        (mine / "d").mkdir()
        (mine / "d" / "link").symlink_to(other)
    assert [*temporary.iterdir()] == []
    assert (other / "kept").exists()


def test_no_place_for_a_scratch_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/nowhere']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(SystemFault) as caught:
        Scratch()
    assert "/nowhere" in caught.value.seen
    assert "TMPDIR" in caught.value.next


def test_an_unfinished_file_is_kept_while_its_writer_lives_and_no_longer(tmp_path: Path) -> None:
    code = (
        "w = atomic_write(sys.argv[1]); w.__enter__().write(b'half'); print('held', flush=True);"
        " time.sleep(60)"
    )
    target = tmp_path / "report.html"
    process = held(code, target)
    (tmp_path / ".report.html.mnnprep-a_link_1.tmp").symlink_to("elsewhere")
    with atomic_write(target) as file:
        file.write(b"whole")
    assert len([*tmp_path.iterdir()]) == 3
    killed(process)
    with atomic_write(target) as file:
        file.write(b"again")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".report.html.mnnprep-a_link_1.tmp", "report.html"]
    assert target.read_bytes() == b"again"
