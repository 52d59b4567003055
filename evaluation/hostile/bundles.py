"""Bundles whose manifest, cases and files lead elsewhere, name code, or are no bundle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.hostile.case import BUNDLE, Canary, hostile, relative
from evaluation.places import environment


def bundle(canary: Canary) -> Path:
    """A right bundle, made once for all."""
    kept = canary.root.parent / "_bundle"
    if not kept.exists():
        import numpy as np

        from evaluation.hostile.onnx_files import node, save

        weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
        source = save(
            canary,
            [node("Conv", ["x", "w"], ["y"])],
            {"w": weight},
            inputs=[("x", [1, 3, 8, 8])],
            outputs=[("y", [1, 4, 6, 6])],
        )

        made = subprocess.run(
            [sys.executable, "-m", "mnnprep", "prepare", str(source), "-o", str(kept)],
            env=environment(),
            capture_output=True,
            text=True,
        )
        if made.returncode:
            raise RuntimeError(made.stderr[-500:])
        source.unlink()
    return Path(shutil.copytree(kept, canary.model / "bundle"))


def _case(manifest: Any, **entries: Any) -> None:
    manifest["cases"][0].update(entries)


def _file(manifest: Any, **entries: Any) -> None:
    manifest["artifact"]["files"][0].update(entries)


def sha(path: str) -> dict[str, Any]:
    data = Path(path).read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


EVIL = "<script>document.title='executed'</script>"
MANIFESTS: dict[str, tuple[str, Callable[[Any, Canary], None]]] = {
    "case-parent": (
        "a case that lies elsewhere",
        lambda m, c: _case(m, path=relative(c.secret, c.model / "bundle"), **sha(c.secret)),
    ),
    "case-absolute": ("a case by its absolute path", lambda m, c: _case(m, path=c.secret, **sha(c.secret))),
    "artifact-parent": (
        "an artifact that lies elsewhere",
        lambda m, c: _file(m, path=relative(c.secret, c.model / "bundle"), **sha(c.secret)),
    ),
    "mnn-parent": (
        "a converted model that lies elsewhere",
        lambda m, c: m["mnn"].update(path=relative(c.secret, c.model / "bundle"), **sha(c.secret)),
    ),
    "mnn-device": (
        "a converted model that is /dev/zero",
        lambda m, c: m["mnn"].update(path="/dev/zero", size=1 << 50),
    ),
    "nul-path": ("a path with a NUL", lambda m, c: _case(m, path="cases/0.npz\0x")),
    "empty-path": ("an empty path", lambda m, c: _case(m, path="")),
    "huge-size": ("a size of 2^70", lambda m, c: _file(m, size=1 << 70)),
    "metric-code": (
        "a metric whose code is a file and an expression",
        lambda m, c: m.update(metrics=[{"name": "evil", "code": f"{c.model}/evil.py:metric", "value": 1}]),
    ),
    "metric-module": (
        "a metric whose code is a module",
        lambda m, c: m.update(
            metrics=[{"name": "os:system"}, {"name": f"{c.model}/bundle/evil.py:metric", "sha256": "0" * 64}]
        ),
    ),
    "script": ("names that are a script", lambda m, c: _walk(m, EVIL)),
    "escapes": (
        "names that are escapes and marks",
        lambda m, c: _walk(m, "\x1b[31m\x1b]0;owned\x07\u202e\u2066"),
    ),
    "template": (
        "names that are a template",
        lambda m, c: _walk(
            m, "{{7*7}}{% for c in ().__class__.__base__.__subclasses__() %}{{c}}{% endfor %}"
        ),
    ),
    "format": (
        "an unknown format and framework",
        lambda m, c: (
            m["artifact"].update(format="../../evil"),
            m["source"].update(framework="os", kind="evil"),
        )[0],
    ),
    "schema": ("a schema of a later version", lambda m, c: m.update(schema="mnnprep.bundle/999")),
    "many-cases": ("100,000 cases", lambda m, c: m.update(cases=m["cases"][:1] * 100_000)),
    "no-cases": ("no case", lambda m, c: m.update(cases=[])),
    "types": ("every text a number", lambda m, c: m.update({k: 5 for k in list(m) if k != "schema"})),
    "target": (
        "a target that is a path",
        lambda m, c: m.update(targets=[{"arch": c.written}], options={"mnnconvert": c.written}),
    ),
    "converter": (
        "a converter that is a program of the bundle",
        lambda m, c: m.setdefault("tools", {}).update(
            {"mnnconvert": f"{c.model}/bundle/evil.sh", "MNN": f"{c.model}/bundle/evil.sh"}
        ),
    ),
}


def _walk(value: Any, text: str) -> None:
    """Append *text* to every text that people read, and to names."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if isinstance(inner, dict | list):
            _walk(inner, text)
        elif isinstance(inner, str) and key in (
            "reason",
            "name",
            "subject",
            "origin",
            "remedy",
            "note",
            "title",
            "kind",
            "framework",
            "text",
            "mnn_name",
            "source_name",
        ):
            value[key] = inner + text


