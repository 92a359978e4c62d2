"""What jobs that run a checkpoint share: their flags, the recipe of predictors, and whose results are in a folder."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import ray
import tyro
from ray.exceptions import RayError

from pipelines.inference.predictor_spec import PredictorSpec, checkpoint_sha256
from pipelines.inference.protocols import InferenceProtocol
from pipelines.inference.stream import Resources
from pipelines.tracking.checkpoint_source import local_checkpoint, on_any_node
from sgmg.checkpoints import TOKENIZER, load
from sgmg.pretrained import ROBERTA
from sgmg.segmenter import Precision
from sgmg.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """How predictors compute, and how much of the machine each has: what both jobs that run them let people say."""

    tokenizer: str | None = None
    """Folder or name, where the checkpoint brings none. By default roberta-base, from the Hugging Face cache."""
    actors: str = "1:2"
    """Predictors, MIN:MAX, each with the whole model; as many as have work and find room."""
    gpus_per_actor: Annotated[float | None, tyro.conf.arg(metavar="FLOAT|None")] = None
    """GPUs of each. By default 0.5 (two share one, so that it never waits), and 0 where the cluster has none."""
    cpus_per_actor: float = 0.5
    """Logical cores of each."""
    cpus_per_decode: float = 0.5
    """Logical cores of each task that reads and decodes frames."""
    threads: int = 1
    """Threads of torch in each predictor on a CPU. Another number rounds differently, so it counts as a setting."""
    precision: Precision | None = None
    """Of the matrix products. By default bfloat16 on a GPU, float32 on a CPU."""
    compile: bool = False
    """Compile the transformer first: minutes at the start of every predictor, for long runs on a GPU."""
    num_cpus: Annotated[int | None, tyro.conf.arg(metavar="INT|None")] = None
    """Logical cores of a local Ray. By default as many as there are, and at least 4."""
    allow_failures: bool = False
    """Exit code 0 also where something is in quarantine."""
    made_by: Annotated[Mapping[str, Any] | None, tyro.conf.Suppress] = None
    """Filled in by the job: what the predictions were made by, with its fingerprint."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: one is out of range.
        """
        actor_range(self.actors)
        self.check_counts("num_cpus", "threads")
        for name in ("gpus_per_actor", "cpus_per_actor", "cpus_per_decode"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ValueError(f"--{name.replace('_', '-')} {value} is less than nothing. Choose 0 or more.")

    def check_counts(self, *names: str) -> None:
        """Refuses values under 1.

        Raises:
            ValueError: one is; the message names it.
        """
        for name in names:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} {value} is too small. Choose at least 1.")

    def resources(self) -> Resources:
        """Those of the stream of predictors; Ray runs."""
        return Resources(
            actor_range(self.actors), gpus_per_actor(self.gpus_per_actor), self.cpus_per_actor, self.cpus_per_decode
        )


def predictor_spec(
    checkpoint: str, storage: str, config: PredictorConfig, protocol: InferenceProtocol
) -> PredictorSpec:
    """The recipe of a checkpoint, wherever it is, on CPUs: fetched here, and again by every node that needs it.

    Nothing else need have started: what is wrong with a checkpoint is said at once.

    Raises:
        JobError: there is no such checkpoint.
        FileNotFoundError: the tokenizer is not there.
        ValueError: the checkpoint is damaged.
    """
    path = local_checkpoint(checkpoint, storage)
    # A damaged one is said in a sentence here; in every predictor it would be a traceback of Ray's.
    load(path)
    return PredictorSpec(
        checkpoint=on_any_node(checkpoint, storage, path),
        checkpoint_sha256=checkpoint_sha256(path),
        tokenizer=_tokenizer(config.tokenizer, path).to_json(),
        protocol=protocol,
        precision=config.precision or "float32",
        compile=config.compile,
        threads=config.threads,
        gpu=False,
    )


def with_resources(recipe: PredictorSpec, config: PredictorConfig, resources: Resources) -> PredictorSpec:
    """The recipe for predictors with these resources."""
    gpu = resources.gpus_per_actor > 0
    return replace(recipe, gpu=gpu, precision=config.precision or ("bfloat16" if gpu else "float32"))


def _tokenizer(wanted: str | None, checkpoint: Path) -> Tokenizer:
    if wanted is None and (checkpoint / TOKENIZER).is_file():
        return Tokenizer.from_folder(checkpoint)
    return Tokenizer.from_pretrained(wanted or ROBERTA)


def actor_range(actors: str) -> tuple[int, int]:
    """Fewest and most predictors of MIN:MAX.

    >>> actor_range("1:8"), actor_range("3")
    ((1, 8), (3, 3))

    Raises:
        ValueError: it is no such range.
    """
    least, _, most = actors.partition(":")
    if not (least.isdecimal() and (most or least).isdecimal()) or not 1 <= int(least) <= int(most or least):
        raise ValueError(f"--actors {actors!r} is not MIN:MAX with 1 <= MIN <= MAX, for instance 1:4.")
    return int(least), int(most or least)


def gpus_per_actor(wanted: float | None) -> float:
    """GPUs of each predictor: what is wanted, else half of one, so that two share it and it never waits, if there are.

    Ray runs.
    """
    there = ray.cluster_resources().get("GPU", 0)
    if wanted is None:
        return 0.5 if there else 0.0
    if wanted > 0 and not there:
        _log.warning("--gpus-per-actor %s, but the cluster has no GPU yet: waiting for one.", wanted)
    return wanted


def root_cause(error: RayError) -> str:
    """What went wrong in a worker, without the way Ray's message took to say it."""
    text = str(error).strip()
    # Behind the last traceback, the error itself stands at the beginning of a line.
    found = re.search(r'  File ".*^(?:[\w.]*\.)?(\w+: .*)', text, flags=re.MULTILINE | re.DOTALL)
    return found[1] if found else text
