"""Nothing in a pass makes the host wait for the device: tensors without values stand for those of a GPU.

Whoever asks such a tensor for a value gets an error, as from `.item()`, `nonzero` or a boolean index. What is made on
the CPU and sent to the device in the middle of a pass is looked for, too: it must come from a cache the second time.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sgmg.batch import ClipBatch, ClipTargets
from sgmg.config import SgMgConfig
from sgmg.decoding import best_query
from sgmg.model import SgMg
from sgmg.objective import Objective

META = torch.device("meta")
SIDE, FRAMES, WORDS = 160, 2, 6


class _Mixed(TorchDispatchMode):
    """Lists the operations that take tensors of the CPU and give one of the device, or the other way."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor) and leaf.dim()]
        if len({tensor.device.type for tensor in tensors}) > 1:
            self.found.append(str(func))
        return out


@contextmanager
def nothing_crosses() -> Iterator[None]:
    with _Mixed() as mode:
        yield
    assert mode.found == []


@pytest.fixture
def model() -> SgMg:
    with META:
        return SgMg(SgMgConfig.preset("tiny"))


def a_batch(device: torch.device) -> tuple[ClipBatch, ClipTargets]:
    """Two clips with a sentence each."""
    batch = ClipBatch(
        frames=torch.zeros(2, FRAMES, 3, SIDE, SIDE, dtype=torch.uint8, device=device),
        padding=torch.zeros(2, SIDE, SIDE, dtype=torch.bool, device=device),
        sizes=torch.full((2, 2), SIDE, device=device),
        token_ids=torch.zeros(2, WORDS, dtype=torch.int64, device=device),
        token_padding=torch.zeros(2, WORDS, dtype=torch.bool, device=device),
        clip_of=torch.zeros(2, dtype=torch.int64, device=device),
    )
    targets = ClipTargets(
        masks=torch.zeros(2, FRAMES, SIDE, SIDE, dtype=torch.bool, device=device),
        boxes=torch.zeros(2, FRAMES, 4, device=device),
        valid=torch.ones(2, FRAMES, dtype=torch.bool, device=device),
        weight=torch.ones(2, device=device),
    )
    return batch, targets


@pytest.mark.parametrize("target_frame", [False, True])
def test_a_clip_is_segmented_without_a_look_at_any_value(model: SgMg, target_frame: bool) -> None:
    model.eval()
    batch, _ = a_batch(META)
    if target_frame:
        batch = replace(batch, target_frame=torch.zeros(2, dtype=torch.int64, device=META))

    def segment() -> Tensor:
        video = model.encode_video(batch.frames, batch.padding, batch.target_frame)
        text = model.encode_text(batch.token_ids, batch.token_padding)
        out = model.segment(video, text, batch.sizes, batch.clip_of)
        return model.refine(video, out, best_query(out.scores[-1]))

    with torch.no_grad():
        assert segment().shape[-2:] == (SIDE, SIDE)  # the second pass is as the thousandth
        with nothing_crosses():
            segment()


def test_a_training_pass_looks_at_no_value(model: SgMg) -> None:
    objective = Objective(model.train())
    batch, targets = a_batch(META)

    def learn() -> None:
        objective(batch, targets, torch.ones((), device=META))["total"].backward()

    learn()
    with nothing_crosses():
        learn()


def test_the_test_notices_what_it_looks_for() -> None:
    with pytest.raises(AssertionError), nothing_crosses():
        torch.tensor([1.0, 2.0]).to(META)
    with pytest.raises(RuntimeError):
        torch.zeros(2, device=META)[torch.zeros(2, dtype=torch.bool, device=META)].sum().item()
