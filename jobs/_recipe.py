"""What jobs that run a checkpoint share: which one, on how many GPUs, and whose results are in a folder."""

import json
import logging
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from jobs.checkpoint_source import local_checkpoint
from jobs.runtime import CONFIG, JobError, durable_folder
from pipelines.benchmarks import Protocol
from pipelines.files import Folder
from pipelines.predict_recipe import Recipe, checkpoint_sha256
from sgmg.checkpoints import TOKENIZER, load
from sgmg.pretrained import ROBERTA
from sgmg.segmenter import Precision
from sgmg.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


def recipe_of(
    checkpoint: str,
    storage: str,
    tokenizer: str | None,
    protocol: Protocol,
    *,
    precision: Precision | None,
    compile: bool,
    threads: int,
    gpu: bool,
) -> Recipe:
    """The recipe of a checkpoint, wherever it is: fetched here, and again by every node that needs it.

    Raises:
        JobError: there is no such checkpoint.
        FileNotFoundError: the tokenizer is not there.
        ValueError: the checkpoint is damaged.
    """
    path = local_checkpoint(checkpoint, storage)
    # A damaged one is said in a sentence here; in every predictor it would be a traceback of Ray's.
    load(path)
    if "://" in checkpoint or checkpoint.startswith(("mlflow:", "models:")):
        found = partial(local_checkpoint, checkpoint, durable_folder(storage, "--storage").uri)
    else:
        found = partial(Path, path)
    return Recipe(
        checkpoint=found,
        checkpoint_sha256=checkpoint_sha256(path),
        tokenizer=_tokenizer(tokenizer, path).to_json(),
        protocol=protocol,
        precision=precision or ("bfloat16" if gpu else "float32"),
        compile=compile,
        threads=threads,
        gpu=gpu,
    )


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


def innermost(error: RayError) -> str:
    """What went wrong in a worker, without the way Ray's message took to say it."""
    text = str(error).strip()
    # Behind the last traceback, the error itself stands at the beginning of a line.
    found = re.search(r'  File ".*^(?:[\w.]*\.)?(\w+: .*)', text, flags=re.MULTILINE | re.DOTALL)
    return found[1] if found else text


def claim(out: Folder, made_by: Mapping[str, Any]) -> None:
    """Makes sure that what is in the folder was made by the same.

    Raises:
        JobError: it was not; the message names the difference.
    """
    if not out.has(CONFIG):
        return
    try:
        there = json.loads(out.read(CONFIG))["made_by"]
        names = dict.fromkeys([*there, *made_by])
        differences = [
            f"{name} was {there.get(name)!r} and is now {made_by.get(name)!r}"
            for name in names
            if there.get(name) != made_by.get(name) and name != "fingerprint"
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobError(
            f"{out.path(CONFIG)} was written by something else ({error!r}). Choose another --out."
        ) from error
    if differences:
        raise JobError(
            f"{out.path()} holds predictions made otherwise: {'; '.join(differences)}. Choose another --out, or give "
            f"the same."
        )
