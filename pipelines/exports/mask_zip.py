"""Submission zips of Ref-YouTube-VOS and MeViS: a mask PNG for every frame of every expression."""

from collections.abc import Iterator
from itertools import zip_longest

from pipelines.exports.pngs import decode_mask, encode_mask
from pipelines.exports.submission import name_order, submitted_files
from pipelines.exports.writing import in_order, zip_output
from pipelines.files import Folder
from pipelines.prediction_reader import Predictions
from sgmg.masks import Size, rle_to_mask

YTVOS_ROOT, MEVIS_ROOT = "Annotations/", ""
"""Folder that the server of each benchmark expects above `<video>/<expression id>/<frame>.png`."""


def write_mask_zip(predictions: Predictions, out: Folder, name: str, root: str = YTVOS_ROOT) -> int:
    """Writes the best query's masks at the original size, in mode L (0 and 255), and returns the number of PNGs.

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
    """Reads the zip back and checks that it holds exactly the expected PNGs, undamaged, of the right mode and size.

    Returns:
        A sentence that says what was checked.

    Raises:
        ValueError: a PNG is missing, unexpected or damaged, or has a wrong mode or size.
    """
    sizes = {
        f"{root}{entry.video}/{entry.expression}/{frame}.png": entry.size
        for entry in predictions.entries
        for frame in entry.frame_names
    }
    with submitted_files(out.uri_of(name)) as entries:
        for expected, found in zip_longest(sorted(sizes, key=name_order), (name for name, _ in entries)):
            if expected != found:
                raise ValueError(
                    f"{out.path(name)} holds {found or 'nothing'} instead of {expected or 'nothing'}. Write it again."
                )
        for _ in in_order(_checked, ((entry, load(), sizes[entry]) for entry, load in entries)):
            pass
    return f"{len(sizes)} PNGs, each whole, of mode L with 0 and 255 only, of its video's size"


def _masks(predictions: Predictions, root: str) -> Iterator[tuple[str, str, Size]]:
    for prediction in predictions:
        for frame, rle in zip(prediction.frame_names, prediction.queries[0].rle, strict=True):
            yield (
                f"{root}{prediction.video}/{prediction.expression}/{frame}.png",
                rle,
                (prediction.height, prediction.width),
            )


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
