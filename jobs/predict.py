"""Runs a checkpoint on a prepared dataset: for every sentence, the mask of its object in every frame.

Frame size, windows and kept queries are those of each benchmark's published scores. Writes into --out:
predictions/*.parquet, from which all formats and scores are made (jobs/submit.py, jobs/evaluate.py), quarantine.jsonl
(one line per item that could not be used) and config.json. Run the same command again to continue. Exit code 0:
everything was predicted; 3: finished, but some items are in quarantine; 1: failed.
"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.common.cli import run
from jobs.common.predictor_config import PredictorConfig
from pipelines.errors import Exit


@dataclass(frozen=True)
class _InputFlags:
    """Flags that name the data, the checkpoint and the result."""

    data: str
    """Folder that jobs/prepare.py wrote, or s3://…, gs://…."""
    checkpoint: str
    """A folder that training wrote, a published .pth file, mlflow:<run id>, or models:/<name>/<version>."""
    out: str
    """Folder for the result, or s3://…, gs://…. Use one folder per dataset, checkpoint and settings."""
    storage: str = "runs"
    """Folder of the training's results: mlflow:… and models:/… are looked up in it."""
    short_side: Annotated[int | None, tyro.conf.arg(metavar="INT|None")] = None
    """Pixels of the shorter side of frames that the model reads. Default: as published; use fewer for small models."""
    window: Annotated[int | None, tyro.conf.arg(metavar="INT|None")] = None
    """Frames encoded together. Default: as published: 36 for Ref-DAVIS17, else the whole video."""


@dataclass(frozen=True)
class PredictConfig(PredictorConfig, _InputFlags):  # dataclasses take the last base's fields first, so --help does too
    """Data, checkpoint, result, and the resources to use."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: a number is out of range.
        """
        super().__post_init__()
        self.check_counts("short_side", "window")


def main(config: PredictConfig) -> Exit:
    """Predicts everything that is not finished, and prints a summary."""
    from jobs.impl.predict import predict

    return predict(config)


if __name__ == "__main__":
    run(PredictConfig, main)
