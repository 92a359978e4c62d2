"""Finds what sentences speak of in any videos: one command from video files to mask tracks.

--out then holds predictions/*.parquet, which every other format is made from, and those: youtube_vis.json, coco.json,
png.zip, davis.zip, overlay/*.mp4, report/index.html; quarantine.jsonl (a line an item that could not be used: video,
stage, reason) and config.json. The same command again does what is left to do; more videos or sentences are added to
what is there. Exit code 0: all is there; 3: finished, but something is in quarantine; 1: failed.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any

import tyro
from ray.exceptions import RayError

from jobs.common.cli import Exit, run
from jobs.common.predictor_config import PredictorConfig, predictor_spec, root_cause, with_resources
from pipelines.annotate.formats import FormatName, write_formats, write_page
from pipelines.annotate.plan import AnnotationRequest
from pipelines.annotate.requests import collect_requests, delete_stale_failures
from pipelines.annotate.run import Stream, annotate_videos
from pipelines.annotate.settings import DATASET, Settings
from pipelines.annotate.summary import Progress
from pipelines.config_io import claim, write_config
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.inference.quarantine import Failure, reasons, write_quarantine
from pipelines.manifest import QUARANTINE
from pipelines.session import durable_folder, start_ray
from pipelines.tracking.mlflow_run import RunHandle, open_run, within
from pipelines.video.decoder import TIME_LIMIT
from pipelines.video.segments import LENGTH, OVERLAP
from sgmg.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Wanted:
    """Which videos, and what to look for."""

    videos: tuple[str, ...]
    """Files, folders, globs ('raw/**/*.mp4') or .txt lists of them, local or s3://…, gs://…: mp4, mov, mkv, webm, avi,
    and folders of images."""
    checkpoint: str
    """A folder that training wrote, a published .pth file, mlflow:<run id>, or models:/<name>/<version>."""
    out: str
    """Folder for the result, or s3://…, gs://…. One checkpoint and setting a folder."""
    expressions: str | None = None
    """What to look for: .csv or .jsonl of video, expression and, if wanted, id; or .txt, sentences for every video."""
    text: tuple[str, ...] = ()
    """Instead of a file, the sentences themselves, for every video."""
    formats: tuple[FormatName, ...] = ("parquet",)
    """What to write beside Parquet: JSON of tracks, or of frames; PNGs of each sentence (the layout of YouTube-VOS), or
    of all of them (that of DAVIS); videos with the masks drawn; a page that shows it all."""
    fps: Annotated[float | None, tyro.conf.arg(metavar="FLOAT|None")] = None
    """Frames a second to look at, taken by time. By default every frame."""
    min_score: float = 0.3
    """Score of a frame, 0 … 1, below which its mask is empty: the object is not there."""
    shots: bool = False
    """Look for cuts first (reads every video twice): no window crosses one, and each shot is looked at anew."""
    window: int = LENGTH
    """Frames encoded at once."""
    overlap: Annotated[int | None, tyro.conf.arg(metavar="INT|None")] = None
    """Frames that windows share, by which an object is known again. By default 4, and 0 for independent windows."""
    independent_windows: bool = False
    """Each window chooses by score alone, as the published inference does: quicker, but an object may change."""
    short_side: int = 360
    """Pixels of the shorter side that the model sees. Small models learn from less."""
    time_limit: float = TIME_LIMIT
    """Seconds without a sign of life of the decoder, after which a video is given up; a long one may take longer."""
    storage: str = "runs"
    """Folder of the training's results: where mlflow:… and models:/… are looked up, and MLflow is kept."""
    track: bool = True
    """Keep config and summary in MLflow (MLFLOW_TRACKING_URI, else a database in --storage)."""


@dataclass(frozen=True)
class AnnotateConfig(PredictorConfig, _Wanted):  # fields of the last base come first: --help begins with what is wanted
    """Which videos, what to look for, and with how much of the machine."""

    def __post_init__(self) -> None:
        """Checks the numbers, and what does not go together.

        Raises:
            ValueError: one is out of range, or there is nothing to look at or for.
        """
        super().__post_init__()
        self.check_counts("short_side")
        _ = self.settings
        if not self.videos:
            raise ValueError("Give --videos at least one file, folder, glob or list.")
        if bool(self.expressions) == bool(self.text):
            raise ValueError("Give either --expressions FILE or --text 'a sentence' …: what to look for.")
        if not self.time_limit > 0:
            raise ValueError(f"--time-limit {self.time_limit} lets nothing be decoded. Choose seconds above 0.")

    @property
    def settings(self) -> Settings:
        """What decides which frames are looked at, and how."""
        return Settings(
            fps=self.fps,
            window=self.window,
            overlap=min(OVERLAP, self.window - 1) * (not self.independent_windows)
            if self.overlap is None
            else self.overlap,
            shots=self.shots,
            independent=self.independent_windows,
            min_score=self.min_score,
        )


