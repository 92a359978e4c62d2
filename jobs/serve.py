"""Serves a checkpoint: a page where a video is dropped and sentences are typed, and an HTTP API, on Ray Serve.

Runs until it is stopped (Ctrl-C). The page is at /, the description of the API at /docs. docs/serving.md tells more.
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.common.cli import run
from jobs.common.predictor_config import ModelConfig, actor_range
from pipelines.annotate.settings import Settings
from pipelines.errors import Exit
from pipelines.video.defaults import LENGTH, OVERLAP


@dataclass(frozen=True)
class _ServiceFlags:
    """Flags of the service."""

    checkpoint: str
    """A folder that training wrote, a published .pth file, mlflow:<run id>, or models:/<name>/<version>."""
    replicas: str = "1"
    """Copies of the model, MIN:MAX: more are started while requests wait and the cluster has room."""
    gpus_per_replica: Annotated[float | None, tyro.conf.arg(metavar="FLOAT|None")] = None
    """GPUs of each copy. Default: 1, or 0 if the cluster has none."""
    cpus_per_replica: float = 1.0
    """Logical cores of each copy."""
    host: str = "127.0.0.1"
    """Address to listen at. Any but that of this machine alone needs a token."""
    port: int = 8000
    """Port to listen at."""
    token: Annotated[str, tyro.conf.arg(metavar="TEXT")] = ""
    """Token that clients have to send. Everybody on a machine sees its command lines: better set SGMG_TOKEN."""
    live: bool = False
    """Also answer the frames of a camera one by one, each from those before it (/live)."""
    keep: float = 30.0
    """Minutes for which a video of /videos is kept after its last use."""
    keep_gb: float = 8.0
    """Gigabytes of disk for the frames of kept videos; those that were not used for longest make room."""
    clips_gb: Annotated[float | None, tyro.conf.arg(metavar="FLOAT|None")] = None
    """Gigabytes for encoded clips of kept videos, in the memory of each copy's device. Default: 2, or 16 on a GPU."""
    max_mb: float = 512.0
    """Largest upload, in megabytes."""
    max_seconds: float = 600.0
    """Longest video."""
    max_pixels: int = 4096 * 2304
    """Most pixels of a frame."""
    max_frames: int = 20_000
    """Most frames that are answered of a video."""
    max_sentences: int = 64
    """Most sentences of a request."""
    requests_per_minute: int = 120
    """Most requests of one client address in a minute."""
    running: int = 16
    """Requests that are answered at the same time."""
    waiting: int = 64
    """Requests that may wait for that; further ones are refused."""
    short_side: int = 360
    """Pixels of the shorter side of frames that the model reads. Use fewer for small models."""
    window: int = LENGTH
    """Frames encoded together."""
    overlap: Annotated[int | None, tyro.conf.arg(metavar="INT|None")] = None
    """Frames shared by neighbouring windows, used to link their objects. Default: 4."""
    min_score: float = 0.3
    """Frames with a score (0 … 1) below this get an empty mask, unless the request wants otherwise."""
    storage: str = "runs"
    """Folder of the training's results: mlflow:… and models:/… are looked up in it."""


@dataclass(frozen=True)
class ServeConfig(ModelConfig, _ServiceFlags):  # dataclasses take the last base's fields first, so --help does too
    """Checkpoint, address, copies of the model, and limits."""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: a number is out of range.
        """
        super().__post_init__()
        actor_range(self.replicas, "--replicas")
        self.check_counts(
            "short_side", "window", "max_pixels", "max_frames", "max_sentences", "requests_per_minute", "running",
            "waiting",
        )  # fmt: skip
        if not 0 <= self.port < 2**16:
            raise ValueError(f"--port must be a number from 0 to 65535 (got {self.port}).")
        for name in ("keep", "keep_gb", "max_mb", "max_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"--{name.replace('_', '-')} must be above 0 (got {getattr(self, name)}).")
        for name in ("gpus_per_replica", "cpus_per_replica", "clips_gb"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ValueError(f"--{name.replace('_', '-')} must be 0 or more (got {value}).")
        _ = self.settings

    @property
    def settings(self) -> Settings:
        """Windows of frames, and the score threshold."""
        overlap = min(OVERLAP, self.window - 1) if self.overlap is None else self.overlap
        return Settings(window=self.window, overlap=overlap, min_score=self.min_score)


def main(config: ServeConfig) -> Exit:
    """Serves until the process is stopped."""
    from jobs.impl.serve import serve_until_stopped

    return serve_until_stopped(config)


if __name__ == "__main__":
    run(ServeConfig, main)
