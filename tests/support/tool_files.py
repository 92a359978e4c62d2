"""Small pictures and annotation files of tools, for the tests of the sources that read them."""

import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from pipelines.files import Folder
from pipelines.records import Record
from pipelines.sources.base import Reading, Source
from pipelines.sources.catalog import SourceOptions, entry_of
from sgmg.masks import rle_to_mask

HEIGHT, WIDTH = 20, 30
_coco: Any = coco_mask  # its type hints lack polygons, and counts as bytes


def write_frames(folder: Path, names: Iterable[str], size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """Writes an image of noise under each name, whose suffix is its format."""
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 255, (*size, 3), np.uint8)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)


def write_json(path: Path, content: Any) -> Path:
    """Writes a JSON file with indents, as people's tools do."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    return path


def opened(dataset: str, raw: Path, frames: Path | None = None, videos: Path | None = None) -> Source:
    """Returns a source of split train."""
    options = SourceOptions(frames=str(frames or ""), videos=str(videos or ""))
    return entry_of(dataset).open(Folder(str(raw)), "train", options)


def read_all(source: Source) -> list[Reading]:
    """Reads every item, sent through JSON as to a worker."""
    items = source.items()
    sent = [type(one)(*json.loads(json.dumps([one.video, one.key]))) for one in items]
    return [source.read(one) for one in sent]


def read_one(source: Source) -> Reading:
    """Reads the only item."""
    (reading,) = read_all(source)
    return reading


def masks_of(record: Record, place: int = 0) -> list[np.ndarray | None]:
    """Returns the masks of an object, by its place in the record; None where it is not annotated."""
    size = (record.height, record.width)
    return [None if rle is None else rle_to_mask(rle, size) for rle in record.objects[place].rle]


def said(record: Record) -> list[tuple[str, tuple[int, ...]]]:
    """Returns the sentences and the ids of their objects."""
    return [(one.text, one.targets) for one in record.expressions]


def polygon_mask(polygons: Sequence[Sequence[float]], size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Returns the mask that pycocotools makes of polygons."""
    rles = _coco.frPyObjects([list(one) for one in polygons], *size)
    with warnings.catch_warnings():
        # pycocotools decodes by an array interface that numpy has since changed.
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword")
        return _coco.decode(_coco.merge(rles)).astype(bool)


def coco_counts(mask: np.ndarray) -> list[int]:
    """Returns the run lengths of a mask down the columns, as uncompressed RLE has them."""
    flat = mask.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    return np.diff(np.concatenate([[0], edges])).tolist()


def compressed(mask: np.ndarray) -> dict[str, Any]:
    """Returns a mask as compressed RLE of COCO, by pycocotools."""
    rle = _coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def packed(words: Sequence[int], sizes: Sequence[int] = (3, 4, 8, 16)) -> list[int]:
    """Packs bytes as thi.ng/rle-pack does: runs of three or more are repeated words, all others are spelled out."""
    bits = [f"{len(words):032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in sizes)]
    start = 0
    while start < len(words):
        end = _run_end(words, start)
        repeated = end - start >= 3
        if not repeated:
            while end < len(words) and _run_end(words, end) - end < 3:
                end += 1
        end = min(end, start + 2 ** sizes[3])
        which = next(place for place, size in enumerate(sizes) if end - start <= 2**size)
        shown = words[start : start + 1] if repeated else words[start:end]
        bits += [str(int(repeated)), f"{which:02b}", f"{end - start - 1:0{sizes[which]}b}"]
        bits += [f"{word:08b}" for word in shown]
        start = end
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[place : place + 8], 2) for place in range(0, len(text), 8)]


def _run_end(words: Sequence[int], start: int) -> int:
    end = start
    while end < len(words) and words[end] == words[start]:
        end += 1
    return end
