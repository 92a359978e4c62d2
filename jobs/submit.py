"""Writes the file that a benchmark server or a tool reads, from predictions alone, and checks it.

If --meta lists something that is missing, nothing is written; the file appears complete or not at all. The same
predictions give the same bytes. Formats:

ref-youtube-vos, mevis: a zip of masks. ref-davis17: a zip (--out ends in .zip) or a folder of object ids.
coco: results of A2D, JHMDB, RefCOCO. youtube-vis: tracks of any video. coco-frames: the same, frame by frame. Both name
images <video>/<frame>.jpg, relative to the folder of the dataset's frames (JPEGImages).
"""

from dataclasses import dataclass
from typing import Literal

from jobs.common.cli import run
from pipelines.errors import Exit

FormatName = Literal["ref-youtube-vos", "mevis", "ref-davis17", "coco", "youtube-vis", "coco-frames"]


@dataclass(frozen=True)
class SubmitConfig:
    """Predictions, format and file."""

    predictions: str
    """Folder that jobs/predict.py wrote: local, s3://… or gs://…."""
    format: FormatName
    """Format of the file: the benchmark or tool that reads it."""
    out: str
    """File to write: .zip or .json (for ref-davis17 also a local folder)."""
    meta: str | None = None
    """Expected expressions to check against: the dataset's folder, its meta_expressions.json or COCO ground truth."""
    allow_missing: bool = False
    """Write the file even if --meta lists more expressions; the job then ends with exit code 3."""


def main(config: SubmitConfig) -> Exit:
    """Checks the predictions, writes the file, reads it back, and prints what was checked.

    Raises:
        JobError: the predictions are of another dataset than the format, or lack something that --meta lists; --out
            does not end like the format's files, or cannot be written.
    """
    from jobs.impl.submit import submit

    return submit(config)


if __name__ == "__main__":
    run(SubmitConfig, main)
