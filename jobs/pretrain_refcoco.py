"""Trains SgMg on single images with sentences: RefCOCO, RefCOCO+, RefCOCOg, or your own data."""

from jobs.common.cli import run
from jobs.common.flag_groups import TRAINING
from pipelines.errors import Exit
from pipelines.training.config import TrainConfig
from pipelines.training.recipes import PRETRAIN


def main(config: TrainConfig) -> Exit:
    """Trains to the end; continues the run of that name if there is one."""
    from pipelines.training.run import train

    train(config, "images", "pretrain")
    return Exit.CLEAN


if __name__ == "__main__":
    run(TrainConfig, main, recipes=PRETRAIN, groups=TRAINING)
