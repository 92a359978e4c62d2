"""The flags that jobs which run a checkpoint have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from sgmg.config import PrecisionChoice


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Settings of how a checkpoint computes."""

    tokenizer: str | None = None
    """Folder or name of the tokenizer, if the checkpoint has none. Default: roberta-base, from the Hugging Face
    cache."""
    threads: int = 1
    """Threads of torch in each predictor on a CPU. Another number rounds differently, so it counts as a setting."""
    precision: PrecisionChoice = "auto"
    """Number type of the matrix products. auto: bfloat16 on a GPU, and on a CPU that is at least twice as fast in it;
    float16 on a GPU without it; else float32. A run that goes on keeps what it began with."""
    sentences_together: Annotated[int | None, tyro.conf.arg(metavar="INT|None")] = None
    """Most sentences about a video that a multi-object model is asked in one pass; its answers depend on it. Default:
    as many as it was trained with. A single-object model answers each sentence for itself."""
    num_cpus: Annotated[int | None, tyro.conf.arg(metavar="INT|None")] = None
    """Logical cores of a local Ray. Default: the number of cores, at least 4."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: a number is out of range.
        """
        self.check_counts("num_cpus", "threads", "sentences_together")

    def check_counts(self, *names: str) -> None:
        """Checks that the named fields are None or at least 1.

        Raises:
            ValueError: a field is below 1; the message names it.
        """
        for name in names:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be 1 or more (got {value}).")


@dataclass(frozen=True, kw_only=True)
class PredictorConfig(ModelConfig):
    """Settings of how predictors compute, and the resources they use."""

    actors: Annotated[str | None, tyro.conf.arg(metavar="MIN:MAX|None")] = None
    """Number of predictors, MIN:MAX. Each holds the whole model; more are started while there is work and room.
    Default: as many as the GPUs of the cluster hold, and more as an autoscaler adds some; on a cluster without GPUs
    one for every two cores and 4 GB, at least 1:2."""
    gpus_per_actor: Annotated[float | None, tyro.conf.arg(metavar="FLOAT|None")] = None
    """GPUs per predictor. Default: 0.5 (two share one GPU and keep it busy), or 0 if the cluster has none."""
    cpus_per_actor: float = 0.5
    """Logical cores per predictor."""
    cpus_per_decode: float = 0.5
    """Logical cores per task that reads and decodes frames."""
    stall_limit: float = 3600.0
    """Seconds without any progress, after which the run is given up; what it waits for is logged every five minutes."""
    allow_failures: bool = False
    """Exit with code 0 even if items are in quarantine."""
    made_by: Annotated[Mapping[str, Any] | None, tyro.conf.Suppress] = None
    """Set by the job: the settings that decide the predictions, with their fingerprint."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: a number is out of range.
        """
        super().__post_init__()
        if self.actors is not None:
            actor_range(self.actors)
        if not self.stall_limit > 0:
            raise ValueError(f"--stall-limit must be above 0 seconds (got {self.stall_limit}).")
        for name in ("gpus_per_actor", "cpus_per_actor", "cpus_per_decode"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ValueError(f"--{name.replace('_', '-')} must be 0 or more (got {value}).")


def actor_range(actors: str, flag: str = "--actors") -> tuple[int, int]:
    """Returns the smallest and largest number of predictors of MIN:MAX.

    >>> actor_range("1:8"), actor_range("3")
    ((1, 8), (3, 3))

    Args:
        actors: the text.
        flag: that it was given by.

    Raises:
        ValueError: the text is not such a range.
    """
    least, _, most = actors.partition(":")
    if not (least.isdecimal() and (most or least).isdecimal()) or not 1 <= int(least) <= int(most or least):
        raise ValueError(f"{flag} {actors!r} is not MIN:MAX with 1 <= MIN <= MAX, for instance 1:4.")
    return int(least), int(most or least)
