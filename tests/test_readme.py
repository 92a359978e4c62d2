"""README: its Python runs as it is printed, its commands are understood by the jobs they name."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import runtime
from jobs.evaluate import EvaluateConfig
from jobs.predict import PredictConfig
from jobs.prepare import PrepareConfig
from jobs.recipes import A2D, FINETUNE, PRETRAIN, TrainConfig
from jobs.submit import SubmitConfig

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
CONFIGS: dict[str, tuple[Any, Any]] = {
    "prepare": (PrepareConfig, None),
    "pretrain_refcoco": (TrainConfig, PRETRAIN),
    "finetune_ytvos": (TrainConfig, FINETUNE),
    "finetune_a2d": (TrainConfig, A2D),
    "predict": (PredictConfig, None),
    "submit": (SubmitConfig, None),
    "evaluate": (EvaluateConfig, None),
}


def test_the_examples_run_in_the_order_they_are_read() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    masks, found = names["masks"], names["found"]
    # The second example is what the Segmenter of the first does inside, but for the resizing.
    assert isinstance(names["scores"], np.ndarray)
    assert masks.shape[:2] == found.shape[:2] == (2, 4)  # pyright: ignore[reportAttributeAccessIssue]


COMMANDS = re.findall(r"^python (jobs/\w+\.py) ((?:.*\\\n)*.*)$", README, flags=re.MULTILINE)


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize(("job", "words"), COMMANDS, ids=[f"{job} {words[:40]}" for job, words in COMMANDS])
def test_every_command_is_understood_by_its_job(job: str, words: str) -> None:
    config, recipes = CONFIGS[Path(job).stem]
    runtime.parse(config, shlex.split(words.replace("\\\n", " ")), recipes=recipes)


def test_every_make_target_it_names_exists() -> None:
    makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make ([a-z]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_file_it_names_exists() -> None:
    for path in re.findall(r"\]\(([\w./]+)\)", README):
        assert (Path(__file__).resolve().parents[1] / path).exists(), path
