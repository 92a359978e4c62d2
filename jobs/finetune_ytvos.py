"""Trains SgMg on video clips with a mask in every frame: Ref-YouTube-VOS, MeViS, or your own data."""

from jobs.common.cli import run
from jobs.common.flag_groups import TRAINING
from pipelines.errors import Exit
from pipelines.training.config import TrainConfig
from pipelines.training.recipes import FINETUNE


def main(config: TrainConfig) -> Exit:
    """Trains to the end; continues the run of that name if there is one."""
    from pipelines.training.run import train

    train(config, "clips", "finetune")
    return Exit.CLEAN


if __name__ == "__main__":
    run(TrainConfig, main, recipes=FINETUNE, groups=TRAINING)
