"""Ways to damage a file: by its bytes, and by the structure of its format, so that what is wrong lies deep
inside it.

Every function takes the bytes and a `random.Random` and gives other bytes; it never fails, whatever the bytes
are.
"""

from __future__ import annotations

import io
import json
import pickletools
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random], bytes]
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    127,
    128,
    255,
    256,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
)
NAMES = (
    "",
    "\x1b]0;own\x07",
    "\u202eevil",
    "a/../../b",
    "/etc/passwd",
    "\x00",
    "\ud800",
    "x" * 70_000,
    "-1",
    "\n",
    "é",
    "input",
    "{",
    "%s",
    "__proto__",
)
DEEP = 3000


def _bits(data: bytes, random: Random) -> bytes:
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 40))):
        out[random.randrange(len(out))] ^= 1 << random.randrange(8)
    return bytes(out)


def _truncated(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data))]


def _cut(data: bytes, random: Random) -> bytes:
    first, last = _extent(data, random)
    return data[:first] + data[last:]


def _repeated(data: bytes, random: Random) -> bytes:
    first, last = _extent(data, random)
    return data[:first] + data[first:last] * random.choice((2, 3, 50)) + data[last:]


def _moved(data: bytes, random: Random) -> bytes:
    (first, last), at = _extent(data, random), random.randrange(len(data))
    return data[:at] + data[first:last] + data[at:]


def _number(data: bytes, random: Random) -> bytes:
    """A size, an offset or a count, as wide as they come, is another."""
    width = random.choice((1, 2, 4, 4, 8))
    if len(data) < width:
        return data
    at = random.randrange(len(data) - width + 1)
    at -= at % width if random.random() < 0.7 else 0
    value = random.choice((*NUMBERS, len(data), len(data) - at)) % (1 << 8 * width)
    return data[:at] + value.to_bytes(width, random.choice(("little", "little", "big"))) + data[at + width :]


def _noise(data: bytes, random: Random) -> bytes:
    first, last = _extent(data, random)
    return data[:first] + random.randbytes(last - first) + data[last:]


def _extent(data: bytes, random: Random) -> tuple[int, int]:
    first = random.randrange(len(data))
    return first, min(len(data), first + random.choice((1, 2, 4, 8, 16, 64, 256, 1024)))


PLAIN: tuple[Mutation, ...] = (
    _bits,
    _bits,
    _truncated,
    _cut,
    _repeated,
    _moved,
    _number,
    _number,
    _number,
    _noise,
)


def by_bytes(data: bytes, random: Random) -> bytes:
    return random.choice(PLAIN)(data, random) if data else random.randbytes(random.randrange(16))


# Protobuf: a message is a list of (field number, wire type, value), a nested one the bytes of its own.

Message = list[tuple[int, int, Any]]


def parsed(data: bytes) -> Message | None:
    """*data* as a protobuf message, None where it is none."""
    at, found = 0, []
    try:
        while at < len(data):
            key, at = _varint(data, at)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, at = _varint(data, at)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
                value, at = data[at : at + size], at + size
            elif wire == 2:
                size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
            else:
                return None
            if not number or at > len(data):
                return None
            found.append((number, wire, value))
    except IndexError:
        return None
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128 or shift > 63:
            return value, at


def _encoded(value: int) -> bytes:
    out = bytearray()
    value %= 1 << 64
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def written(message: Message) -> bytes:
    parts = []
    for number, wire, value in message:
        content = _encoded(value) if wire == 0 else (_encoded(len(value)) if wire == 2 else b"") + value
        parts.append(_encoded(number << 3 | wire) + content)
    return b"".join(parts)


