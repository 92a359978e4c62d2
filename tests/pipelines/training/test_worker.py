"""What a worker does with a step that does not fit into the memory of its GPU."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import ray
import torch

from pipelines.files import Folder
from pipelines.training.loader import StepBatch
from pipelines.training.progress import create_progress_actor
from pipelines.training.worker import _Worker
from sgmg.batch import ClipBatch, ClipTargets
from sgmg.train_step import MicroBatch


def does_not_fit(_clips: StepBatch) -> NoReturn:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 1 GiB free.")


def one_clip() -> MicroBatch:
    """Of one grey frame and a sentence of two tokens."""
    batch = ClipBatch(
        frames=torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8),
        padding=torch.zeros(1, 32, 32, dtype=torch.bool),
        sizes=torch.tensor([[32, 32]]),
        token_ids=torch.tensor([[4, 5]]),
        token_padding=torch.zeros(1, 2, dtype=torch.bool),
        clip_of=torch.tensor([0]),
    )
    masks, boxes = torch.ones(1, 1, 32, 32, dtype=torch.bool), torch.full((1, 1, 4), 0.5)
    return MicroBatch(batch, ClipTargets(masks, boxes, torch.ones(1, 1, dtype=torch.bool), torch.ones(1)), seed=0)


@pytest.mark.usefixtures("ray_local")
def test_a_step_that_does_not_fit_asks_the_run_to_stop_and_says_what_helps(tmp_path: Path) -> None:
    progress: Any = create_progress_actor(3)
    worker: Any = object.__new__(_Worker)  # a whole one would want Ray Train
    worker.task = SimpleNamespace(run=Folder(str(tmp_path)), progress=progress)
    worker.ranks, worker.learner = SimpleNamespace(rank=1), SimpleNamespace(learn=does_not_fit)
    with pytest.raises(torch.OutOfMemoryError):
        worker._learn(StepBatch(7, (one_clip(),), (), (("a grey square",),)))
    samples = tmp_path / "failed" / "step_00000007-rank0001.json"
    assert json.loads(samples.read_text())["reason"].startswith("CUDA out of memory")
    _, reason = ray.get(progress.latest.remote())
    assert reason == (
        f"step 7 does not fit into the memory of a GPU: CUDA out of memory. Tried to allocate 2.00 GiB. Its samples "
        f"are in {samples}. Go on with --activation-checkpointing, or with --change clips_per_pass=1"
    )
