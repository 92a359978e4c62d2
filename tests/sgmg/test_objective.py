import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from patience import PATIENCE
from python_path import PYTHONPATH
from rounding import in_float64
from sgmg.batch import ClipBatch, ClipTargets
from sgmg.config import SgMgConfig
from sgmg.losses import LOSS_WEIGHTS
from sgmg.matching import match
from sgmg.model import SgMg
from sgmg.objective import Objective, global_valid_frames
from sgmg.patch_kernels import unfold_patches

SIDE = 160
TINY = SgMgConfig.preset("tiny")


def an_objective() -> Objective:
    """Of a model off its initial values, whose mute heads would keep gradients from what lies below them.

    With this seed the two layers match different queries in float64.
    """
    torch.manual_seed(2)
    objective = Objective(SgMg(TINY))
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return objective


def two_clips(t: int = 2) -> tuple[ClipBatch, ClipTargets]:
    """Two clips with an expression each; the second object is missing in the first frame."""
    random = torch.Generator().manual_seed(1)
    batch = ClipBatch(
        frames=torch.randn(2, t, 3, SIDE, SIDE, generator=random),
        padding=torch.zeros(2, SIDE, SIDE, dtype=torch.bool),
        sizes=torch.tensor([[SIDE, SIDE], [SIDE, SIDE]]),
        token_ids=torch.randint(4, 2000, (2, 5), generator=random),
        token_padding=torch.tensor([[False] * 5, [False] * 4 + [True]]),
        clip_of=torch.tensor([0, 1]),
    )
    valid = torch.ones(2, t, dtype=torch.bool)
    valid[1, 0] = False
    masks = torch.zeros(2, t, SIDE, SIDE, dtype=torch.bool)
    masks[..., 32:96, 48:80] = valid[..., None, None]
    boxes = torch.tensor([0.4, 0.4, 0.2, 0.4]) * valid[..., None]
    return batch, ClipTargets(masks, boxes, valid, weight=torch.ones(2))


def clip(index: int, batch: ClipBatch, targets: ClipTargets) -> tuple[ClipBatch, ClipTargets]:
    """One of the clips as a batch of its own."""
    one = slice(index, index + 1)
    return (
        ClipBatch(
            batch.frames[one],
            batch.padding[one],
            batch.sizes[one],
            batch.token_ids[one],
            batch.token_padding[one],
            torch.tensor([0]),
        ),
        ClipTargets(targets.masks[one], targets.boxes[one], targets.valid[one], targets.weight[one]),
    )