def protobuf(data: bytes, random: Random) -> bytes:
    message = parsed(data)
    if not message:
        return by_bytes(data, random)
    index = random.randrange(len(message))
    number, wire, value = message[index]
    if wire == 2 and len(value) > 1 and parsed(value) and random.random() < 0.8:
        message[index] = number, wire, protobuf(value, random)
        return written(message)
    match random.randrange(7):
        case 0:
            del message[index]
        case 1:
            message[index:index] = [message[index]] * random.choice((1, 2, 60))
        case 2:
            message[index] = (
                random.choice((number + 1, max(number - 1, 1), random.randrange(1, 40))),
                wire,
                value,
            )
        case 3:
            message.insert(random.randrange(len(message)), message.pop(index))
        case 4 if wire == 2:
            message[index] = number, wire, random.choice(NAMES).encode(errors="surrogatepass")
        case 5 if wire == 2:
            message[index] = number, wire, random.choice([m[2] for m in message if m[1] == 2])
        case _:
            changed = (
                random.choice(NUMBERS)
                if wire == 0
                else by_bytes(value, random)
                if wire == 2
                else random.randbytes(len(value))
            )
            message[index] = number, wire, changed
    return written(message)


def nested(data: bytes, random: Random) -> bytes:
    """A message inside itself, again and again."""
    message = parsed(data) or []
    places = [index for index, (_, wire, _) in enumerate(message) if wire == 2]
    if not places:
        return by_bytes(data, random)
    number = message[random.choice(places)][0]
    inside = data
    for _ in range(random.choice((2, 40, 200))):
        inside = written([(number, 2, inside)])
    return written([*message, (number, 2, inside)])


