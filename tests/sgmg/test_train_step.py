"""The step that trains: passes and ranks add up to one global batch, and what must not teach does not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from loss_cases import padded_targets
from model_cases import batch_of, config_of, published_model
from pack import GOLDEN, Case, cases, full_pack
from patience import PATIENCE
from python_path import PYTHONPATH
from rounding import in_float64
from sgmg.batch import ClipBatch, ClipTargets
from sgmg.config import SgMgConfig, SwinConfig
from sgmg.model import SgMg
from sgmg.objective import Objective
from sgmg.optim import MAX_GRADIENT_NORM, LearningRates, group_of, optimizer_for
from sgmg.precision import Precision
from sgmg.published import published_names
from sgmg.train_step import MicroBatch, StepReport, TrainStep

SIDE, CLIPS, T = 160, 3, 2
CPU = torch.device("cpu")
TINY = SgMgConfig.preset("tiny")


def an_objective(config: SgMgConfig = TINY) -> Objective:
    """Of a model off its initial values, whose mute heads would keep gradients from what lies below them."""
    torch.manual_seed(0)
    objective = Objective(SgMg(config))
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return objective.train()


def clips(*chosen: int, weight: float = 1.0) -> MicroBatch:
    """Some of three clips with a sentence each; in the first frame of the last, its object is missing."""
    random = torch.Generator().manual_seed(1)
    frames = torch.randn(CLIPS, T, 3, SIDE, SIDE, generator=random)
    token_ids = torch.randint(4, 2000, (CLIPS, 5), generator=random)
    valid = torch.ones(CLIPS, T, dtype=torch.bool)
    valid[-1, 0] = False
    masks = torch.zeros(CLIPS, T, SIDE, SIDE, dtype=torch.bool)
    for number in range(CLIPS):
        masks[number, :, 32:96, 48 + 16 * number : 80 + 16 * number] = valid[number, :, None, None]
    boxes = torch.tensor([0.4, 0.4, 0.2, 0.4]) * valid[..., None]
    rows, count = list(chosen), len(chosen)
    batch = ClipBatch(
        frames=frames[rows],
        padding=torch.zeros(count, SIDE, SIDE, dtype=torch.bool),
        sizes=torch.tensor([[SIDE, SIDE]] * count),
        token_ids=token_ids[rows],
        token_padding=torch.zeros(count, 5, dtype=torch.bool),
        clip_of=torch.arange(count),
    )
    targets = ClipTargets(masks[rows], boxes[rows], valid[rows], weight=torch.full((count,), weight))
    return MicroBatch(batch, targets, seed=chosen[0])


def a_step(objective: torch.nn.Module, rate: float = 0.1, precision: Precision = "float32") -> TrainStep:
    """Plain descent, so that weights differ as gradients do: Adam would blow up what is nearly nothing."""
    learning = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    return TrainStep(objective, SGD(learning, rate), device=CPU, precision=precision, max_grad_norm=1.0)


def weights_of(objective: torch.nn.Module) -> dict[str, Tensor]:
    return {name.removeprefix("module."): weight.detach().clone() for name, weight in objective.named_parameters()}


def learned(*micro_batches: MicroBatch) -> tuple[StepReport, dict[str, Tensor]]:
    """What one step over the passes tells, and the weights after it."""
    objective = an_objective()
    report = a_step(objective)(micro_batches, step=0)
    return report, weights_of(objective)


def assert_same(found: tuple[StepReport, dict[str, Tensor]], wanted: tuple[StepReport, dict[str, Tensor]]) -> None:
    """Of what was learned in float64."""
    assert dict(found[0].losses) == pytest.approx(dict(wanted[0].losses))
    assert found[0].gradient_norm == pytest.approx(wanted[0].gradient_norm)
    torch.testing.assert_close(found[1], wanted[1])


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors this small gain nothing from two, and on a busy machine threads that wait for each other lose much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def together() -> tuple[StepReport, dict[str, Tensor]]:
    """Learned of all three clips in one pass."""
    with in_float64():
        return learned(clips(0, 1, 2))


@pytest.mark.usefixtures("in_float64")
def test_several_passes_teach_what_one_with_all_clips_teaches(
    together: tuple[StepReport, dict[str, Tensor]],
) -> None:
    assert_same(learned(clips(0), clips(1), clips(2)), together)
    assert_same(learned(clips(0, 1), clips(2)), together)
    before = weights_of(an_objective())
    assert max((together[1][name] - weight).abs().max() for name, weight in before.items()) > 1e-3


@pytest.mark.usefixtures("in_float64")
def test_clips_of_weight_zero_teach_nothing(together: tuple[StepReport, dict[str, Tensor]]) -> None:
    nothing = clips(1, weight=0.0)
    assert_same(learned(nothing, clips(0, 1, 2), nothing), together)
    alone = an_objective()
    report = a_step(alone)([nothing], step=0)
    assert (report.losses["total"], report.gradient_norm) == (0, 0)
    torch.testing.assert_close(weights_of(alone), weights_of(an_objective()), atol=0, rtol=0)


def test_the_seed_of_a_pass_decides_its_dropout_whatever_was_drawn_before() -> None:
    config = replace(TINY, dropout=0.3)

    def weights(drawn_before: int, seed: int) -> dict[str, Tensor]:
        objective = an_objective(config)
        torch.rand(drawn_before)
        a_step(objective)([replace(clips(0), seed=seed)], step=0)
        return weights_of(objective)

    torch.testing.assert_close(weights(0, seed=3), weights(7, seed=3), atol=0, rtol=0)
    assert any(not torch.equal(*pair) for pair in zip(weights(0, 3).values(), weights(0, 4).values(), strict=True))


DEALS = ([[(0,), (1,)], [(2,)]], [[(0, 1)], [(2,)]])
"""Passes of each of two ranks, by the clips in them."""


@pytest.mark.usefixtures("in_float64")
def test_two_processes_learn_what_one_learns_of_all_passes(
    together: tuple[StepReport, dict[str, Tensor]], tmp_path: Path
) -> None:
    other = subprocess.Popen(
        [sys.executable, __file__, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    )
    try:
        found = learned_as_rank(0, tmp_path)
        output, _ = other.communicate(timeout=PATIENCE)
    finally:
        other.kill()
    assert other.returncode == 0, output
    for one in found:
        assert_same(one, together)


@in_float64()
def learned_as_rank(rank: int, folder: Path) -> list[tuple[StepReport, dict[str, Tensor]]]:
    """As `learned`, of one of two processes, for each of the deals."""
    wait = timedelta(seconds=120)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", wait, world_size=2, rank=rank)
    found = []
    try:
        for deal in DEALS:
            objective = DistributedDataParallel(an_objective(), forward_sync_buffers=False)
            report = a_step(objective)([clips(*one) for one in deal[rank]], step=0)
            found.append((report, weights_of(objective)))
    finally:
        dist.destroy_process_group()
    return found


if __name__ == "__main__":  # the other process of the test above
    torch.set_num_threads(1)
    learned_as_rank(1, Path(sys.argv[1]))


def test_a_loss_that_is_no_number_stops_the_step_and_no_weight_changes() -> None:
    objective = an_objective()
    before = weights_of(objective)
    calls: list[int] = []

    def spoil_the_second(_module: torch.nn.Module, _given: object, found: Tensor) -> Tensor:
        calls.append(1)
        return found * float("nan") if len(calls) == 2 else found

    objective.model.class_heads[-1].register_forward_hook(spoil_the_second)
    step = a_step(objective)
    with pytest.raises(FloatingPointError, match=r"At step 12 .*total=nan, ce=nan"):
        step([clips(0), clips(1)], step=12)
    torch.testing.assert_close(weights_of(objective), before, atol=0, rtol=0)
    step([clips(0)], step=13)  # nothing is left of the gradients of the step before
    other = an_objective()
    a_step(other)([clips(0)], step=13)
    torch.testing.assert_close(weights_of(objective), weights_of(other), atol=0, rtol=0)


def test_a_gradient_that_is_no_number_stops_the_step_too() -> None:
    objective = an_objective()
    before = weights_of(objective)
    weight = objective.model.class_heads[-1].weight
    assert isinstance(weight, Tensor)
    weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(FloatingPointError, match=r"At step 3 .*gradient norm=nan"):
        a_step(objective)([clips(0)], step=3)
    torch.testing.assert_close(weights_of(objective), before, atol=0, rtol=0)


def test_float16_skips_a_step_whose_gradient_overflows_and_halves_the_scale() -> None:
    objective = an_objective()
    before = weights_of(objective)
    step = a_step(objective, precision="float16")
    scale = step.scaler.get_scale()
    parameter = next(objective.parameters())
    hook = parameter.register_hook(lambda gradient: gradient * float("inf"))
    assert step([clips(0)], step=0).skipped
    assert step.scaler.get_scale() == scale / 2
    torch.testing.assert_close(weights_of(objective), before, atol=0, rtol=0)
    hook.remove()
    kept = step.state_dict()
    other = a_step(objective, precision="float16")
    other.load_state_dict(kept)
    assert other.scaler.get_scale() == scale / 2


def test_float16_goes_on_after_a_loss_that_is_no_number() -> None:
    objective = an_objective()
    step = a_step(objective, precision="float16")

    def spoil(_module: torch.nn.Module, _given: object, found: Tensor) -> Tensor:
        return found * float("nan")

    hook = objective.model.class_heads[-1].register_forward_hook(spoil)
    for number in range(2):  # one may follow the other
        with pytest.raises(FloatingPointError, match=r"total=nan, ce=nan"):
            step([clips(0)], step=number)
    hook.remove()
    before = weights_of(objective)
    assert not step([clips(0)], step=2).skipped
    assert any((weight != before[name]).any() for name, weight in weights_of(objective).items())


def test_bfloat16_comes_close() -> None:
    full = a_step(an_objective())([clips(0)], step=0)
    mixed = a_step(an_objective(), precision="bfloat16")([clips(0)], step=0)
    assert mixed.losses["total"] == pytest.approx(full.losses["total"], rel=0.05)
    assert mixed.losses["total"] != full.losses["total"]


def test_the_seconds_of_every_phase_are_told_where_they_are_wanted() -> None:
    objective = an_objective()
    step = TrainStep(objective, SGD(objective.parameters(), 0.1), device=CPU, measure=True)
    seconds = step([clips(0), clips(1)], step=0).seconds
    assert set(seconds) == {"forward", "backward", "optimiser"}
    assert all(spent > 0 for spent in seconds.values())
    assert not a_step(objective)([clips(0)], step=1).seconds


@pytest.mark.usefixtures("in_float64")
def test_a_frozen_text_encoder_that_remembers_gives_the_same_and_reads_each_sentence_once() -> None:
    reads: list[int] = []

    def weights(keep: int) -> dict[str, Tensor]:
        objective = an_objective()
        objective.model.text.freeze(keep)
        objective.model.text.roberta.register_forward_pre_hook(lambda _module, given: reads.append(len(given[0])))
        step = a_step(objective)
        for number in range(3):
            step([clips(0), clips(1, 2)], step=number)
        return weights_of(objective)

    remembered = weights(keep=8)
    assert reads == [1, 1, 1]
    reads.clear()
    anew = weights(keep=0)
    assert reads == [1, 2] * 3
    torch.testing.assert_close(remembered, anew)


def test_the_state_of_a_step_goes_on_as_if_it_had_never_stopped() -> None:
    objective = an_objective()
    step = TrainStep(objective, optimizer_for(objective.model, LearningRates()), device=CPU)
    step([clips(0)], step=0)
    other = Objective(SgMg(TINY)).train()
    other.load_state_dict(objective.state_dict())
    again = TrainStep(other, optimizer_for(other.model, LearningRates()), device=CPU)
    again.load_state_dict(deepcopy(step.state_dict()))  # AdamW takes tensors as they are
    step([clips(1)], step=1)
    again([clips(1)], step=1)
    torch.testing.assert_close(weights_of(other), weights_of(objective), atol=0, rtol=0)


def test_a_state_saved_where_one_kernel_changes_all_weights_goes_on_here() -> None:
    objective = an_objective()
    step = TrainStep(objective, optimizer_for(objective.model), device=CPU)
    step([clips(0)], step=0)
    state = deepcopy(step.state_dict())
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = True
    step.load_state_dict(state)
    assert {group["fused"] for group in step.optimizer.param_groups} == {None}
    assert state["optimizer"]["param_groups"][0]["fused"]  # what is given stays as it is


def training_cases() -> dict[str, Callable[[], Case]]:
    """Those of the full pack, or the one that every clone has."""
    found = full_pack()
    folder = GOLDEN if isinstance(found, str) else found
    kinds = json.loads((folder / "manifest.json").read_text())["cases"]
    return cases(folder, [name for name, told in kinds.items() if told["kind"] == "train"])


@pytest.mark.slow
@pytest.mark.xdist_group("model")
@pytest.mark.parametrize("name", training_cases())
@in_float64(constants=False)
def test_a_step_of_the_published_recipe_is_adamw_on_the_published_gradient(name: str) -> None:
    case = training_cases()[name]()
    published = config_of(case)
    assert isinstance(published.backbone, SwinConfig)
    quiet = replace(
        published,
        dropout=0.0,
        text=replace(published.text, dropout=0.0),
        backbone=replace(published.backbone, drop_path=0.0),
    )
    model = published_model.__wrapped__(quiet, case.salt).double().train()  # one of its own: the others must not learn
    model.text.freeze()
    batch = batch_of(case)
    batch = replace(batch, frames=batch.frames.double())
    forward = MicroBatch(batch, padded_targets(case, *batch.frames.shape[-2:]), seed=0)
    before = weights_of(model)
    optimizer = optimizer_for(model)
    report = TrainStep(Objective(model), optimizer, device=CPU)([forward], step=0)

    def assert_golden(output: str, value: Tensor | float) -> None:
        allowed = case.meta["outputs"][output]["atol"]
        torch.testing.assert_close(
            torch.as_tensor(value, dtype=torch.float64).reshape(-1),
            torch.from_numpy(case.expected[output]).double().reshape(-1),
            atol=allowed,
            rtol=0,
        )

    losses = dict(report.losses)
    assert_golden("total", losses.pop("total"))
    assert {f"loss/loss_{loss}" for loss in losses} == {name for name in case.expected if name.startswith("loss/")}
    for loss, value in losses.items():
        assert_golden(f"loss/loss_{loss}", value)
    assert_golden("grad_total_norm", report.gradient_norm)

    clipped = MAX_GRADIENT_NORM / (report.gradient_norm + 1e-6)
    assert clipped < 1
    theirs, ours = published_names(model), dict(model.named_parameters())
    norms = {theirs[name]: weight.grad.norm() / clipped for name, weight in ours.items() if weight.grad is not None}
    assert_golden("grad_norms", torch.stack([norms[name] for name in case.meta["notes"]["grad_names"]]))

    rates = {"backbone": 5e-5, "text": 1e-5, "main": 1e-4, "sampling": 1e-4}
    for name, weight in ours.items():
        if weight.grad is None:
            assert torch.equal(weight, before[name]), name
            continue
        # The first step of AdamW: both means, freed of their bias, are the gradient and its square.
        rate, gradient = rates[group_of(name)], weight.grad
        wanted = before[name] * (1 - rate * 5e-4) - rate * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(weight.detach(), wanted, msg=lambda text, n=name: f"{n}: {text}")
