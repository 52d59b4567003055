"""A ``.mnn`` file as JSON and back, exactly.

MNN's converter does both, and neither is exact (measured with MNN 3.6.1): it writes floats with six decimals,
so that a weight of 1e-7 becomes 0, and writes `nan` and `-inf`, which JSON does not have and which it can't
read again.  So its JSON gives the structure only.  Its printer visits the fields that a table has in their
order, so each key belongs to one present field: the two are walked together, and every float is taken from,
or put into, the flatbuffer itself.  Whatever else the JSON says must come out of MNN's reader as it went in.

In the JSON a float is the shortest text that reads back as the same float32; `nan` and the infinities are the
strings "nan", "inf" and "-inf" in its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mnnprep.errors import InternalError, RefusedError
from mnnprep.mnn.boundary import net_in
from mnnprep.mnn.capture import captured, last_lines
from mnnprep.mnn.info import package_converter
from mnnprep.model.json_value import Json
from mnnprep.safety.damage import reading
from mnnprep.wire.flatbuffer import Table, elements, follow, table_at, vector_length

NOT_FINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
AGREEMENT = 1e-6  # half of the sixth decimal, and the rounding of the print itself

# Outside strings, MNN writes the bare words; a float always has a point.
_BARE = re.compile(r'"(?:[^"\\]|\\.)*"|-?\b(?:nan|inf)\b')


class Float(float):
    """A float of the model, told from a whole number that MNN printed without a point."""


def to_json(model: Path, target: Path, scratch: Path) -> None:
    """Write the model as JSON to *target*; for a worker: MNN may crash.

    Raises:
        RefusedError: MNN can't open the model.
        InternalError: its JSON is not that of the file.
    """
    tree = _printed(model, scratch)
    data = model.read_bytes()
    with net_in(data) as net:
        for place, node, key, _ in _floats(tree, net, tree):
            printed = node[key]
            exact = _exact(data, place, printed if isinstance(printed, list) else [printed])
            node[key] = exact if isinstance(printed, list) else exact[0]
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False)
    target.write_bytes(text.encode("utf-8", "surrogateescape") + b"\n")


def from_json(source: Path, target: Path, scratch: Path) -> None:
    """Write the model that the JSON at *source* describes to *target*; for a worker.

    What MNN made of it is printed again and compared, for MNN reads a name that it does not know as another
    without a word.

    Raises:
        RefusedError: it is not JSON, not of a model, or has something that MNN does not take as it stands.
    """
    try:
        tree = json.loads(source.read_text(encoding="utf-8", errors="surrogateescape"), parse_float=Float)
    except (ValueError, RecursionError) as error:
        raise RefusedError(
            "this is not valid JSON", seen=f"{source.name}: {error}", next="correct the text at this place"
        ) from error
    if not isinstance(tree, dict) or not tree.get("oplists"):
        raise RefusedError(
            "this JSON is not an MNN model",
            seen=f"{source.name} has no oplists",
            next="give the JSON that `mnnprep json model.mnn` wrote",
        )
    plain, made = scratch / "plain.json", scratch / "made.mnn"
    with reading(source, "JSON"):
        plain.write_bytes(
            json.dumps(_without_words(tree), ensure_ascii=False).encode("utf-8", "surrogateescape")
        )
        log = _convert(
            [
                "-f",
                "JSON",
                "--modelFile",
                str(plain),
                "--MNNModel",
                str(made),
                "--bizCode",
                str(tree.get("bizCode", "mnnprep")),
            ]
        )
    if not made.is_file() or not made.stat().st_size:
        raise RefusedError(
            "MNN could not read this JSON as a model",
            seen=log,
            next="compare it with the output of `mnnprep json model.mnn`",
        )
    printed = _printed(made, scratch)
    _require_same(tree, printed, "")
    data = bytearray(made.read_bytes())
    with net_in(data) as net:
        for place, _, key, given in _floats(printed, net, tree):
            if key not in given:
                continue
            values = given[key] if isinstance(given[key], list) else [given[key]]
            raw = np.array(
                [NOT_FINITE.get(v, 0.0) if isinstance(v, str) else v for v in values], "<f4"
            ).tobytes()
            data[place : place + len(raw)] = raw
    target.write_bytes(data)


def _printed(model: Path, scratch: Path) -> Json:
    """MNN's JSON of *model*, read."""
    raw = scratch / f"{model.stem}.raw.json"
    log = _convert(["-f", "MNN", "--modelFile", str(model), "--JsonFile", str(raw)])
    if not raw.is_file() or not raw.stat().st_size:
        raise RefusedError(
            "MNN could not write this model as JSON", seen=log, next="use the MNN version that wrote it"
        )
    return _parse(raw.read_text(encoding="utf-8", errors="surrogateescape"))


