"""Trains SgMg on video clips with a mask in every frame: Ref-YouTube-VOS, MeViS, or one's own data."""

from jobs.common.cli import Exit, run
from pipelines.training.config import FINETUNE, TrainConfig
from pipelines.training.run import train


def main(config: TrainConfig) -> Exit:
    """Trains until the end, from wherever the run of that name stands."""
    return train(config, "clips", "finetune")


if __name__ == "__main__":
    run(TrainConfig, main, recipes=FINETUNE)
