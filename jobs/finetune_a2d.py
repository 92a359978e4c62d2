"""Trains SgMg on video clips with one annotated frame each: A2D-Sentences, or your own data."""

from jobs.common.cli import run
from jobs.common.flag_groups import TRAINING
from pipelines.errors import Exit
from pipelines.training.config import TrainConfig
from pipelines.training.recipes import A2D


def main(config: TrainConfig) -> Exit:
    """Trains to the end; continues the run of that name if there is one."""
    from pipelines.training.run import train

    train(config, "annotated-frames", "a2d")
    return Exit.CLEAN


if __name__ == "__main__":
    run(TrainConfig, main, recipes=A2D, groups=TRAINING)