def main(config: AnnotateConfig) -> Exit:
    """Annotates what is not there yet, writes the formats, and says what came of it."""
    out = durable_folder(config.out, "--out")
    recipe = predictor_spec(config.checkpoint, config.storage, config, config.settings.protocol(config.short_side))
    start_ray(config.num_cpus)
    stream = _stream(config, recipe, out)
    made_by = _made_by(stream)
    claim(out, made_by)
    config, stream = replace(config, made_by=made_by), replace(stream, fingerprint=made_by["fingerprint"])
    try:
        write_config(out, config)
    except OSError as error:
        raise JobError(f"--out {out.path()} cannot be written ({error}). Choose another folder.") from error
    asked = collect_requests(config.videos, config.expressions, config.text, out, _counter(stream.spec))
    delete_stale_failures(out, asked)
    progress = Progress(len(asked))
    with _tracked(config, out) as tracked:
        failures = _annotate(config, stream, asked, progress)
        if tracked:
            metrics = progress.metrics(failures, out)
            trouble = within(20, lambda: tracked.client().log_batch(tracked.run_id, metrics=metrics))
            if trouble:
                _log.warning("MLflow at %s does not take the summary: %s", tracked.uri, trouble)
    _report(progress, failures, out)
    return Exit.QUARANTINE if failures and not config.allow_failures else Exit.CLEAN


def _annotate(
    config: AnnotateConfig, stream: Stream, asked: Sequence[AnnotationRequest], progress: Progress
) -> list[Failure]:
    """All the work; what is in quarantine after it.

    Raises:
        JobError: something failed that is no fault of a single video.
    """
    try:
        for event in progress.shown(annotate_videos(asked, stream)):
            progress.count(event)
        for written in write_formats(stream.out, config.formats, config.time_limit):
            _log.info("written: %s", written)
        failures = write_quarantine(stream.out)
        if "report" in config.formats:
            for written in write_page(stream.out):
                _log.info("written: %s", written)
    except RayError as error:
        _log.debug("traceback of the error below", exc_info=True)
        raise JobError(f"{progress}\nThat stays, then: {root_cause(error)}\nThe same command again goes on.") from error
    return failures


@contextmanager
def _tracked(config: AnnotateConfig, out: Folder) -> Iterator[RunHandle | None]:
    """The MLflow run of this folder, ended as the block ends; None where nobody wants one."""
    if not config.track:
        yield None
        return
    tracked = open_run("annotate", _run_name(out), config.storage, config)
    status = "FAILED"
    try:
        yield tracked
        status = "FINISHED"
    finally:
        tracked.finish(status)


def _stream(config: AnnotateConfig, recipe: PredictorSpec, out: Folder) -> Stream:
    resources = config.resources()
    recipe = with_resources(recipe, config, resources)
    return Stream(out, recipe, config.settings, resources, fingerprint="", time_limit=config.time_limit)


def _counter(recipe: PredictorSpec) -> Any:
    """Counts the tokens of a sentence as the checkpoint's tokenizer does."""
    tokenizer = Tokenizer.from_json(recipe.tokenizer)
    return lambda text: tokenizer([text], max_tokens=len(text.encode()) + 2)[0].shape[1]


def _made_by(stream: Stream) -> dict[str, Any]:
    """Everything another value of which would give other results."""
    plain = {"dataset": DATASET, **stream.spec.provenance(), **stream.settings.provenance()}
    return {**plain, "fingerprint": hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()}


def _run_name(out: Folder) -> str:
    """What MLflow calls a run: as its folder is called, and never the same for two folders."""
    return f"{out.uri.rstrip('/').rpartition('/')[2]}-{hashlib.sha256(out.uri.encode()).hexdigest()[:8]}"


def _report(progress: Progress, failures: Sequence[Failure], out: Folder) -> None:
    print(progress.summary())
    print(f"results: {out.path()}")
    if failures:
        print(f"in quarantine: {len(failures)} (all of them in {out.path(QUARANTINE)})")
        for count, stage, reason in reasons(failures)[:10]:
            print(f"  {count} x {stage}: {reason}")


if __name__ == "__main__":
    run(AnnotateConfig, main)
