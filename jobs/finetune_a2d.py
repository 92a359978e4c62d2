"""Trains SgMg on video clips of which one frame is annotated: A2D-Sentences, or one's own data."""

from jobs.common.cli import Exit, run
from pipelines.training.config import A2D, TrainConfig
from pipelines.training.run import train


def main(config: TrainConfig) -> Exit:
    """Trains until the end, from wherever the run of that name stands."""
    return train(config, "annotated-frames", "a2d")


if __name__ == "__main__":
    run(TrainConfig, main, recipes=A2D)