def gradients_of(objective: torch.nn.Module, batch: ClipBatch, targets: ClipTargets) -> dict[str, Tensor]:
    """Of the total, by the name of the parameter."""
    objective.zero_grad()
    objective(batch, targets)["total"].backward()
    return {
        name.removeprefix("module."): parameter.grad.clone()
        for name, parameter in objective.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.usefixtures("in_float64")
def test_losses_are_named_by_kind_and_layer_and_the_total_weighs_them_all() -> None:
    losses = an_objective()(*two_clips())
    assert set(losses) == {"total", *LOSS_WEIGHTS, *(f"{name}_0" for name in LOSS_WEIGHTS)}
    for name, loss in losses.items():
        assert loss.isfinite(), name
        assert loss > 0, name
    weighted = [weight * (losses[name] + losses[f"{name}_0"]) for name, weight in LOSS_WEIGHTS.items()]
    torch.testing.assert_close(losses["total"], torch.stack(weighted).sum())


def test_the_gradient_reaches_everything_that_learns() -> None:
    objective = an_objective()
    gradients = gradients_of(objective, *two_clips())
    assert {name for name, _ in objective.named_parameters()} == set(gradients)
    assert [name for name, gradient in gradients.items() if not gradient.any()] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_a_frozen_text_encoder_learns_nothing_but_its_resizers_do() -> None:
    objective = an_objective()
    objective.model.text.freeze()
    learning = set(gradients_of(objective, *two_clips()))
    everything = {name for name, _ in objective.named_parameters()}
    assert everything - learning == {name for name in everything if name.startswith("model.text.roberta.")}
    assert "model.text.word_resizer.fc.weight" in learning


@pytest.mark.usefixtures("in_float64")
def test_an_expression_of_weight_zero_changes_nothing() -> None:
    objective, (batch, targets) = an_objective(), two_clips()
    dropped = replace(targets, weight=torch.tensor([1.0, 0.0]))
    alone = clip(0, batch, targets)
    torch.testing.assert_close(objective(batch, dropped), objective(*alone))
    torch.testing.assert_close(gradients_of(objective, batch, dropped), gradients_of(objective, *alone))


@pytest.mark.usefixtures("in_float64")
def test_each_layer_matches_for_itself_and_its_matched_query_is_drawn() -> None:
    objective, (batch, targets) = an_objective(), two_clips()
    with torch.no_grad():
        found = objective.forward_with_outputs(batch, targets)
        video = objective.model.encode_video(batch.frames, batch.padding)
        drawn = [objective.model.refine(video, found.out, query, layer) for layer, query in enumerate(found.matched)]
    candidates = unfold_patches(found.out.patch_masks)
    for layer, patches in enumerate(candidates):
        matched = match(found.out.scores[layer], found.out.boxes[layer], patches, targets)
        assert found.matched[layer].tolist() == matched.tolist()
        torch.testing.assert_close(found.patch_masks[layer], patches[torch.arange(2), :, matched])
    assert found.matched[0].tolist() != found.matched[1].tolist()
    torch.testing.assert_close(found.masks, torch.stack(drawn))


def test_where_one_frame_is_asked_it_alone_is_taught_and_the_others_are_seen() -> None:
    objective, (batch, targets) = an_objective(), two_clips(t=3)
    frames = batch.frames.requires_grad_()
    asked = replace(batch, frames=frames, target_frame=torch.tensor([2, 1]))
    at = slice(1, 2)
    one = ClipTargets(targets.masks[:, at], targets.boxes[:, at], targets.valid[:, at], targets.weight)
    found = objective.forward_with_outputs(asked, one)
    assert found.masks.shape == (TINY.decoder_layers, 2, 1, SIDE, SIDE)
    (gradient,) = torch.autograd.grad(found.losses["total"], frames)
    assert gradient[:, 0].any()  # asked of neither clip, yet the backbone looks at it
    with pytest.raises(ValueError, match=r"call for \(2, 3, 5\)"):
        objective(asked, targets)


@pytest.mark.usefixtures("in_float64")
def test_losses_are_shares_of_the_valid_frames_given() -> None:
    objective, (batch, targets) = an_objective(), two_clips()
    assert global_valid_frames(targets).item() == 3
    own, halved = objective(batch, targets), objective(batch, targets, torch.tensor(6.0))
    torch.testing.assert_close({name: loss / 2 for name, loss in own.items()}, halved)


def test_a_clip_without_its_object_is_refused_before_the_model_runs() -> None:
    objective, (batch, targets) = an_objective(), two_clips()
    runs = []
    objective.model.backbone.register_forward_pre_hook(lambda *_: runs.append(1))
    nowhere = replace(targets, valid=targets.valid & torch.tensor([[True], [False]]))
    with pytest.raises(ValueError, match="object of expression 1"):
        objective(batch, nowhere)
    assert not runs


@pytest.mark.usefixtures("in_float64")
def test_two_processes_learn_what_one_learns_of_both_batches(tmp_path: Path) -> None:
    expected = gradients_of(an_objective(), *two_clips())
    other = subprocess.Popen(
        [sys.executable, __file__, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    )
    try:
        gradients, valid = learned_by(0, tmp_path)
        output, _ = other.communicate(timeout=PATIENCE)
    finally:
        other.kill()
    assert other.returncode == 0, output
    assert valid == 1.5  # two frames here, one there
    torch.testing.assert_close(gradients, expected)


@in_float64()
def learned_by(rank: int, folder: Path) -> tuple[dict[str, Tensor], float]:
    """What one of two processes learns from its own clip: the gradients, and V of spec 9."""
    wait = timedelta(seconds=60)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", wait, world_size=2, rank=rank)
    try:
        batch, targets = clip(rank, *two_clips())
        gradients = gradients_of(DistributedDataParallel(an_objective()), batch, targets)
        return gradients, global_valid_frames(targets).item()
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":  # the other process of the test above
    torch.set_num_threads(1)
    learned_by(1, Path(sys.argv[1]))


def test_a_batch_of_dropped_samples_teaches_nothing_and_reaches_every_parameter() -> None:
    objective, (batch, targets) = an_objective(), two_clips()
    losses = objective(batch, replace(targets, weight=torch.zeros(2)))
    losses["total"].backward()
    assert losses["total"] == 0
    gradients = [parameter.grad for parameter in objective.parameters() if parameter.requires_grad]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
