"""Runs every step on a small synthetic dataset: prepare, pre-train, fine-tune, predict, zip, score. Minutes on a CPU.

The data are drawn in the official layouts of RefCOCO and Ref-YouTube-VOS; every step is a Ray job, tracked in MLflow.
Run it again to continue: finished steps are reused. --data DIR uses a real Ref-YouTube-VOS folder instead; items that
cannot be read are left out, and their number is printed.
"""

from dataclasses import dataclass

from jobs.common.cli import run
from pipelines.errors import Exit


@dataclass(frozen=True)
class DemoConfig:
    """Settings of how much to draw and to train. The defaults take a few minutes on two cores."""

    storage: str = "runs"
    """Folder or URI for everything: data, runs, results, and MLflow's database. A URI wants MLFLOW_TRACKING_URI set."""
    data: str = ""
    """A Ref-YouTube-VOS folder (or its URI) as its owners distribute it, instead of synthetic data."""
    images: int = 500
    """Synthetic images to pre-train on."""
    videos: int = 80
    """Synthetic videos to fine-tune on."""
    valid_videos: int = 12
    """Synthetic videos to predict and score; none of them is trained on."""
    pretrain_steps: int = 200
    """Optimiser steps of 4 images."""
    finetune_steps: int = 80
    """Optimiser steps of 4 clips."""
    multi_steps: int = 0
    """Optimiser steps of 4 clips, after the same pre-training, of a multi-object model; 0: there is none."""
    workers: int = 2
    """Training processes."""
    shuffled: bool = False
    """Also predict with the sentences of each video shuffled: shows how much the model depends on their words."""
    seed: int = 0
    """Seed of the drawing and of the training."""


def main(config: DemoConfig) -> Exit:
    """Runs every step that is not finished, and prints the scores and the paths of the results.

    Raises:
        JobError: a step failed; its log is printed.
    """
    from jobs.impl.demo import demo

    return demo(config)


if __name__ == "__main__":
    run(DemoConfig, main)
