"""Index maps in the format of DAVIS: a palette PNG per frame, in which each expression has a number and a colour."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from pipelines.exports.pngs import encode_object_map
from pipelines.exports.submission import EXPRESSIONS
from pipelines.exports.writing import in_order, zip_output
from pipelines.files import Folder, number_order
from pipelines.ledger import Rows
from pipelines.prediction_reader import read_segments
from pipelines.predictions import Prediction
from sgmg.masks import rle_area, rle_to_mask

ROOT = "Annotations"
COLUMNS = ("video", "object_id", "expression", "text")
"""Columns of the table of expressions; `object_id` is the value of the pixels."""
MOST = 255
"""Maximum number of expressions of a video: the values of a byte without 0."""

Named = tuple[str, Sequence[tuple[int, str]], tuple[int, int]]
"""Name of a frame in the zip, numbers and masks of its expressions sorted by score, and its size."""
Line = tuple[str, int, str, str]
"""Line of the table of expressions, in the order of `COLUMNS`."""


def write_video_maps(results: Mapping[str, Sequence[Rows]], out: Folder, name: str) -> int:
    """Writes `Annotations/<video>/<frame>.png` and `expressions.csv` into a zip, and returns the number of PNGs.

    Expressions are numbered from 1 in the order of their ids; where masks overlap, the higher score in that frame wins.
    The table says which number is which expression, for every video. A video with more than `MOST` expressions is left
    out.

    Args:
        results: where the rows of each video are.
        out: folder of the run.
        name: name of the zip.

    Raises:
        ValueError: a mask is damaged.
    """
    count = 0
    lines: list[Line] = []
    with zip_output(out, name) as add:
        for entry, data in in_order(_encoded, _frames(results, out, lines)):
            add(entry, data)
            count += 1
        add(EXPRESSIONS, _table(lines))
    return count


def _frames(results: Mapping[str, Sequence[Rows]], out: Folder, lines: list[Line]) -> Iterator[Named]:
    """Yields the frames of all videos, and adds the lines of each to the table."""
    for video, places in sorted(results.items()):
        numbers: dict[str, int] = {}
        pending: dict[str, list[tuple[float, int, str]]] = {}
        size = (0, 0)
        for rows in read_segments(out, places):
            ordered = sorted(rows, key=lambda row: number_order(row.expression))
            new = [row for row in ordered if row.expression not in numbers]
            if len(numbers) + len(new) > MOST:
                break
            for number, row in enumerate(new, start=len(numbers) + 1):
                numbers[row.expression] = number
                lines.append((video, number, row.expression, row.text))
            size = (rows[0].height, rows[0].width)
            for row in ordered:
                _gather(row, numbers[row.expression], size, pending)
            # Damage may have cost some rows frames of others, so that these are further on.
            done = min(number_order(row.frame_names[-1]) for row in rows)
            yield from _taken(video, pending, size, done)
        yield from _taken(video, pending, size)


def _gather(
    row: Prediction, number: int, size: tuple[int, int], pending: dict[str, list[tuple[float, int, str]]]
) -> None:
    """Adds score, number and mask of an expression in each frame in which it has a pixel."""
    query = row.queries[0]
    for frame, score, rle in zip(row.frame_names, query.scores, query.rle, strict=True):
        shown = pending.setdefault(frame, [])
        if rle_area(rle, size):
            shown.append((score, number, rle))


def _taken(
    video: str,
    pending: dict[str, list[tuple[float, int, str]]],
    size: tuple[int, int],
    last: tuple[tuple[int, str, str] | str, ...] | None = None,
) -> Iterator[Named]:
    """Takes out, and yields, the frames up to the last one that all expressions have come to; None: all of them."""
    for frame in sorted(pending, key=number_order):
        if last is not None and number_order(frame) > last:
            return
        yield f"{ROOT}/{video}/{frame}.png", [(number, rle) for _, number, rle in sorted(pending.pop(frame))], size


def _encoded(frame: Named) -> tuple[str, bytes]:
    name, shown, size = frame
    return name, encode_object_map(paint(shown, size), bits=8)  # people paint into them


def _table(lines: Sequence[Line]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(lines)
    return text.getvalue().encode()


def paint(shown: Iterable[tuple[int, str]], size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Fills each mask with its number, in order, so that later masks cover earlier ones; 0 elsewhere."""
    ids = np.zeros(size, np.uint8)
    for number, rle in shown:
        ids[rle_to_mask(rle, size)] = number
    return ids
