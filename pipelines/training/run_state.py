"""State of a run on disk: how far it came, and whether its results are stored."""

import json
from pathlib import Path

from pipelines.files import Folder
from pipelines.training.checkpoints import latest_checkpoint, step_of
from pipelines.training.config import TrainConfig
from pipelines.training.data import own_tokenizer
from pipelines.training.initial_model import model_config
from sgmg.checkpoints import TOKENIZER, saved_tokenizer
from sgmg.tokenizer import Tokenizer

FINISHED, STOPPED, DATA = "finished.json", "stopped.json", "data.json"


def steps_of(config: TrainConfig, per_epoch: int) -> int:
    """Returns the number of optimiser steps of the whole run."""
    whole = config.epochs * per_epoch
    return min(whole, config.max_steps) if config.max_steps else whole


def end_of(run: Folder, config: TrainConfig, steps: int) -> int:
    """Returns the last step of a run: an earlier one than `steps` if no score was a new best for --patience scores."""
    noted = run.read_if_there(STOPPED) if config.patience else None
    if noted is None:
        return steps
    stopped = json.loads(noted)
    return min(steps, stopped["step"]) if config.patience <= stopped["patience"] else steps


def mark_stopped(run: Folder, step: int, patience: int) -> None:
    """Notes that a run ended after a step because that many scores brought no new best."""
    run.write(STOPPED, (json.dumps({"step": step, "patience": patience}) + "\n").encode())


def is_trained(run: Folder, steps: int) -> bool:
    """Returns whether the checkpoint of the last step exists."""
    newest = latest_checkpoint(run)
    return newest is not None and step_of(newest) >= steps


def is_finished(run: Folder, steps: int) -> bool:
    """Returns whether the run is trained and its results are stored: nothing is left to do."""
    noted = run.read_if_there(FINISHED) if is_trained(run, steps) else None
    return noted is not None and json.loads(noted)["steps"] >= steps


def mark_finished(run: Folder, steps: int) -> None:
    """Marks the run as finished; called after everything else."""
    run.write(FINISHED, (json.dumps({"steps": steps}) + "\n").encode())


def tokenizer_of(config: TrainConfig, run: Folder, init: Path | None) -> tuple[Tokenizer, bool]:
    """Returns the tokenizer, and whether it is saved with the model; that of roberta-base is not.

    Args:
        init: checkpoint that the run starts from; None if there is none, or the run has begun.
    """
    newest = latest_checkpoint(run)
    if newest is not None:
        text = run.folder(newest).read_if_there(TOKENIZER)
        own = Tokenizer.from_json(text.decode()) if text is not None else None
    else:
        own = saved_tokenizer(init) if init else None
    if own is not None:
        return own, True
    if config.model == "tiny":
        return own_tokenizer((*config.data, *config.tokenizer_data), model_config(config).text.vocabulary), True
    return Tokenizer.from_pretrained(config.tokenizer), False
