"""Ref-DAVIS17: a palette PNG of object ids for every frame, by annotator, as its evaluation reads them."""

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
"""Texts of an object: annotator 1 first frame, 1 full video, 2 first frame, 2 full video."""


def write_object_maps(predictions: Predictions, out: Folder, name: str) -> int:
    """Writes `anno_<k>/<video>/<00000 …>.png`, frames counted in their order; returns how many PNGs there are.

    Args:
        name: of a zip if it ends so, else of a local folder.

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
    """Reads the zip or folder back: every map that is wanted and no other, whole, of the right mode, size and ids.

    Returns:
        What was checked, for people.

    Raises:
        ValueError: something else is in it.
    """
    path = f"{out.uri.rstrip('/')}/{name}"
    groups = _by_annotator(predictions)
    wanted = {(k, video): len(entries[0].frame_names) for (k, video), entries in groups.items()}
    objects = {group: max(_object(entry) for entry in entries) for group, entries in groups.items()}
    sizes = {entry.video: entry.size for entry in predictions.entries}
    found: dict[tuple[int, str], int] = defaultdict(int)
    for one in read_object_maps(path, sizes):
        group = (one.annotator, one.video)
        if one.frame != f"{found[group]:05d}" or group not in wanted:
            raise ValueError(f"{path}: anno_{one.annotator}/{one.video}/{one.frame}.png is not wanted there.")
        if one.ids.max(initial=0) > objects[group]:
            raise ValueError(
                f"{path}: {one.video}, annotator {one.annotator}, frame {one.frame} holds object {one.ids.max()} of "
                f"{objects[group]}. Predict the video again."
            )
        found[group] += 1
    if found != wanted:
        short = [f"anno_{k}/{video}" for (k, video), frames in wanted.items() if found[k, video] != frames]
        raise ValueError(f"{path} lacks frames of {', '.join(short[:10])}. Write it again.")
    return f"{sum(wanted.values())} PNGs, each whole, of mode P with no id beyond its objects, of its video's size"


def _by_annotator(predictions: Predictions) -> dict[tuple[int, str], list[PredictionEntry]]:
    """The entries of every annotator and video, sorted.

    Raises:
        ValueError: an expression has no annotator, or a video lacks one of the four.
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
    """The id of the object an expression is about: expression 4·o + k speaks of object o from 0, id o + 1."""
    return int(entry.expression) // ANNOTATORS + 1


def _maps(predictions: Predictions) -> Iterator[tuple[str, bytes, Size]]:
    for (annotator, video), entries in _by_annotator(predictions).items():
        merged = [(found.merged, found) for found in predictions.read(entries) if found.merged is not None]
        if len(merged) != 1:
            raise ValueError(
                f"{video}, annotator {annotator}: {len(merged)} of {len(entries)} rows hold merged maps, but one must. "
                f"Predict the video again."
            )
        ((maps, found),) = merged
        for number, data in enumerate(maps):
            yield f"anno_{annotator}/{video}/{number:05d}.png", data, (found.height, found.width)


def _encoded(one: tuple[str, bytes, Size]) -> tuple[str, bytes]:
    entry, data, size = one
    try:
        ids = object_map(data)
        if ids.shape != size:
            raise ValueError(f"it has height, width {ids.shape}, not {size}")
        return entry, encode_object_map(ids)
    except ValueError as error:
        raise ValueError(f"The merged map of {entry} is unusable: {error}. Predict the video again.") from error


def _is_ours(name: str) -> bool:
    return re.fullmatch(r"anno_[0-3]", name) is not None
