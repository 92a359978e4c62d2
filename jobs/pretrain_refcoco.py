"""Trains SgMg on single images with sentences: RefCOCO, RefCOCO+, RefCOCOg, or one's own data."""

from jobs.common.cli import Exit, run
from pipelines.training.config import PRETRAIN, TrainConfig
from pipelines.training.run import train


def main(config: TrainConfig) -> Exit:
    """Trains until the end, from wherever the run of that name stands."""
    return train(config, "images", "pretrain")


if __name__ == "__main__":
    run(TrainConfig, main, recipes=PRETRAIN)
