"""Writes the file that a benchmark server or a tool reads, from predictions alone, and checks it.

If --meta lists something that is missing, nothing is written; the file appears, in place of an older one, when it was
read back and is right, or not at all. The same predictions give the same bytes. Formats:

ref-youtube-vos, mevis (v1 and v2, and what Long-RVOS and ReVOS score): a zip of masks. ref-davis17: a zip (--out ends
in .zip) or a folder of object ids. vots: the results of its referring track, packed as its toolkit does. ref-sav: JSON.
coco: results of A2D, JHMDB, RefCOCO. youtube-vis: tracks of any video. coco-frames: the same, frame by frame. Both name
images <video>/<frame>.jpg, relative to the folder of the dataset's frames (JPEGImages).
"""

import re
from dataclasses import dataclass
from typing import Literal

from jobs.common.cli import run
from pipelines.errors import Exit, JobError

FormatName = Literal["ref-youtube-vos", "mevis", "ref-davis17", "vots", "ref-sav", "coco", "youtube-vis", "coco-frames"]


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
    """Expected expressions to check against: the dataset's folder (of vots: the workspace), its meta_expressions.json
    or COCO ground truth."""
    tracker: str = "SgMg"
    """For vots: the short name of the tracker, as registered with the server: letters, digits and hyphens."""
    allow_missing: bool = False
    """Write the file even if --meta lists more expressions; the job then ends with exit code 3."""

    def __post_init__(self) -> None:
        """Checks the name of the tracker.

        Raises:
            JobError: it is empty, or holds something else than letters, digits and hyphens.
        """
        if not re.fullmatch("[A-Za-z0-9-]+", self.tracker):
            raise JobError(
                f"--tracker {self.tracker!r} should be letters, digits and hyphens: VOT asks for a name without "
                f"underscores. Give the short name that is registered with the server."
            )


def main(config: SubmitConfig) -> Exit:
    """Checks the predictions, writes the file, reads it back, and prints what was checked.

    Raises:
        JobError: the predictions are of another dataset than the format, or lack something that --meta lists; --out
            does not end like the format's files, or cannot be written; what is read back is not what was written.
    """
    from jobs.impl.submit import submit

    return submit(config)


if __name__ == "__main__":
    run(SubmitConfig, main)
