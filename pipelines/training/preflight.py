"""Checks before the first worker starts: the run's data, its first weights, the cluster, the storage."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import ray

from pipelines.clips.epoch_plan import PLAN_VERSION
from pipelines.clips.stream import TrainData
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.safety.secrets import redacted, redacted_values
from pipelines.tracking.checkpoint_source import local_checkpoint, on_any_node
from pipelines.training.checkpoints import latest_checkpoint
from pipelines.training.cluster import Workers, check_storage, idle_gpus_warning, wait_for_resources
from pipelines.training.config import TrainConfig
from pipelines.training.initial_model import start_model
from pipelines.training.recipes import FROM_BACKBONE, FROM_CHECKPOINT, FROM_SINGLE_OBJECT
from pipelines.training.run_state import DATA, tokenizer_of
from sgmg.checkpoints import load

log = logging.getLogger(__name__)

_PLAN = "plan_version"
"""Key beside the folders in the record of a run's data. Runs that lack it were started before there was a second."""


def check_same_data(run: Folder, data: TrainData) -> None:
    """Checks that a run that has begun continues with the rows, and their order, that it was started with: its position
    counts them.

    Raises:
        JobError: a folder was prepared again, and its rows have changed; or another version of this code orders them
            otherwise.
    """
    if not latest_checkpoint(run):
        return
    stored = run.read_if_there(DATA)
    recorded = redacted_values(json.loads(stored)) if stored is not None else {}
    take_along = f"Give another --name; --init {run.path()} takes the weights along."
    if (version := recorded.get(_PLAN, 1)) != PLAN_VERSION:
        raise JobError(
            f"The run in {run.path()} was started by a version of this code that orders the samples of an epoch in "
            f"another way (order {version}, here {PLAN_VERSION}): gone on with, it would see some of them twice and "
            f"some never. {take_along}"
        )
    for folder, rows in _rows_of(data).items():
        if recorded.get(folder, rows) != rows:
            raise JobError(
                f"{folder} was prepared again since the run in {run.path()} was started, and holds other rows now: "
                f"nobody knows which of them were seen. {take_along}"
            )


def record_data(run: Folder, data: TrainData) -> None:
    """Writes the hashes of the rows that a run learns from, and the version of their order, for `check_same_data`."""
    recorded = {_PLAN: PLAN_VERSION, **_rows_of(data)}
    run.write(DATA, (json.dumps(recorded, indent=2) + "\n").encode())


def _rows_of(data: TrainData) -> dict[str, str]:
    """Returns a hash of each folder's rows, in their order, and of what they were made from."""
    hashes = {}
    for part in data.parts:
        rows = [part.manifest.source_fingerprint, part.manifest.config, *map(asdict, part.manifest.shards)]
        hashes[redacted(part.folder.uri)] = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return hashes


@dataclass(frozen=True, slots=True)
class Start:
    """First weights and tokenizer of a run.

    Attributes:
        init: a function that returns the local path of the checkpoint to start from, on any node; None if there is
            none, or the run has begun.
        tokenizer: the tokenizer as JSON.
        own_tokenizer: whether the tokenizer is saved with the model; that of roberta-base is not.
    """

    init: Callable[[], Path] | None
    tokenizer: str
    own_tokenizer: bool


def prepare_start(config: TrainConfig, run: Folder) -> Start:
    """Finds the first weights and the tokenizer of a run, and checks that they fit its model.

    Raises:
        JobError: `--init` does not exist, or holds another preset than `--model`.
        FileNotFoundError, ValueError: as `start_model`.
    """
    begun = latest_checkpoint(run) is not None
    if not begun:
        _check_start_is_meant(config)
    init = local_checkpoint(config.init, config.storage) if config.init and not begun else None
    tokenizer, own = tokenizer_of(config, run, init)
    if not begun:
        _check_weights(config, init)
    return Start(on_any_node(config.init, config.storage, init) if init else None, tokenizer.to_json(), own)


def _check_start_is_meant(config: TrainConfig) -> None:
    """Checks that a run which begins has the weights that its recipe begins with: random ones cost days of training.

    Raises:
        JobError: they are missing; the message says which and where to get them.
    """
    if config.init or config.from_scratch:
        return
    if config.recipe in FROM_CHECKPOINT:
        kind = "single-object" if config.recipe == FROM_SINGLE_OBJECT else "pre-trained"
        raise JobError(
            f"--recipe {config.recipe} starts from a {kind} checkpoint, and none is given. Give it as --init: the "
            f"folder of a run of jobs/pretrain_refcoco.py, mlflow:<run>, models:/<name>/<version>, or a .pth of the "
            f"paper's authors. --from-scratch says that random weights are meant."
        )
    if config.recipe in FROM_BACKBONE and config.model != "tiny" and not config.backbone_weights:
        raise JobError(
            f"--recipe {config.recipe} starts from a trained backbone, and none is given. Give its file as "
            f"--backbone-weights: of Kinetics-400 for video-swin (release page of Video Swin's authors), of ImageNet "
            f"for swin and resnet (release page of Swin's authors; timm's resnet50.tv_in1k). --from-scratch says that "
            f"random weights are meant."
        )


def _check_weights(config: TrainConfig, init: Path | None) -> None:
    if init and (preset := load(init).model.config.name) != config.model:
        raise JobError(
            f"--init {config.init} is a {preset}, but --model says {config.model}. Give --model {preset}, or another "
            f"checkpoint."
        )
    start_model(config, init)


def check_cluster(config: TrainConfig, run: Folder) -> None:
    """Waits until the cluster has room for the smallest number of workers, and checks that its nodes share the storage.

    Raises:
        JobError: the cluster can never give the resources, or did not in time; or the storage cannot be written, or
            some node sees another one.
    """
    workers = Workers(config.worker_range[0], config.worker_resources)
    wait_for_resources(config.min_resources, workers, f"--workers {config.workers}", config.start_timeout)
    if warning := idle_gpus_warning(config.gpus_per_worker, ray.cluster_resources()):
        log.warning("%s", warning)
    check_storage(run)