def tree(value: Any, random: Random) -> Any:
    """A JSON value with one subtree changed."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice(list(value))
        match random.randrange(12):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {random.choice(NAMES) if k == key else k: v for k, v in value.items()}
            case 2:
                return {**value, random.choice(NAMES): value[key]}
            case _:
                return {**value, key: tree(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.85:
        index = random.randrange(len(value))
        match random.randrange(10):
            case 0:
                return value[:index] + value[index + 1 :]
            case 1:
                return value[:index] + [value[index]] * random.choice((2, 100)) + value[index + 1 :]
            case _:
                return [*value[:index], tree(value[index], random), *value[index + 1 :]]
    number = float(random.choice(("1e400", "nan", "-1e400", "0.5")))
    return random.choice(
        (
            None,
            True,
            {},
            [],
            "",
            random.choice(NAMES),
            random.choice(NUMBERS),
            10**30,
            number,
            [value],
            {"class_name": value},
        )
    )


def json_text(data: bytes, random: Random) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # damaged already
        return by_bytes(data, random)
    if random.random() < 0.02:
        return data[:-1] + b',"deep":' + b"[" * DEEP * 40
    return json.dumps(tree(value, random), ensure_ascii=random.random() < 0.5).encode(errors="surrogatepass")


def text(data: bytes, random: Random) -> bytes:
    """Words of a text format left out, doubled, exchanged or replaced."""
    words = data.split(b" ")
    index = random.randrange(len(words))
    match random.randrange(7):
        case 0:
            del words[index]
        case 1:
            words[index:index] = [words[index]] * random.choice((1, 3, 2000))
        case 2:
            other = random.randrange(len(words))
            words[index], words[other] = words[other], words[index]
        case 3:
            words[index] = str(random.choice((*NUMBERS, "1e999", "nan", "-0", "0x", "1e5"))).encode()
        case 4:
            words[index] = json.dumps(random.choice(NAMES)).encode()
        case 5:
            words[index] += b" layer {" * random.choice((1, 100, DEEP))
        case _:
            return by_bytes(data, random)
    return b" ".join(words)


def pickled(data: bytes, random: Random) -> bytes:
    """Opcodes of a pickle left out, doubled, exchanged or given another argument."""
    try:
        places = [at for _, _, at in pickletools.genops(data) if at is not None]
    except Exception:  # damaged already
        return by_bytes(data, random)
    if not places:
        return by_bytes(data, random)
    end = data.find(b".", places[-1]) + 1
    parts = [data[a:b] for a, b in zip(places, [*places[1:], end], strict=True)]
    index = random.randrange(len(parts))
    match random.randrange(6):
        case 0:
            del parts[index]
        case 1:
            parts[index:index] = [parts[index]] * random.choice((1, 5, 3000))
        case 2:
            other = random.randrange(len(parts))
            parts[index], parts[other] = parts[other], parts[index]
        case 3:
            parts[index] = by_bytes(parts[index], random)
        case 4:
            parts.insert(
                index,
                random.choice(
                    (
                        b"0",
                        b"(",
                        b"t",
                        b"R",
                        b"b",
                        b"}",
                        b"u",
                        b"s",
                        b"a",
                        b"2",
                        b"N",
                        b"\x85",
                        b"h\x00",
                        b"Q",
                    )
                ),
            )
        case _:
            name = random.choice(NAMES).encode(errors="surrogatepass")
            parts.insert(index, b"X" + struct.pack("<I", len(name)) + name)
    return b"".join(parts) + data[end:]


def archive(data: bytes, random: Random) -> bytes:
    """A member of a ZIP archive left out, doubled, renamed or changed by its own format; checksums are
    right.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source:
            members = [(info.filename, source.read(info)) for info in source.infolist()]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError, zlib.error):
        return by_bytes(data, random)
    if not members:
        return by_bytes(data, random)
    index = random.randrange(len(members))
    name, content = members[index]
    match random.randrange(10):
        case 0:
            del members[index]
        case 1:
            members.append(members[index])
        case 2:
            members[index] = (random.choice(NAMES).encode(errors="replace").decode() or "x")[:60_000], content
        case _:
            members[index] = name, inside(name)(content, random)
    buffer = io.BytesIO()
    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(buffer, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as target,
    ):
        warnings.simplefilter("ignore")
        for name, content in members:
            target.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def with_header(data: bytes, random: Random) -> bytes:
    """safetensors: the JSON header changed, its length right."""
    if len(data) < 8 or random.random() < 0.2:
        return by_bytes(data, random)
    size = int.from_bytes(data[:8], "little")
    header = json_text(data[8 : 8 + size], random)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def flat(data: bytes, random: Random) -> bytes:
    """A flatbuffer: an offset, a slot of a table or a length is another."""
    if len(data) < 16:
        return by_bytes(data, random)
    out = bytearray(data)
    if random.random() < 0.5:
        at = 4 * random.randrange(len(data) // 4)
        old = int.from_bytes(out[at : at + 4], "little")
        near = (
            old + random.choice((-8, -4, 4, 8, 1, 64)),
            -old,
            old * 2,
            random.choice(NUMBERS),
            len(data) - at,
        )
        out[at : at + 4] = (random.choice(near) % 2**32).to_bytes(4, "little")
    else:
        at = 2 * random.randrange(len(data) // 2)
        out[at : at + 2] = random.choice((0, 1, 2, 4, 6, 8, 12, 64, 255, 65535)).to_bytes(2, "little")
    return bytes(out)


BY_SUFFIX: dict[str, tuple[Mutation, ...]] = {
    ".onnx": (protobuf, protobuf, protobuf, protobuf, nested),
    ".pb": (protobuf, protobuf, protobuf, nested),
    ".meta": (protobuf, protobuf, nested),
    ".caffemodel": (protobuf, protobuf, nested),
    ".prototxt": (text, text),
    ".json": (json_text, json_text, json_text),
    ".pkl": (pickled, pickled),
    ".safetensors": (with_header, with_header),
    ".mnn": (flat, flat),
    ".tflite": (flat, flat),
    ".keras": (archive, archive),
    ".npz": (archive,),
    ".pt": (archive, archive),
    ".pt2": (archive, archive),
    ".pth": (archive, pickled, pickled),
    ".ckpt": (archive, archive),
}


def inside(name: str) -> Mutation:
    """A mutation for a file or a member of that name: one of its format's, or one of bytes."""
    suffix = name[name.rfind(".") :] if "." in name else ""
    choices = (*BY_SUFFIX.get(suffix, ()), by_bytes)
    return lambda data, random: random.choice(choices)(data, random)


def damage(data: bytes, name: str, random: Random) -> bytes:
    """*data* of the file *name* with some things wrong in it."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        data = inside(name)(data, random)
    return data
