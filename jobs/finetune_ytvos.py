"""Trains SgMg on video clips with a mask in every frame: Ref-YouTube-VOS, MeViS, or one's own data."""

from jobs._loop import train
from jobs.recipes import FINETUNE, TrainConfig
from jobs.runtime import Exit, run


def main(config: TrainConfig) -> Exit:
    """Trains until the end, from wherever the run of that name stands."""
    return train(config, "clips", "finetune")


if __name__ == "__main__":
    run(TrainConfig, main, recipes=FINETUNE)