for _name, (_tries, _change) in MANIFESTS.items():

    @hostile("bundle", "manifest", _name, _tries, commands=BUNDLE)
    def _(canary: Canary, change: Any = _change) -> Path:
        path = bundle(canary)
        for place in (canary.model, path):
            (place / "evil.py").write_text(
                f"import os\nos.system({canary.shell!r})\ndef metric(*a, **k): return 1\n"
            )
        (path / "evil.sh").write_text(f"#!/bin/sh\n{canary.shell}\n")
        (path / "evil.sh").chmod(0o755)
        manifest = json.loads((path / "manifest.json").read_text())
        change(manifest, canary)
        (path / "manifest.json").write_text(json.dumps(manifest))
        return path


def _replace(path: Path, target: str) -> None:
    path.unlink()
    os.symlink(target, path)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made,
        made.open("inputs/x.npy", "w", force_zip64=True) as out,
    ):
        from evaluation.hostile.weights import npy

        out.write(npy("(1, 498073600)", "<f4", b""))
        for _ in range(1900):
            out.write(bytes(1 << 20))


def _pickled(path: Path, canary: Canary) -> None:
    from evaluation.hostile.pickle_files import call
    from evaluation.hostile.weights import npy

    with zipfile.ZipFile(path, "w") as made:
        for name in ("inputs/x.npy", "outputs/y.npy"):
            made.writestr(name, npy("(1,)", "|O", call("os", "system", canary.shell)))


FILES: dict[str, tuple[str, Callable[[Path, Canary], None]]] = {
    "case-link": (
        "a case that is a link to the secret",
        lambda p, c: _replace(p / "cases" / "0.npz", c.secret),
    ),
    "cases-link": (
        "the directory of the cases is a link to the secrets",
        lambda p, c: (shutil.rmtree(p / "cases"), os.symlink(c.secrets, p / "cases"))[0],
    ),
    "artifact-link": (
        "an artifact that is a link to the secret",
        lambda p, c: _replace(p / "model.onnx", c.secret),
    ),
    "mnn-link": (
        "a converted model that is a link to the secret",
        lambda p, c: _replace(p / "model.mnn", c.secret),
    ),
    "report-link": (
        "a report that is a link to a file outside",
        lambda p, c: _replace(p / "report.html", c.secret_text),
    ),
    "manifest-link": (
        "a manifest that is a link to the secret",
        lambda p, c: _replace(p / "manifest.json", c.secret_text),
    ),
    "manifest-device": (
        "a manifest that is a link to /dev/zero",
        lambda p, c: _replace(p / "manifest.json", "/dev/zero"),
    ),
    "manifest-pipe": ("a manifest that is a pipe", lambda p, c: _fifo(p / "manifest.json")),
    "case-pipe": ("a case that is a pipe", lambda p, c: _fifo(p / "cases" / "0.npz")),
    "case-bomb": ("a case of 1.9 GB of zeros in 2 MB", lambda p, c: _bomb(p / "cases" / "0.npz")),
    "case-pickle": ("a case with a pickle", lambda p, c: _pickled(p / "cases" / "0.npz", c)),
    "manifest-deep": (
        "a manifest of 100,000 lists",
        lambda p, c: (p / "manifest.json").write_text("[" * 100_000 + "]" * 100_000) and None,
    ),
    "manifest-huge": (
        "a manifest of 300 MB",
        lambda p, c: (
            (p / "manifest.json").write_text(
                '{"schema":"mnnprep.bundle/1","x":[' + "1," * 150_000_000 + "1]}"
            )
            and None
        ),
    ),
    "manifest-list": (
        "a manifest that is a list",
        lambda p, c: (p / "manifest.json").write_text("[]") and None,
    ),
    "manifest-surrogate": (
        "a manifest with half a surrogate",
        lambda p, c: (
            (p / "manifest.json").write_text(
                (p / "manifest.json").read_text().replace('"verdict"', '"\\ud800": 1, "verdict"')
            )
            and None
        ),
    ),
    "loop": ("a directory that is a link to its own parent", lambda p, c: os.symlink(p, p / "loop")),
}
for _name, (_tries, _apply) in FILES.items():

    @hostile("bundle", "files", _name, _tries, commands=BUNDLE)
    def _(canary: Canary, name: str = _name, apply: Any = _apply) -> Path:
        path = bundle(canary)
        apply(path, canary)
        if name.startswith("case-") and (path / "cases" / "0.npz").is_file():
            manifest = json.loads((path / "manifest.json").read_text())
            _case(manifest, **sha(str(path / "cases" / "0.npz")))
            (path / "manifest.json").write_text(json.dumps(manifest))
        return path
