"""The zips of Ref-YouTube-VOS and MeViS: a PNG for every frame of every expression of every video."""

from collections.abc import Iterator
from itertools import zip_longest

from pipelines.exports.pngs import decode_mask, encode_mask
from pipelines.exports.submission import name_order, submitted_files
from pipelines.exports.writing import in_order, zip_output
from pipelines.files import Folder
from pipelines.prediction_reader import Predictions
from sgmg.masks import Size, rle_to_mask

YTVOS_ROOT, MEVIS_ROOT = "Annotations/", ""
"""What the server of each expects before `<video>/<expression id>/<frame>.png`."""


def write_mask_zip(predictions: Predictions, out: Folder, name: str, root: str = YTVOS_ROOT) -> int:
    """Writes the chosen query's masks, mode L, 0 and 255, at the original size; returns how many PNGs there are.

    Raises:
        ValueError: a file of predictions is damaged.
    """
    count = 0
    with zip_output(out, name) as add:
        for entry, data in in_order(_encoded, _masks(predictions, root)):
            add(entry, data)
            count += 1
    return count


def check_mask_zip(predictions: Predictions, out: Folder, name: str, root: str = YTVOS_ROOT) -> str:
    """Reads the zip back: every entry that is wanted and no other, each a whole PNG of the right mode and size.

    Returns:
        What was checked, for people.

    Raises:
        ValueError: something else is in it.
    """
    wanted = {
        f"{root}{entry.video}/{entry.expression}/{frame}.png": entry.size
        for entry in predictions.entries
        for frame in entry.frame_names
    }
    with submitted_files(f"{out.uri.rstrip('/')}/{name}") as entries:
        for expected, found in zip_longest(sorted(wanted, key=name_order), (name for name, _ in entries)):
            if expected != found:
                raise ValueError(f"{out.path(name)} should hold {expected} where it holds {found}. Write it again.")
        for _ in in_order(_checked, ((entry, load(), wanted[entry]) for entry, load in entries)):
            pass
    return f"{len(wanted)} PNGs, each whole, of mode L with 0 and 255 only, of its video's size"


def _masks(predictions: Predictions, root: str) -> Iterator[tuple[str, str, Size]]:
    for found in predictions:
        for frame, rle in zip(found.frame_names, found.queries[0].rle, strict=True):
            yield f"{root}{found.video}/{found.expression}/{frame}.png", rle, (found.height, found.width)


def _encoded(mask: tuple[str, str, Size]) -> tuple[str, bytes]:
    entry, rle, size = mask
    try:
        return entry, encode_mask(rle_to_mask(rle, size))
    except ValueError as error:
        raise ValueError(f"The prediction of {entry} is damaged: {error} Predict it again.") from error


def _checked(png: tuple[str, bytes, Size]) -> None:
    entry, data, size = png
    try:
        decode_mask(data, size)
    except ValueError as error:
        raise ValueError(f"{entry}: {error}. Write it again.") from error
