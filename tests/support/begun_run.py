"""A training run that has begun, as its files show it."""

from dataclasses import replace
from pathlib import Path

from pipelines.config_io import CONFIG, write_config
from pipelines.files import Folder
from pipelines.training.checkpoints import step_name
from pipelines.training.config import TrainConfig
from pipelines.training.recipes import FINETUNE
from sgmg.checkpoints import MODEL, TRAINING

TINY = replace(FINETUNE["tiny"], data=("/data",))


def begun_run(folder: Path, config: TrainConfig = TINY, step: int = 4) -> Folder:
    """A run with a config and a checkpoint, whose files say nothing."""
    run = Folder(str(folder))
    write_config(run.make(), config)
    for name in (CONFIG, MODEL, TRAINING):
        run.write(f"{step_name(step)}/{name}", b"{}")
    return run
