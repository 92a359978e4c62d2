"""Prepares a raw dataset for training and evaluation: writes Parquet shards, a manifest, and a list of unusable items.

Writes into --out: <dataset>-<split>-<n>-of-<N>.parquet, manifest.json, quarantine.jsonl (one line per item that could
not be used: video, stage, reason), dropped.jsonl (what was left out of the others: video, reason, what) and
config.json. Run the same command again to continue. Exit code 0: everything was prepared; 3: finished, but some items
are in quarantine; 1: failed, or nothing is left to learn from.
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.common.cli import run
from pipelines.errors import Exit
from pipelines.sources.names import TOOL_FORMATS, ExifChoice, check_dataset


@dataclass(frozen=True)
class PrepareConfig:
    """Dataset, raw files and result."""

    dataset: str
    """own, refcoco, refcoco+, refcocog, ref-youtube-vos, ref-davis17, a2d-sentences, jhmdb-sentences, mevis, mevis-v2,
    long-rvos, revos, ref-sav or vots; or the format of an annotation tool: coco, youtube-vis, cvat, davis-folder, sa-v
    or label-studio."""
    split: str
    """Split, in the dataset's own spelling; a wrong one prints the choices."""
    out: str
    """Folder for the result, or s3://…, gs://…. Use one folder per dataset and split."""
    raw: str = ""
    """Folder of the dataset as its owners distribute it, or s3://…, gs://…. Optional with --show on prepared data. Of
    an annotation tool: its file, or a folder of such files."""
    frames: str | None = None
    """Folder of the images that the file of an annotation tool names, or s3://…, gs://…. Default: that of the file."""
    videos: str | None = None
    """Folder of the video files that were annotated, instead of --frames. The number at the end of a frame's name is
    its index in the video, from 0."""
    short_side: int | None = None
    """Pixels of the shorter side of every frame; smaller videos keep their size. Default: files are kept unchanged."""
    quality: int = 95
    """JPEG quality, 1 … 100, of frames that are encoded here: resized and turned ones, and those of video files."""
    exif: ExifChoice | None = None
    """Own frames with an EXIF orientation: apply turns them as viewers do, ignore leaves them as they are stored.
    Default: whichever way the masks fit."""
    verdicts: str | None = None
    """Table of verdicts on answers (review.csv, or what the page of annotate exports): sentences whose answer was
    rejected are left out."""
    tokenizer: str | None = None
    """Folder or name of a tokenizer, to count the tokens of long sentences: those of more than 512 are left out.
    Default: a sentence of at most 510 bytes is taken, since no tokenizer makes more tokens of it."""
    rows_per_shard: int | None = None
    """Videos or images per file. Default: 16 videos, 256 images, or 64 of coco and label-studio."""
    show: int = 0
    """Samples, spread over the data, to draw into contact-sheet.png with outline, box and sentence; below each, the
    training clip that the published recipe makes of it."""
    allow_failures: bool = False
    """Exit with code 0 even if items are in quarantine."""
    retry_quarantined: bool = False
    """Prepare shards with quarantined items again, for instance after repairing the raw data."""
    num_cpus: Annotated[int | None, tyro.conf.arg(metavar="INT|None")] = None
    """Most shards to prepare at the same time; also the logical cores of a local Ray. Default: the number of cores."""

    def __post_init__(self) -> None:
        """Checks the dataset's name and the numbers.

        Raises:
            LayoutError: there is no such dataset.
            ValueError: a number is out of range.
        """
        dataset = check_dataset(self.dataset)
        for name in ("frames", "videos"):
            if getattr(self, name) and dataset not in TOOL_FORMATS:
                raise ValueError(f"--{name} is not for {dataset}, but for {', '.join(TOOL_FORMATS)}. Leave it out.")
        if self.frames and self.videos:
            raise ValueError("--frames and --videos cannot both be given. Give the one that holds the pictures.")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"--quality must be between 1 and 100 (got {self.quality}).")
        for name in ("short_side", "rows_per_shard", "num_cpus"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be 1 or more (got {value}).")
        if self.show < 0:
            raise ValueError(f"--show must be 0 or more (got {self.show}).")


def main(config: PrepareConfig) -> Exit:
    """Prepares every shard that is not finished, and prints a summary."""
    from jobs.impl.prepare import prepare

    return prepare(config)


if __name__ == "__main__":
    run(PrepareConfig, main)