def _require_same(given: Json, printed: Json, path: str) -> None:
    """Require that *printed* has all that is *given*, but for the values of floats.

    The floats are put in exactly.

    Raises:
        RefusedError: it does not.
    """
    seen = ""
    if isinstance(given, dict) and isinstance(printed, dict):
        for key, value in given.items():
            if key not in printed:
                seen = f"{path}/{key} is not taken"
                break
            _require_same(value, printed[key], f"{path}/{key}")
    elif isinstance(given, list) and isinstance(printed, list) and len(given) == len(printed):
        if not _is_float_list(printed):
            for index, (mine, theirs) in enumerate(zip(given, printed, strict=True)):
                _require_same(mine, theirs, f"{path}/{index}")
    elif isinstance(printed, float):
        seen = (
            ""
            if isinstance(given, (int, float)) or given in NOT_FINITE
            else f"{path} is {given!r} instead of a number"
        )
    elif given != printed:
        seen = f"{path} is {str(given)[:60]!r}, which MNN reads as {str(printed)[:60]!r}"
    if seen:
        raise RefusedError(
            "MNN does not take this JSON as it stands",
            seen=seen,
            next="correct it there; names must be those of MNN's schema",
        )


def _convert(argv: list[str]) -> str:
    """Run the package's converter; the last lines it printed."""
    with captured() as printed:
        package_converter()(["MNNConvert", *argv])
    return last_lines(printed.text)


def _parse(raw: str) -> Json:
    """MNN's JSON, its bare words as strings, its floats told from whole numbers."""
    quoted = _BARE.sub(lambda m: m[0] if m[0][0] == '"' else f'"{m[0]}"', raw)
    tree: Json = json.loads(quoted, parse_float=Float, strict=False)
    return tree


def _without_words(value: Json) -> Json:
    """The tree with 0 if a float is not finite; a name that happens to be "nan" is not a float and stays."""
    if isinstance(value, dict):
        return {
            k: 0.0 if k in _FLOAT_KEYS and isinstance(v, str) and v in NOT_FINITE else _without_words(v)
            for k, v in value.items()
        }
    if isinstance(value, list):
        number = any(isinstance(v, float) for v in value) or all(
            isinstance(v, str) and v in NOT_FINITE for v in value
        )
        return [
            0.0 if number and isinstance(v, str) and v in NOT_FINITE else _without_words(v) for v in value
        ]
    return value


# Scalar float fields of MNN's schema that may hold what JSON has no number for.
_FLOAT_KEYS = frozenset(
    {
        "min",
        "max",
        "scale",
        "zero",
        "minValue",
        "maxValue",
        "alpha",
        "beta",
        "epsilon",
        "slope",
        "aMax",
        "aMin",
        "quantScale",
        "scaleIn",
        "scaleOut",
    }
)


def _floats(tree: Json, table: Table, other: Json) -> Iterator[tuple[int, Any, Any, Any]]:
    """Return every float, and every list of floats, of *tree*, as MNN printed it.

    Each is (place in the file, container, key, the container in *other*).
    """
    stack: list[tuple[Any, Table, Any]] = [(tree, table, other)]
    while stack:
        node, at, mirror = stack.pop()
        fields = at.present()
        if len(fields) != len(node):
            raise InternalError(
                "MNN's JSON has other fields than the file", seen=f"{list(node)[:8]} for {len(fields)} fields"
            )
        for field, (key, value) in zip(fields, node.items(), strict=True):
            place = at.place(field)
            if isinstance(value, dict):
                stack.append((value, table_at(at.data, follow(at.data, place)), mirror.get(key, {})))
            elif isinstance(value, list):
                if any(isinstance(v, dict) for v in value):
                    places = elements(at.data, follow(at.data, place))
                    mirrors = mirror.get(key) or [{}] * len(value)
                    stack += [
                        (v, table_at(at.data, p), m) for v, p, m in zip(value, places, mirrors, strict=True)
                    ]
                elif _is_float_list(value):
                    start = follow(at.data, place)
                    if vector_length(at.data, start, 4) != len(value):
                        raise InternalError(
                            "MNN's JSON has another list than the file", seen=f"{key}: {len(value)} elements"
                        )
                    yield start + 4, node, key, mirror
            elif isinstance(value, float) or (
                isinstance(value, str) and value in NOT_FINITE and key in _FLOAT_KEYS
            ):
                yield place, node, key, mirror


def _is_float_list(value: list[Any]) -> bool:
    return bool(value) and all(
        isinstance(v, float) or (isinstance(v, str) and v in NOT_FINITE) for v in value
    )


def _exact(data: bytes, place: int, printed: list[Any]) -> list[float | str]:
    """The floats at *place* as JSON has them; InternalError where they are not those that MNN printed."""
    values = np.frombuffer(data, "<f4", len(printed), place)
    shown = np.array([NOT_FINITE[v] if isinstance(v, str) else v for v in printed], np.float64)
    finite = np.isfinite(values)
    if np.any(np.isfinite(shown) != finite) or np.any(
        np.abs(values[finite] - shown[finite]) > AGREEMENT * (1 + np.abs(shown[finite]))
    ):
        raise InternalError(
            "MNN's JSON has other numbers than the file", seen=f"{len(printed)} at byte {place}"
        )
    return [text if text in NOT_FINITE else float(text) for text in values.astype(str).tolist()]
