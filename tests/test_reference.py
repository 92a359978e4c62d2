"""The reference of the benchmark: it gives our numbers, and takes the work that the published code takes."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import reference.model
import torch
from reference import swin, training, transformer
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pack import full_pack
from sgmg.batch import ClipBatch, ClipTargets
from sgmg.config import SgMgConfig
from sgmg.decoding import best_query
from sgmg.model import SgMg
from sgmg.objective import Objective
from sgmg.preprocess import pad_clips

SIZE = (150, 170)
PARTS = {
    "backbone": (swin, "features"),
    "text_encoder": (reference.model, "encoded_text"),
    "scf_lfm": (reference.model, "filtered"),
    "fusion": (reference.model, "fused"),
    "transformer.encoder": (transformer, "encoded"),
    "transformer.decoder": (transformer, "decoded"),
    "mask_refine": (reference.model, "refined"),
}
"""Functions of the reference, by the name that the published figures give to what they compute."""


def a_model() -> SgMg:
    """A model off its initial values, at which boxes and heads are mute."""
    model = SgMg(SgMgConfig.preset("tiny"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model


def a_batch(frames: int, multiple: int) -> ClipBatch:
    padded, padding, sizes = pad_clips([torch.randn(frames, 3, *SIZE)], multiple)
    token_ids, token_padding = torch.randint(4, 2000, (1, 6)), torch.tensor([[False] * 4 + [True] * 2])
    return ClipBatch(padded, padding, sizes, token_ids, token_padding, clip_of=torch.tensor([0]))


def targets_in(batch: ClipBatch) -> ClipTargets:
    """An object that the first frame does not show."""
    _, t, _, h, w = batch.frames.shape
    valid = torch.arange(t)[None] > 0
    masks = torch.zeros(1, t, h, w, dtype=torch.bool)
    masks[..., 32:96, 48:80] = valid[..., None, None]
    return ClipTargets(masks, torch.tensor([0.4, 0.4, 0.2, 0.4]) * valid[..., None], valid, torch.ones(1))


@torch.no_grad()
@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("frames", [2, 9])
def test_the_reference_gives_our_numbers(frames: int) -> None:
    model, batch = a_model().eval(), a_batch(frames, 16)

    found = reference.model.segment(model, batch.frames, batch.padding, SIZE, batch.token_ids, batch.token_padding)

    video = model.encode_video(batch.frames, batch.padding)
    text = model.encode_text(batch.token_ids, batch.token_padding)
    out = model.segment(video, text, batch.sizes, batch.clip_of, layers="all")
    torch.testing.assert_close(found.scores, out.scores[:, 0])
    torch.testing.assert_close(found.boxes, out.boxes[:, 0])
    torch.testing.assert_close(found.masks, model.refine(video, out, best_query(out.scores[-1]))[0])


@pytest.mark.usefixtures("in_float64")
def test_the_reference_learns_what_we_learn() -> None:
    model, batch = a_model().train(), a_batch(2, 32)
    targets = targets_in(batch)

    def learnt(losses: dict[str, Tensor]) -> dict[str, Tensor | None]:
        model.zero_grad()
        losses["total"].backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    ours, theirs = Objective(model)(batch, targets), training.losses(model, batch, targets)
    torch.testing.assert_close(theirs, ours)
    torch.testing.assert_close(learnt(theirs), learnt(ours))


def test_the_reference_takes_a_step_with_a_frozen_text_encoder() -> None:
    model, batch = a_model().train(), a_batch(2, 32)
    model.text.freeze()
    step, targets = training.PublishedStep(model), targets_in(batch)
    assert step(batch, targets) > step(batch, targets)
    assert all(parameter.grad is None for parameter in model.text.roberta.parameters())


def test_the_reference_multiplies_as_much_as_the_published_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted on tensors without data, for 5 frames of 360x640: in all, and part by part."""
    pack = full_pack()
    if isinstance(pack, str):
        pytest.skip(pack)
    published = json.loads((pack / "baseline.json").read_text())["flops_video_swin_t_p4w7_T5"]["flops"]
    counted = Counter[str]()

    def counting(part: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def counted_run(*arguments: Any) -> Any:
            before = counter.get_total_flops()
            found = run(*arguments)
            counted[part] += counter.get_total_flops() - before
            return found

        return counted_run

    for part, (module, function) in PARTS.items():
        monkeypatch.setattr(module, function, counting(part, getattr(module, function)))
    with torch.device("meta"):
        model = SgMg(SgMgConfig.preset("video-swin-t")).eval().requires_grad_(False)
        frames, padding = torch.randn(1, 5, 3, 368, 640), torch.zeros(1, 368, 640, dtype=torch.bool)
        token_ids, token_padding = torch.zeros(1, 12, dtype=torch.int64), torch.zeros(1, 12, dtype=torch.bool)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            reference.model.segment(model, frames, padding, (360, 640), token_ids, token_padding)
    counted["total"] = counter.get_total_flops()
    assert dict(counted) == pytest.approx({part: published[part] for part in counted}, rel=1e-4)
