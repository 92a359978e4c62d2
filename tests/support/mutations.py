"""Damage of files as disks, networks, editors and attackers do it, drawn from a seed."""

import gzip
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXTREMES = (0, -1, 1, 127, 255, 65535, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 10**30, 1e308, -1e308, 0.5)
_STRANGE: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: "",
    lambda: "é\x00\ud800",
    lambda: "../../x",
    lambda: "9" * 5000,
    lambda: "x" * 300,
    lambda: [],
    lambda: {},
    lambda: [[]],
    lambda: {"a": {}},
    lambda: _nested(150),
)
_BYTES = (b"\xff" * 8, b"\x00" * 8, b'"', b"\n", b",", b"\xef\xbb\xbf", b"\x80", b"[" * 400, b"1" * 5000)


def mutated(name: str, data: bytes, rng: random.Random) -> bytes:
    """A damaged copy of a file: often inside of what its suffix promises, where checksums do not protect it."""
    inside = _INSIDE.get(Path(name).suffix)
    try:
        if inside and rng.random() < 0.7:
            return inside(data, rng)
    except (
        ValueError,
        LookupError,
        struct.error,
        zipfile.BadZipFile,
    ):  # it is empty, or of another kind than its suffix says
        pass
    return _damaged_bytes(data, rng)


def _damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        first = rng.randrange(len(found) + 1)
        last = min(len(found), first + rng.choice((1, 2, 8, 64, 1000)))
        match rng.randrange(7):
            case 0 if first < len(found):
                found[first] ^= 1 << rng.randrange(8)
            case 1 if first < len(found):
                found[first] = rng.randrange(256)
            case 2:
                del found[first:]
            case 3:
                del found[first:last]
            case 4:
                found[first:first] = found[first:last]
            case 5:
                found[first:first] = rng.choice(_BYTES)
            case _:
                number = int(rng.choice(EXTREMES[:11])) & (2**64 - 1)
                form = rng.choice(("<I", ">I", "<Q", ">Q"))
                packed = struct.pack(form, number & (2**32 - 1) if form[1] == "I" else number)
                found[first : first + len(packed)] = packed
    return bytes(found)


def _damaged_json(data: bytes, rng: random.Random) -> bytes:
    value = [json.loads(data)]
    for _ in range(rng.choice((1, 1, 2))):
        holder, key = rng.choice(_places(value))
        match rng.randrange(5):
            case 0:
                holder[key] = rng.choice(EXTREMES)
            case 1 if key and (isinstance(holder, dict) or len(holder) > 1):
                del holder[key]
            case 2 if isinstance(holder, dict):
                holder[rng.choice(("", "../x", "0", "é"))] = holder.pop(key)
            case 3 if isinstance(holder[key], list) and holder[key]:
                holder[key].append(rng.choice(holder[key]))
            case _:
                holder[key] = rng.choice(_STRANGE)()
    return json.dumps(value[0]).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """All values inside of one: what holds each, and under which key."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def _damaged_text(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    fields = re.split(rb"([,;:\s])", lines[place])
    match rng.randrange(4):
        case 0:
            lines[place] = re.sub(rb"\d+", str(rng.choice(EXTREMES)).encode(), lines[place], count=1)
        case 1:
            del lines[place]
        case 2:
            lines.insert(place, rng.choice(lines))
        case _:
            fields[rng.randrange(len(fields))] = rng.choice((*_BYTES, b"../x", b"", b"9" * 30, b"x" * 300))
            lines[place] = b"".join(fields)
    return b"".join(lines)


def _damaged_zip(data: bytes, rng: random.Random) -> bytes:
    """Damages an entry, and packs all again: the checksums are right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as made:
        names = archive.namelist()
        chosen = rng.choice(names)
        for name in names:
            content = archive.read(name)
            changed = rng.choice(("../x.png", "a/b.png", "x" * 300)) if name == chosen and rng.random() < 0.1 else name
            made.writestr(changed, mutated(name, content, rng) if name == chosen else content)
    return out.getvalue()


def _damaged_png(data: bytes, rng: random.Random) -> bytes:
    """Damages one chunk, with the checksum of what it then holds."""
    place, chunks = 8, list[tuple[bytes, bytes]]()
    while place + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    number = rng.randrange(len(chunks))
    kind, content = chunks[number]
    chunks[number] = (kind, _damaged_bytes(content, rng))
    packed = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return data[:8] + b"".join(packed)


def _damaged_safetensors(data: bytes, rng: random.Random) -> bytes:
    (size,) = struct.unpack_from("<Q", data)
    head = _damaged_json(data[8 : 8 + size], rng)
    return struct.pack("<Q", len(head)) + head + data[8 + size :]


def _damaged_gzip(data: bytes, rng: random.Random) -> bytes:
    return gzip.compress(_damaged_json(gzip.decompress(data), rng))


_INSIDE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": _damaged_json,
    ".jsonl": _damaged_text,
    ".xml": _damaged_text,
    ".csv": _damaged_text,
    ".txt": _damaged_text,
    ".zip": _damaged_zip,
    ".pth": _damaged_zip,
    ".pt": _damaged_zip,
    ".png": _damaged_png,
    ".safetensors": _damaged_safetensors,
    ".gz": _damaged_gzip,
}
