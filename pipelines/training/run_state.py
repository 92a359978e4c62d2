"""State of a run on disk: how far it came, and whether its results are stored."""

import json
from pathlib import Path
from typing import Any

from pipelines.files import Folder
from pipelines.training.checkpoints import latest_checkpoint, step_of
from pipelines.training.config import TrainConfig
from pipelines.training.data import own_tokenizer
from pipelines.training.initial_model import model_config
from sgmg.checkpoints import TOKENIZER
from sgmg.tokenizer import Tokenizer

FINISHED, DATA = "finished.json", "data.json"


def steps_of(config: TrainConfig, per_epoch: int) -> int:
    """Returns the number of optimiser steps of the whole run."""
    whole = config.epochs * per_epoch
    return min(whole, config.max_steps) if config.max_steps else whole


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
    carried: Any = run.folder(newest) if newest else Folder(str(init)) if init else None
    if carried is not None and (text := carried.read_if_there(TOKENIZER)) is not None:
        return Tokenizer.from_json(text.decode()), True
    if config.model == "tiny":
        return own_tokenizer((*config.data, *config.tokenizer_data), model_config(config).text.vocabulary), True
    return Tokenizer.from_pretrained(config.tokenizer), False
