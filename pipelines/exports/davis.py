"""Ref-DAVIS17 results: for each annotator, a palette PNG of object ids per frame, as its evaluation expects."""

import re
from collections import defaultdict
from collections.abc import Iterator

from pipelines.exports.pngs import encode_object_map
from pipelines.exports.submission import read_object_maps
from pipelines.exports.writing import folder_output, in_order, zip_output
from pipelines.files import Folder
from pipelines.images import object_map
from pipelines.prediction_reader import PredictionEntry, Predictions
from sgmg.masks import Size

ANNOTATORS = 4
"""Number of texts per object: annotator 1 first frame, 1 full video, 2 first frame, 2 full video."""


def write_object_maps(predictions: Predictions, out: Folder, name: str) -> int:
    """Writes `anno_<k>/<video>/<00000 …>.png`, with frames counted in order, and returns the number of PNGs.

    Args:
        name: name of the output: a zip if it ends in `.zip`, else a local folder.

    Raises:
        ValueError: a video was predicted without merged maps, or a file of predictions is damaged.
    """
    target = zip_output(out, name) if name.endswith(".zip") else folder_output(out, name, _is_ours)
    count = 0
    with target as add:
        for entry, data in in_order(_encoded, _maps(predictions)):
            add(entry, data)
            count += 1
    return count


def check_object_maps(predictions: Predictions, out: Folder, name: str) -> str:
    """Reads the zip or folder back and checks that it holds exactly the expected maps, undamaged, of the right mode,
    size and ids.

    Returns:
        A sentence that says what was checked.

    Raises:
        ValueError: a map is missing, unexpected or damaged, or has a wrong mode, size or id.
    """
    path = out.uri_of(name)
    groups = _by_annotator(predictions)
    expected = {(k, video): len(entries[0].frame_names) for (k, video), entries in groups.items()}
    objects = {group: max(_object(entry) for entry in entries) for group, entries in groups.items()}
    sizes = {entry.video: entry.size for entry in predictions.entries}
    counts: dict[tuple[int, str], int] = defaultdict(int)
    for one in read_object_maps(path, sizes):
        group = (one.annotator, one.video)
        if one.frame != f"{counts[group]:05d}" or group not in expected:
            raise ValueError(
                f"{path}: anno_{one.annotator}/{one.video}/{one.frame}.png is not expected. Write it again."
            )
        if one.ids.max(initial=0) > objects[group]:
            raise ValueError(
                f"{path}: {one.video}, annotator {one.annotator}, frame {one.frame} holds object {one.ids.max()} of "
                f"{objects[group]}. Predict the video again."
            )
        counts[group] += 1
    if counts != expected:
        short = [f"anno_{k}/{video}" for (k, video), frames in expected.items() if counts[k, video] != frames]
        raise ValueError(f"{path} lacks frames of {', '.join(short[:10])}. Write it again.")
    return f"{sum(expected.values())} PNGs, each whole, of mode P with no id beyond its objects, of its video's size"


def _by_annotator(predictions: Predictions) -> dict[tuple[int, str], list[PredictionEntry]]:
    """Groups the entries by annotator and video, sorted.

    Raises:
        ValueError: an expression has no annotator.
    """
    groups: dict[tuple[int, str], list[PredictionEntry]] = defaultdict(list)
    for entry in predictions.entries:
        if entry.annotator not in range(ANNOTATORS):
            raise ValueError(
                f"{entry.video}, expression {entry.expression} has annotator {entry.annotator}, but Ref-DAVIS17 has "
                f"0 … {ANNOTATORS - 1}. Prepare and predict again."
            )
        groups[entry.annotator or 0, entry.video].append(entry)
    return dict(sorted(groups.items()))


def _object(entry: PredictionEntry) -> int:
    """Returns the id of an expression's object: expression 4·o + k is about object o (from 0), which has id o + 1."""
    return int(entry.expression) // ANNOTATORS + 1


def _maps(predictions: Predictions) -> Iterator[tuple[str, bytes, Size]]:
    for (annotator, video), entries in _by_annotator(predictions).items():
        merged = [
            (prediction.merged, prediction) for prediction in predictions.read(entries) if prediction.merged is not None
        ]
        if len(merged) != 1:
            raise ValueError(
                f"{video}, annotator {annotator}: {len(merged)} of {len(entries)} rows hold merged maps, but one must. "
                f"Predict the video again."
            )
        ((maps, prediction),) = merged
        for number, data in enumerate(maps):
            yield f"anno_{annotator}/{video}/{number:05d}.png", data, (prediction.height, prediction.width)


def _encoded(one: tuple[str, bytes, Size]) -> tuple[str, bytes]:
    entry, data, size = one
    try:
        return entry, encode_object_map(object_map(data, size))
    except ValueError as error:
        raise ValueError(f"The merged map of {entry} is unusable: {error}. Predict the video again.") from error


def _is_ours(name: str) -> bool:
    return re.fullmatch(r"anno_[0-3]", name) is not None
