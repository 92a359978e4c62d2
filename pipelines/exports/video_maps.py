"""Index maps in the format of DAVIS: a palette PNG per frame, in which each expression has a number and a colour."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from pipelines.exports.pngs import encode_object_map
from pipelines.exports.writing import in_order, zip_output
from pipelines.files import Folder, number_order
from pipelines.ledger import Rows
from pipelines.prediction_reader import read_segments
from pipelines.predictions import Prediction
from sgmg.masks import rle_area, rle_to_mask

ROOT = "Annotations"
MOST = 255
"""Maximum number of expressions of a video: the values of a byte without 0."""

Named = tuple[str, Sequence[tuple[int, str]], tuple[int, int]]
"""Name of a frame in the zip, numbers and masks of its expressions sorted by score, and its size."""


def write_video_maps(results: Mapping[str, Sequence[Rows]], out: Folder, name: str) -> int:
    """Writes `Annotations/<video>/<frame>.png` into a zip and returns the number of PNGs.

    Expressions are numbered from 1 in the order of their ids; where masks overlap, the higher score in that frame wins.
    A video with more than `MOST` expressions is left out.

    Args:
        results: where the rows of each video are.
        out: folder of the run.
        name: name of the zip.

    Raises:
        ValueError: a mask is damaged.
    """
    count = 0
    with zip_output(out, name) as add:
        for entry, data in in_order(_encoded, _frames(results, out)):
            add(entry, data)
            count += 1
    return count


def _frames(results: Mapping[str, Sequence[Rows]], out: Folder) -> Iterator[Named]:
    for video, places in sorted(results.items()):
        for rows in read_segments(out, places):
            if len(rows) > MOST:
                break
            yield from _of_segment(video, sorted(rows, key=lambda row: number_order(row.expression)))


def _of_segment(video: str, rows: Sequence[Prediction]) -> Iterator[Named]:
    size = (rows[0].height, rows[0].width)
    for place, frame in enumerate(rows[0].frame_names):
        shown = [
            (row.queries[0].scores[place], number, row.queries[0].rle[place])
            for number, row in enumerate(rows, start=1)
            if rle_area(row.queries[0].rle[place], size)
        ]
        yield f"{ROOT}/{video}/{frame}.png", [(number, rle) for _, number, rle in sorted(shown)], size


def _encoded(frame: Named) -> tuple[str, bytes]:
    name, shown, size = frame
    return name, encode_object_map(paint(shown, size))


def paint(shown: Iterable[tuple[int, str]], size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Fills each mask with its number, in order, so that later masks cover earlier ones; 0 elsewhere."""
    ids = np.zeros(size, np.uint8)
    for number, rle in shown:
        ids[rle_to_mask(rle, size)] = number
    return ids
