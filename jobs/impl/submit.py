"""Writes a submission: the body of jobs/submit.py."""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from jobs.submit import FormatName, SubmitConfig
from pipelines.errors import Exit, JobError
from pipelines.exports.coco import IMAGE_SETS, check_coco_results, write_coco_results
from pipelines.exports.davis import check_object_maps, write_object_maps
from pipelines.exports.mask_zip import MEVIS_ROOT, YTVOS_ROOT, check_mask_zip, write_mask_zip
from pipelines.exports.meta import compare, read_expected, with_empty_texts
from pipelines.exports.youtube_vis import check_tracks, write_coco_frames, write_youtube_vis
from pipelines.files import Folder, parent_and_name, without_options
from pipelines.prediction_reader import Predictions, read_predictions
from pipelines.session import durable_folder, on_cluster


class Format(NamedTuple):
    """Datasets that a format is for, and the functions that write it and read it back."""

    datasets: tuple[str, ...] | None  # None: any
    suffix: str  # of the file; empty: any, as it may be a folder
    things: str  # plural of the things that `write` counts
    write: Callable[[Predictions, Folder, str], int]
    check: Callable[[Predictions, Folder, str], str]


FORMATS: dict[FormatName, Format] = {
    "ref-youtube-vos": Format(
        ("ref-youtube-vos",),
        ".zip",
        "PNGs",
        partial(write_mask_zip, root=YTVOS_ROOT),
        partial(check_mask_zip, root=YTVOS_ROOT),
    ),
    "mevis": Format(
        ("mevis",), ".zip", "PNGs", partial(write_mask_zip, root=MEVIS_ROOT), partial(check_mask_zip, root=MEVIS_ROOT)
    ),
    "ref-davis17": Format(("ref-davis17",), "", "PNGs", write_object_maps, check_object_maps),
    "coco": Format(
        ("a2d-sentences", "jhmdb-sentences", *IMAGE_SETS), ".json", "results", write_coco_results, check_coco_results
    ),
    "youtube-vis": Format(None, ".json", "tracks", write_youtube_vis, check_tracks),
    "coco-frames": Format(None, ".json", "annotations", write_coco_frames, check_tracks),
}


def submit(config: SubmitConfig) -> Exit:
    """Checks the predictions, writes the file, reads it back, and prints what was checked.

    Raises:
        JobError: the predictions are of another dataset than the format, or lack something that --meta lists; --out
            does not end like the format's files, or cannot be written.
    """
    chosen = FORMATS[config.format]
    predictions = read_predictions(durable_folder(config.predictions, "--predictions"))
    if chosen.datasets is not None and predictions.dataset not in chosen.datasets:
        fitting = [name for name, form in FORMATS.items() if not form.datasets or predictions.dataset in form.datasets]
        raise JobError(
            f"{config.predictions} holds predictions of {predictions.dataset}, but --format {config.format} is for "
            f"{', '.join(chosen.datasets)}. Choose one of: {', '.join(fitting)}."
        )
    if not without_options(config.out).endswith(chosen.suffix):
        raise JobError(f"--format {config.format} is a {chosen.suffix} file, but --out is {config.out}. Rename it.")
    videos = {entry.video for entry in predictions.entries}
    print(
        f"{config.predictions}: {predictions.dataset} {predictions.split}, {len(videos)} videos, "
        f"{len(predictions.entries)} expressions"
    )
    predictions, complete = _compared(config, predictions)
    parent, name = parent_and_name(config.out)
    out = durable_folder(parent, "--out")
    try:
        count, seconds, checked = on_cluster(_write_and_check, chosen, predictions, out, name)
    except FileNotFoundError:  # a file of the predictions
        raise
    except OSError as error:
        raise JobError(
            f"--out {config.out} cannot be written ({error}). Nothing was left there. Free disk space, or choose "
            f"another file."
        ) from error
    print(f"wrote {config.out}: {count} {chosen.things} in {seconds:.1f} s, {count / seconds:.0f}/s")
    print(f"read back: {checked}")
    return Exit.CLEAN if complete else Exit.QUARANTINE


def _write_and_check(chosen: Format, predictions: Predictions, out: Folder, name: str) -> tuple[int, float, str]:
    """Writes the file and reads it back.

    Returns:
        How many things are in it, the seconds that writing took, and what was checked.
    """
    started = time.perf_counter()
    count = chosen.write(predictions, out, name)
    return count, time.perf_counter() - started, chosen.check(predictions, out, name)


def _compared(config: SubmitConfig, predictions: Predictions) -> tuple[Predictions, bool]:
    """Compares the predictions with --meta, and prints the result.

    Returns:
        The predictions, with empty masks added for expressions without words, and whether they are complete.

    Raises:
        JobError: predictions are missing, not listed in --meta, or of another size; or --meta cannot be read.
    """
    if config.meta is None:
        print("not checked for completeness: give --meta, the dataset's folder or its file of expressions")
        return predictions, True
    try:
        expected = read_expected(config.meta, predictions.dataset, predictions.split)
    except OSError as error:
        why = str(error).rstrip(".")
        raise JobError(
            f"--meta {config.meta} cannot be compared with predictions of {predictions.dataset} {predictions.split}: "
            f"{why}. Give the folder of that dataset as its owners distribute it, or the file itself."
        ) from error
    predicted = len(predictions.entries)
    predictions = with_empty_texts(predictions, expected)
    if wordless := len(predictions.entries) - predicted:
        print(f"{wordless} expressions have no words in {expected.path}: their masks are empty")
    mismatch = compare(predictions, expected)
    if not mismatch:
        what = (
            f"{len(expected.images)} images" if expected.images else f"{len(expected.videos)} videos, every expression"
        )
        sizes = ", every frame, sizes as the images" if expected.frames else ", every frame" if expected.videos else ""
        print(f"complete according to {expected.path} ({expected.rule}): {what}{sizes}")
        return predictions, True
    if config.allow_missing and not mismatch.others and not mismatch.sizes:
        print(f"incomplete according to {expected.path} ({expected.rule}): {mismatch}")
        return predictions, False
    raise JobError(
        f"{config.predictions} does not match {expected.path} ({expected.rule}): {mismatch}. Nothing was written. "
        f"Run jobs/predict.py again to predict what is missing (its quarantine.jsonl lists what could not be read), "
        f"give the --meta that belongs to these predictions, or add --allow-missing."
    )
