"""A bundle as a machine-learning bill of materials.

CycloneDX 1.6 in JSON (https://cyclonedx.org/docs/1.6/json/).

A pure function of the manifest: no time, and a serial number made of its bytes.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from typing import Any

from mnnprep import deps
from mnnprep.bundle import manifest_view as digest
from mnnprep.bundle.manifest import FILE_NAME, BundleFile, Manifest, TensorRecord
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Status

MODEL, ARTIFACT, SOURCE = "model", "artifact", "source"
NOT_FROM_PIP = ("python", "mnnconvert")


def bill(manifest: Manifest) -> dict[str, Any]:
    """The bill of materials of *manifest*: the model, what it was made of, and the tools that made it.

    The described component is the MNN model; the artifact if there is none.
    """
    data = manifest.to_bytes()
    artifact = _files(ARTIFACT, manifest.artifact.files)
    sources = [
        {
            "type": "file",
            "bom-ref": f"{SOURCE}:{f.name}",
            "name": f.file or f.name,
            "hashes": _hashes(f.sha256),
        }
        for f in manifest.source.files
    ]
    described = _model(manifest)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(data).hexdigest())}",
        "version": 1,
        "metadata": {
            "tools": {"components": [_tool(*tool) for tool in sorted(manifest.tools.items())]},
            "component": described,
        },
        "components": [*artifact, *sources],
        "dependencies": [
            {"ref": MODEL, "dependsOn": [a["bom-ref"] for a in artifact]},
            *({"ref": a["bom-ref"], "dependsOn": [s["bom-ref"] for s in sources]} for a in artifact),
        ],
    }


def _model(manifest: Manifest) -> dict[str, Any]:
    file = manifest.mnn or manifest.artifact.files[0]
    verdict = digest.concluded(manifest)
    properties = {
        "mnnprep:verdict": verdict.value,
        "mnnprep:manifest": hashlib.sha256(manifest.to_bytes()).hexdigest(),
        "mnnprep:source": manifest.source.name or manifest.source.kind,
        "mnnprep:method": manifest.artifact.method,
        "mnnprep:parameters": str(manifest.source.parameters),
        "mnnprep:cases": str(len(manifest.cases)),
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": manifest.source.name or file.path,
        "description": digest.meaning(manifest),
        "hashes": _hashes(file.sha256),
        "modelCard": _card(manifest),
        "properties": [
            *({"name": name, "value": value} for name, value in properties.items()),
            {"name": "mnnprep:file", "value": file.path},
            {"name": "mnnprep:manifest-file", "value": FILE_NAME},
        ],
    }


def _card(manifest: Manifest) -> dict[str, Any]:
    metrics = [
        {"type": catalog.METRIC.member(check.check), "value": str(value), "slice": where}
        for check in manifest.evidence
        if catalog.METRIC.has(check.check)
        for where, value in sorted(check.numbers.items())
        if where in digest.MEASURED_IN
    ]
    errors = [
        {"type": "max_abs", "value": f"{row.max_abs:.6g}", "slice": f"{row.output} in {row.stage}"}
        for row in digest.worst_errors(manifest.evidence)
        if row.max_abs is not None
    ]
    limits = [o.reason or o.check for o in digest.obstacles_of(manifest)]
    sizes = [
        f"{name}: proven at {', '.join(map(str, dim.proven)) or 'no size'}"
        for name, dim in manifest.signature.dims.items()
    ]
    asked = [dim.constraint for dim in manifest.signature.dims.values() if dim.constraint]
    card: dict[str, Any] = {
        "modelParameters": {
            "modelArchitecture": f"{manifest.source.framework}, {manifest.source.kind}",
            "inputs": [{"format": _format(t)} for t in manifest.signature.inputs],
            "outputs": [{"format": _format(t)} for t in manifest.signature.outputs],
        },
        "quantitativeAnalysis": {"performanceMetrics": [*metrics, *errors]},
        "considerations": {
            "technicalLimitations": [*sizes, *asked, *limits, digest.tolerance_words(manifest.tolerance)[0]]
        },
    }
    passed = [c.check for c in manifest.evidence if c.status is Status.PASSED]
    return card | {"properties": [{"name": "mnnprep:checks-passed", "value": ", ".join(passed)}]}


def _format(tensor: TensorRecord) -> str:
    return f"{tensor.mnn_name}: {tensor.mnn_dtype}{digest.shape_text(tensor.shape)} {tensor.layout}"


def _files(role: str, files: Iterable[BundleFile]) -> list[dict[str, Any]]:
    return [
        {"type": "file", "bom-ref": f"{role}:{f.path}", "name": f.path, "hashes": _hashes(f.sha256)}
        for f in files
    ]


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]


def _tool(name: str, version: str) -> dict[str, str]:
    tool = {"type": "application", "name": name, "version": version}
    distribution = deps.distribution_of(name).lower()
    return tool if name in NOT_FROM_PIP else tool | {"purl": f"pkg:pypi/{distribution}@{version}"}
