"""Small files that ask for gigabytes, each read as a job does. As a program it prints what readers say, as JSON."""

import io
import json
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipelines.files import Folder
from pipelines.images import checked_size, object_map
from pipelines.manifest import MANIFEST, MANIFEST_VERSION, read_manifest
from pipelines.scoring.prediction_source import open_submission
from pipelines.scoring.truth import VideoTruth
from pipelines.sources.a2d_clip import annotation_of_h5
from pipelines.sources.coco_annotations import segmentation_to_rle
from pipelines.sources.puppet_mask import puppet_masks
from pipelines.sources.reading import annotation_json
from pipelines.sources.refcoco_files import list_refs
from pipelines.sources.refs_pickle import plain_pickle
from sgmg.config import SgMgConfig

_PIECE = bytes(2**26)


def zeros(head: bytes, pieces: int, wbits: int = 15) -> bytes:
    """A zlib stream of some bytes and `pieces` times 64 MiB of zeros, without its checksum."""
    packer = zlib.compressobj(wbits=wbits)
    begin = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(_PIECE) + packer.flush(zlib.Z_FULL_FLUSH)  # stands for itself, wherever it is
    return begin + piece * pieces


class _Calls:
    def __init__(self, function: Callable[..., object], *values: object) -> None:
        self._call = (function, values)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def refs(_: Path) -> object:
    """A pickle of a few bytes that makes 4 GB of zeros."""
    data = pickle.dumps(_Calls(bytearray, 2**32), protocol=0)
    assert len(data) < 50
    return plain_pickle(data, "refs.p")


def nested_refs(folder: Path) -> object:
    """A pickle whose lists hold the same list twice, 40 deep, where text is expected: as text it has terabytes."""
    value: list[Any] = []
    for _ in range(40):
        value = [value, value]
    (folder / "refs.p").write_bytes(pickle.dumps([{"split": value}]))
    return list_refs(Folder(str(folder)), "refs.p", "instances.json", "train")


def submission(folder: Path) -> object:
    """60 files of 60 MB of zeros, of one video, in a zip of 4 MB."""
    packer = zlib.compressobj(wbits=-15)
    packed, crc = packer.compress(_PIECE[:60_000_000]) + packer.flush(), zlib.crc32(_PIECE[:60_000_000])
    local, central = b"", b""
    for number in range(60):
        name = f"Annotations/v/0/{number:05d}.png".encode()
        about = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(packed), 60_000_000, len(name), 0)
        central += b"PK\x01\x02\x14\x00" + about + struct.pack("<HHHII", 0, 0, 0, 0, len(local)) + name
        local += b"PK\x03\x04" + about + name + packed
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 60, 60, len(central), len(local), 0)
    (folder / "a.zip").write_bytes(local + central + end)
    with zipfile.ZipFile(folder / "a.zip") as archive:
        assert len(archive.infolist()) == 60
    names = tuple(f"{number:05d}" for number in range(60))
    truth = VideoTruth("ref-youtube-vos", "valid", "v", (40, 56), names, {}, ())
    return open_submission(str(folder / "a.zip"), davis=False).read([truth])


def mat(_: Path) -> object:
    """A MATLAB file of 4 MB that unpacks to 4.2 GB."""
    size = 62 * len(_PIECE)
    array = struct.pack("<IIIIII", 6, 8, 9, 0, 5, 12) + struct.pack("<iiiI", 240, 320, size // 240 // 320, 0)
    array += struct.pack("<II", 1, 9) + b"part_mask" + bytes(7) + struct.pack("<II", 2, size - 1)
    packed = zeros(struct.pack("<II", 14, 2**32 - 1) + array, 62)
    head = b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    return puppet_masks("v", "puppet_mask.mat", head + struct.pack("<II", 15, len(packed)) + packed)


def _large_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 13_000, 13_000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zeros(b"", 3)) + chunk(b"IEND", b"")


def large_mask(_: Path) -> object:
    """A mask of 13 000 x 13 000 pixels, 1.3 GB as whole numbers of 64 bits."""
    return object_map(_large_png())


def large_frame(_: Path) -> object:
    """The same as a frame."""
    return checked_size(_large_png())


def h5(_: Path) -> object:
    """Masks of 100 000 instances, none of which is written: 7 GB in a file of kilobytes."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, shape in (("instance", (100_000, 1)), ("reMask", (100_000, 320, 240)), ("reBBox", (4, 100_000))):
            file.create_dataset(name, shape=shape, dtype=np.uint8, chunks=True)
    return annotation_of_h5("v", "00001.h5", stream.getvalue(), (240, 320))


def polygon(_: Path) -> object:
    """A polygon that crosses its image a hundred thousand times: 10 GB of points along its outline."""
    return segmentation_to_rle([[-600, 0, 1200, 1] * 100_000], (480, 640))


def deep_json(folder: Path) -> object:
    """Lists in lists, 200 000 deep."""
    (folder / "a.json").write_text("[" * 200_000 + "]" * 200_000)
    return annotation_json(Folder(str(folder)), "a.json")


def manifest(folder: Path) -> object:
    """A row of 2**40 frames."""
    row = {"video": "v", "frames": 2**40, "expressions": 1}
    counts = dict.fromkeys(("videos", "frames", "objects", "expressions"), 1)
    about = {"dataset": "own", "split": "train", "config": {}, "counts": counts, "dropped": {}, "quarantined": 0}
    shards = [{"file": "a.parquet", "bytes": 1, "row_groups": [[row]]}]
    whole = {**about, "source_fingerprint": "", "schema_version": MANIFEST_VERSION, "shards": shards}
    (folder / MANIFEST).write_text(json.dumps(whole))
    return read_manifest(Folder(str(folder)))


def config(_: Path) -> object:
    """A model of 2**63 layers."""
    return SgMgConfig.from_dict(SgMgConfig.preset("tiny").to_dict() | {"decoder_layers": 2**63})


BOMBS = (refs, nested_refs, submission, mat, large_mask, large_frame, h5, polygon, deep_json, manifest, config)


def said(folder: Path) -> Iterator[tuple[str, str, str, int]]:
    """Name, kind of error, message, and the most MiB that the process ever held, after each file."""
    for bomb in BOMBS:
        kind, message = "none", "it was read"
        try:
            bomb(folder)
        except Exception as error:
            kind, message = type(error).__name__, str(error)
        lines = Path("/proc/self/status").read_text().splitlines()
        (peak,) = (int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
        yield bomb.__name__, kind, message, peak


if __name__ == "__main__":
    json.dump(list(said(Path(sys.argv[1]))), sys.stdout)
