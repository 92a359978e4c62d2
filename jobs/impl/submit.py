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
from pipelines.exports.ref_sav import check_ref_sav, write_ref_sav
from pipelines.exports.vots import check_vots, write_vots
from pipelines.exports.writing import checked_output
from pipelines.exports.youtube_vis import check_tracks, write_coco_frames, write_youtube_vis
from pipelines.files import Folder, parent_and_name
from pipelines.prediction_reader import Predictions, read_predictions
from pipelines.session import durable_folder, on_cluster


class Format(NamedTuple):
    """Datasets that a format is for, and the functions that write it and read it back."""

    datasets: tuple[str, ...] | None  # None: any
    suffix: str  # of the file; empty: any, as it may be a folder
    things: str  # plural of the things that `write` counts
    write: Callable[[Predictions, Folder, str], int]
    check: Callable[[Predictions, Folder, str], str]


MASK_ZIPS = ("mevis", "mevis-v2", "long-rvos", "revos")
"""Datasets whose results are masks in folders of their videos, at the root of the zip."""

FORMATS: dict[FormatName, Format] = {
    "ref-youtube-vos": Format(
        ("ref-youtube-vos",),
        ".zip",
        "PNGs",
        partial(write_mask_zip, root=YTVOS_ROOT),
        partial(check_mask_zip, root=YTVOS_ROOT),
    ),
    "mevis": Format(
        MASK_ZIPS, ".zip", "PNGs", partial(write_mask_zip, root=MEVIS_ROOT), partial(check_mask_zip, root=MEVIS_ROOT)
    ),
    "ref-davis17": Format(("ref-davis17",), "", "PNGs", write_object_maps, check_object_maps),
    "vots": Format(("vots",), ".zip", "files", write_vots, check_vots),
    "ref-sav": Format(("ref-sav",), ".json", "expressions", write_ref_sav, check_ref_sav),
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
            does not end like the format's files, or cannot be written; what is read back is not what was written.
    """
    predictions = read_predictions(durable_folder(config.predictions, "--predictions"))
    chosen = _chosen_format(config, predictions.dataset)
    out, name = _place_of(config, chosen)
    videos = {entry.video for entry in predictions.entries}
    print(
        f"{config.predictions}: {predictions.dataset} {predictions.split}, {len(videos)} videos, "
        f"{len(predictions.entries)} expressions"
    )
    predictions, complete = _compared(config, predictions)
    try:
        count, seconds, checked = on_cluster(_write_and_check, chosen, predictions, out, name)
    except FileNotFoundError:  # a file of the predictions
        raise
    except OSError as error:
        raise JobError(
            f"--out {config.out} cannot be written ({error}): it was not touched. Free disk space, or choose another "
            f"file."
        ) from error
    print(f"wrote {config.out}: {count} {chosen.things} in {seconds:.1f} s, {count / seconds:.0f}/s")
    print(f"read back: {checked}")
    return Exit.CLEAN if complete else Exit.QUARANTINE


def _chosen_format(config: SubmitConfig, dataset: str) -> Format:
    """Returns the format of --format.

    Raises:
        JobError: it is for other datasets.
    """
    chosen = FORMATS[config.format]
    if chosen.datasets is not None and dataset not in chosen.datasets:
        fitting = [name for name, form in FORMATS.items() if not form.datasets or dataset in form.datasets]
        raise JobError(
            f"{config.predictions} holds predictions of {dataset}, but --format {config.format} is for "
            f"{', '.join(chosen.datasets)}. Choose one of: {', '.join(fitting)}."
        )
    return chosen._replace(write=partial(write_vots, tracker=config.tracker)) if config.format == "vots" else chosen


def _place_of(config: SubmitConfig, chosen: Format) -> tuple[Folder, str]:
    """Returns the folder and the name of the file or folder of --out.

    Raises:
        JobError: it does not end like the format's files, or would be a folder elsewhere than on this machine.
    """
    parent, name = parent_and_name(config.out)
    if not name.endswith(chosen.suffix):
        raise JobError(f"--format {config.format} is a {chosen.suffix} file, but --out is {config.out}. Rename it.")
    out = durable_folder(parent, "--out")
    if not (chosen.suffix or name.endswith(".zip") or out.is_local):
        raise JobError(f"--out {config.out} would be a folder, which has to be a local one. Choose {name}.zip instead.")
    return out, name


def _write_and_check(chosen: Format, predictions: Predictions, out: Folder, name: str) -> tuple[int, float, str]:
    """Writes the file and reads it back. It takes its name, and the place of an older one, only if it is right.

    Returns:
        How many things are in it, the seconds that writing took, and what was checked.

    Raises:
        JobError: what is read back is not what was written.
    """
    with checked_output(out, name) as (folder, draft):
        started = time.perf_counter()
        count = chosen.write(predictions, folder, draft)
        seconds = time.perf_counter() - started
        try:
            checked = chosen.check(predictions, folder, draft)
        except ValueError as error:
            said = str(error).replace(folder.path(draft), out.path(name))
            raise JobError(f"What was read back is not what was written: {said} --out was not touched.") from error
    return count, seconds, checked


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
