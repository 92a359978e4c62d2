"""Segments the objects that sentences describe, in any videos: one command from video files to mask tracks.

Writes into --out: predictions/*.parquet, from which every other format is made; on request frames/<video>/*.jpg,
youtube_vis.json, coco.json, cvat/*.xml, png.zip, davis.zip, overlay/*.mp4 and report/index.html; quarantine.jsonl
(one line per item that could not be used: video, stage, reason) and config.json. Run the same command again to
continue; more videos or sentences are added to the results that exist. Exit code 0: everything was annotated; 3:
finished, but some items are in quarantine; 1: failed.
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.common.cli import run
from jobs.common.predictor_config import PredictorConfig
from pipelines.annotate.settings import FormatName, Settings
from pipelines.annotate.verdict_names import Verdict
from pipelines.errors import Exit
from pipelines.video.defaults import LENGTH, OVERLAP, TIME_LIMIT
from sgmg.following import CONTEXT


@dataclass(frozen=True)
class _InputFlags:
    """Flags that name the videos, the sentences and the result."""

    videos: tuple[str, ...]
    """Files, folders, globs ('raw/**/*.mp4') or .txt lists of them, local or s3://…, gs://…: mp4, mov, mkv, webm, avi,
    mpg, mts, wmv, flv, 3gp, gif …, and folders of images (jpg, png, webp, bmp, tif)."""
    checkpoint: str
    """A folder that training wrote, a published .pth file, mlflow:<run id>, or models:/<name>/<version>."""
    out: str
    """Folder for the result, or s3://…, gs://…. Use one folder per checkpoint and settings."""
    expressions: str | None = None
    """Sentences to segment: a .csv or .jsonl with video, expression and optionally id; or a .txt with sentences that
    apply to every video."""
    text: tuple[str, ...] = ()
    """The sentences themselves, instead of a file; they apply to every video."""
    formats: tuple[FormatName, ...] = ("parquet",)
    """Formats besides Parquet. frames: the segmented frames as JPEG, which the two JSON formats then name.
    youtube-vis: JSON of tracks. coco: JSON of frames. cvat: XML of masks, a file per video (CVAT for video 1.1). png:
    masks per sentence (layout of YouTube-VOS). davis: masks of all sentences together, and a table of the sentences.
    overlay: videos with masks. report: an HTML page. docs/tools.md shows which tools open them, and how."""
    parts: bool = False
    """Write youtube-vis and coco as folders of files of at most 256 MB, each whole in itself, instead of one file."""
    review: str | None = None
    """File for a table of all answers, the most doubtful first: low scores, windows that disagree, masks that come and
    go, areas that jump. Fill in its column verdict, or use the page of --formats report."""
    verdicts: str | None = None
    """Table of verdicts: review.csv, or what the page exports."""
    redo: tuple[Verdict, ...] = ()
    """Answer only what has one of these verdicts: rejected, to-correct. Into another --out, by another checkpoint."""
    fps: Annotated[float | None, tyro.conf.arg(metavar="FLOAT|None")] = None
    """Frames per second to segment, chosen by time. Default: every frame. Of folders of images all are taken, unless
    --image-fps, the folder's name ('cat_5fps') or their EXIF times tell when they were taken."""
    image_fps: Annotated[float | None, tyro.conf.arg(metavar="FLOAT|None")] = None
    """Images per second in folders of images: the rate at which they were extracted."""
    min_score: float = 0.3
    """Frames with a score (0 … 1) below this get an empty mask: the object is not visible."""
    shots: bool = False
    """Detect cuts first (reads every video twice): no window crosses a cut, and objects are not tracked across it."""
    window: int = LENGTH
    """Frames encoded together."""
    overlap: Annotated[int | None, tyro.conf.arg(metavar="INT|None")] = None
    """Frames shared by neighbouring windows, used to link their objects. Default: 4; 0 with --independent-windows; 7
    with --causal, always."""
    independent_windows: bool = False
    """Choose the object in each window by score alone, as the published inference does: faster, but the object may
    change between windows."""
    causal: bool = False
    """Answer each frame from itself and the 7 frames before it, as a live stream is answered, and follow the object
    from frame to frame. Slower: the model encodes 8 frames for each."""
    short_side: int = 360
    """Pixels of the shorter side of frames that the model reads. Use fewer for small models."""
    time_limit: float = TIME_LIMIT
    """Seconds without a decoded frame before a video is given up; long videos may take longer in total."""
    verify: bool = False
    """Look at every video again, also where its size and time have not changed since it was annotated."""
    storage: str = "runs"
    """Folder of the training's results: mlflow:… and models:/… are looked up in it, and the MLflow database is kept
    in it."""
    track: bool = True
    """Record config and summary in MLflow (at MLFLOW_TRACKING_URI, else in a database in --storage)."""


@dataclass(frozen=True)
class AnnotateConfig(PredictorConfig, _InputFlags):  # dataclasses take the last base's fields first, so --help does too
    """Videos, sentences, result, and the resources to use."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: a number is out of range, --videos is empty, or not exactly one of --expressions and --text is
                given.
        """
        super().__post_init__()
        self.check_counts("short_side")
        if self.causal and self.overlap is not None:
            raise ValueError(
                f"--causal decides by how many frames windows overlap: leave out --overlap {self.overlap}."
            )
        _ = self.settings
        if not self.videos:
            raise ValueError("--videos is empty. Give at least one file, folder, glob or list.")
        if bool(self.expressions) == bool(self.text):
            raise ValueError("Give either --expressions FILE or --text 'a sentence' …: the sentences to segment.")
        if bool(self.redo) != bool(self.verdicts):
            raise ValueError("Give --redo and --verdicts together: what to answer again, and the table that says so.")
        if not self.time_limit > 0:
            raise ValueError(f"--time-limit must be above 0 seconds (got {self.time_limit}).")

    @property
    def settings(self) -> Settings:
        """Frames to segment, their windows, and the score threshold."""
        default_overlap = 0 if self.independent_windows else min(OVERLAP, self.window - 1)
        if self.causal:
            default_overlap = CONTEXT - 1
        return Settings(
            fps=self.fps,
            image_fps=self.image_fps,
            window=self.window,
            overlap=default_overlap if self.overlap is None else self.overlap,
            shots=self.shots,
            independent=self.independent_windows,
            min_score=self.min_score,
            causal=self.causal,
        )


def main(config: AnnotateConfig) -> Exit:
    """Annotates every video that is not finished, writes the formats, and prints a summary."""
    from jobs.impl.annotate import annotate

    return annotate(config)


if __name__ == "__main__":
    run(AnnotateConfig, main)
