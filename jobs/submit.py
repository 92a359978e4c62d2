"""Writes the file that a benchmark server or a tool reads, from predictions alone, and checks it.

Nothing is written while something that --meta asks for is missing; the file appears whole or not at all. The same
predictions give the same bytes. Formats:

ref-youtube-vos, mevis: a zip of masks. ref-davis17: a zip (--out ends in .zip) or a folder of object ids.
coco: results of A2D, JHMDB, RefCOCO. youtube-vis: tracks of any video. coco-frames: the same, frame by frame.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from jobs.common.cli import Exit, run
from pipelines.errors import JobError
from pipelines.exports.coco import IMAGE_SETS, check_coco_results, write_coco_results
from pipelines.exports.davis import check_object_maps, write_object_maps
from pipelines.exports.mask_zip import MEVIS_ROOT, YTVOS_ROOT, check_mask_zip, write_mask_zip
from pipelines.exports.meta import compare, read_expected, with_empty_texts
from pipelines.exports.writing import parent_and_name
from pipelines.exports.youtube_vis import check_tracks, write_coco_frames, write_youtube_vis
from pipelines.files import Folder
from pipelines.prediction_reader import Predictions, read_predictions
from pipelines.session import durable_folder

FormatName = Literal["ref-youtube-vos", "mevis", "ref-davis17", "coco", "youtube-vis", "coco-frames"]


@dataclass(frozen=True)
class SubmitConfig:
    """From predictions to the file that is handed in."""

    predictions: str
    """Folder that jobs/predict.py wrote: local, s3://… or gs://…."""
    format: FormatName
    """Who is to read it."""
    out: str
    """File to write: .zip or .json (of ref-davis17 also a local folder)."""
    meta: str | None = None
    """What it is checked against: the dataset's folder, or its meta_expressions.json or COCO ground truth."""
    allow_missing: bool = False
    """Write what there is although --meta asks for more; the job then ends with exit code 3."""


class Format(NamedTuple):
    """A format: what may be written so, how, and how it is read back."""

    datasets: tuple[str, ...] | None  # None: any
    suffix: str  # of the file; empty: any, as a folder will do
    things: str  # what `write` counts
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


def main(config: SubmitConfig) -> Exit:
    """Checks the predictions, writes the file, reads it back; says what was checked.

    Raises:
        JobError: the predictions are of another dataset than the format, or lack what --meta asks for; --out has
            another ending than the format's files, or cannot be written.
    """
    chosen = FORMATS[config.format]
    predictions = read_predictions(Folder(config.predictions))
    if chosen.datasets is not None and predictions.dataset not in chosen.datasets:
        fitting = [name for name, form in FORMATS.items() if not form.datasets or predictions.dataset in form.datasets]
        raise JobError(
            f"{config.predictions} holds predictions of {predictions.dataset}, but --format {config.format} is for "
            f"{', '.join(chosen.datasets)}. Choose one of: {', '.join(fitting)}."
        )
    if not config.out.endswith(chosen.suffix):
        raise JobError(f"--format {config.format} is a {chosen.suffix} file, but --out is {config.out}. Rename it.")
    videos = {entry.video for entry in predictions.entries}
    print(
        f"{config.predictions}: {predictions.dataset} {predictions.split}, {len(videos)} videos, "
        f"{len(predictions.entries)} expressions"
    )
    predictions, complete = _compared(config, predictions)
    parent, name = parent_and_name(config.out)
    out = durable_folder(parent, "--out")
    started = time.perf_counter()
    try:
        count = chosen.write(predictions, out, name)
    except FileNotFoundError:  # of the predictions
        raise
    except OSError as error:
        raise JobError(
            f"--out {config.out} cannot be written ({error}). Nothing of it is left. Make room, or name another file."
        ) from error
    seconds = time.perf_counter() - started
    print(f"wrote {config.out}: {count} {chosen.things} in {seconds:.1f} s, {count / seconds:.0f}/s")
    print(f"read back: {chosen.check(predictions, out, name)}")
    return Exit.CLEAN if complete else Exit.QUARANTINE


def _compared(config: SubmitConfig, predictions: Predictions) -> tuple[Predictions, bool]:
    """The predictions, with those of empty sentences, and whether they are all that --meta asks for, which is said.

    Raises:
        JobError: something of it is missing, not asked for, or of another size; or it cannot be read.
    """
    if config.meta is None:
        print("not checked for completeness: give --meta, the dataset's folder or its file of expressions")
        return predictions, True
    try:
        wanted = read_expected(config.meta, predictions.dataset, predictions.split)
    except OSError as error:
        why = str(error).rstrip(".")
        raise JobError(
            f"--meta {config.meta} is not what {predictions.dataset} {predictions.split} can be compared with: {why}. "
            f"Give the folder of that dataset as its owners distribute it, or the file itself."
        ) from error
    predicted = len(predictions.entries)
    predictions = with_empty_texts(predictions, wanted)
    if wordless := len(predictions.entries) - predicted:
        print(f"{wordless} expressions have no words in {wanted.path}: their masks are empty")
    faults = compare(predictions, wanted)
    if not faults:
        what = f"{len(wanted.images)} images" if wanted.images else f"{len(wanted.videos)} videos, every expression"
        sizes = ", every frame, sizes of their images" if wanted.frames else ", every frame" if wanted.videos else ""
        print(f"complete by {wanted.path} ({wanted.rule}): {what}{sizes}")
        return predictions, True
    if config.allow_missing and not faults.others and not faults.sizes:
        print(f"incomplete by {wanted.path} ({wanted.rule}): {faults}")
        return predictions, False
    raise JobError(
        f"{config.predictions} does not fit {wanted.path} ({wanted.rule}): {faults}. Nothing was written. Run "
        f"jobs/predict.py again: it makes what is missing, and its quarantine.jsonl tells what could not be read; or "
        f"give the --meta of these predictions, or --allow-missing."
    )


if __name__ == "__main__":
    run(SubmitConfig, main)
