"""Checks of a device's numbers against the reference on the CPU, and of the Triton kernel against plain sampling."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from reference.measuring import SHORT
from reference.model import draw, refined
from reference.training import WORDS, in_floats, losses, training_clip
from torch import Tensor

from rounding import TIMES, in_float64
from sgmg.batch import ClipBatch, ClipTargets
from sgmg.config import Precision, SgMgConfig
from sgmg.deformable_attention import sample_plainly, triton_sampling
from sgmg.model import SgMg
from sgmg.objective import Objective

FORWARD_ERROR, GRADIENT_ERROR = 1e-4, 1e-3
"""Errors that are allowed in any case: that of the CPU may be small by luck. TF32 gives larger ones."""
KERNEL_ERROR: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 2e-2}
HEADS, DEPTH, POINTS = 8, 32, 4
"""Sizes of the deformable attention of the published models."""


@dataclass(frozen=True, slots=True)
class Check:
    """A number that is found on the device, and the largest that is allowed."""

    name: str
    found: float
    allowed: float
    meaning: str

    @property
    def failure(self) -> str | None:
        """One sentence if the number is too large, or none at all."""
        if self.found <= self.allowed:
            return None
        return f"{self.name} is {self.found:.3g}, more than the {self.allowed:.3g} allowed: {self.meaning}."


@contextmanager
def exact_products() -> Iterator[None]:
    """Switches TF32 off."""
    products, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions


def forward_check(preset: str, frames: int, device: torch.device) -> Check:
    """Compares scores, boxes and masks of a small clip, in float32."""
    model, (batch, targets) = off_initial_values(preset).eval(), small_clip(frames)
    with torch.no_grad():
        with in_float64():
            exact = reference_outputs(copy.deepcopy(model).double(), in_doubles(batch, targets)[0])
        rounding = error(outputs(model, batch), exact)
        found = error(outputs(model.to(device), batch.to(device)), exact)
    name = f"check_{preset.replace('-', '_')}_forward_error"
    return Check(name, found, max(FORWARD_ERROR, TIMES * rounding), "scores, boxes or masks are not those of the CPU")


def gradient_check(device: torch.device) -> Check:
    """Compares the whole gradient of a training step of `tiny`, which has no dropout, in float32."""
    model, (batch, targets) = off_initial_values("tiny").train(), small_clip(2)
    with in_float64():
        twin = copy.deepcopy(model).double()
        exact = gradient(twin, losses(twin, *in_doubles(batch, targets)))
    rounding = distance(gradient(model, Objective(model)(batch, targets)), exact)
    model.to(device)
    found = distance(gradient(model, Objective(model)(batch.to(device), targets.to(device))), exact)
    allowed = max(GRADIENT_ERROR, TIMES * rounding)
    return Check("check_tiny_gradient_error", found, allowed, "the gradient of a training step is not that of the CPU")


def kernel_checks(size: tuple[int, int], device: torch.device) -> Iterator[Check]:
    """Compares values and gradients of the Triton kernel with those of plain sampling, in frames of that size."""
    kernel = triton_sampling()
    yield Check("check_triton_missing", float(kernel is None), 0, "the Triton kernel is not used, the log says why")
    if kernel is None:
        return
    for precision, allowed in KERNEL_ERROR.items():
        given, shapes = samples(2, size, getattr(torch, precision), device)
        up = torch.randn(2, given[1].shape[1], HEADS * DEPTH, device=device)
        (plain, *exact), (fused, *found) = (sampled(run, given, shapes, up) for run in (sample_plainly, kernel))
        name, other = f"check_triton_{SHORT[precision]}", "the Triton kernel and plain sampling differ"
        yield Check(f"{name}_error", error([fused], [plain]), allowed, other)
        yield Check(f"{name}_gradient_error", error(found, exact), allowed, f"gradients of {other}")


def off_initial_values(preset: str) -> SgMg:
    """Returns a model with random weights, off its initial values, at which boxes and heads are mute."""
    model = SgMg(SgMgConfig.preset(preset))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model


def small_clip(frames: int) -> tuple[ClipBatch, ClipTargets]:
    """Returns a clip without padding: the positions of padded cells are sines of millions of turns, rounded anyhow."""
    batch, targets = training_clip(frames, (160, 192))
    token_padding = torch.arange(WORDS)[None] >= WORDS - 2
    return replace(in_floats(batch), token_padding=token_padding), targets


def in_doubles(batch: ClipBatch, targets: ClipTargets) -> tuple[ClipBatch, ClipTargets]:
    """Returns a clip in float64."""
    return (
        replace(batch, frames=batch.frames.double()),
        replace(targets, boxes=targets.boxes.double(), weight=targets.weight.double()),
    )


def outputs(model: SgMg, batch: ClipBatch) -> list[Tensor]:
    """Returns scores, boxes and patch masks of all layers and queries, and the refined mask of the first query."""
    video = model.encode_video(batch.frames, batch.padding)
    text = model.encode_text(batch.token_ids, batch.token_padding)
    out = model.segment(video, text, batch.sizes, batch.clip_of, layers="all")
    mask = model.refine(video, out, torch.zeros_like(batch.clip_of))
    return [out.scores[:, 0], out.boxes[:, 0], out.patch_masks[:, 0], mask[0]]


def reference_outputs(model: SgMg, batch: ClipBatch) -> list[Tensor]:
    """Returns what `outputs` does, computed as the published code does."""
    height, width = batch.sizes[0].tolist()
    drawn = draw(model, batch.frames, batch.padding, (height, width), batch.token_ids, batch.token_padding)
    return [drawn.scores, drawn.boxes, torch.stack(drawn.masks), refined(model, drawn.masks[-1][:, 0], drawn.features)]


def gradient(model: SgMg, found: dict[str, Tensor]) -> list[Tensor]:
    """Returns the gradient of the total loss, of each parameter that has one."""
    model.zero_grad()
    found["total"].backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def samples(
    frames: int, size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> tuple[tuple[Tensor, Tensor, Tensor], list[tuple[int, int]]]:
    """Returns values, locations and weights of the encoder's deformable attention, and the shapes of its levels.

    Locations are off the borders between cells, where the gradient jumps; some are outside.
    """
    shapes = [(math.ceil(size[0] / side), math.ceil(size[1] / side)) for side in (8, 16, 32, 64)]
    cells = sum(h * w for h, w in shapes)
    sides = torch.tensor([(w, h) for h, w in shapes], device=device)[:, None]
    values = torch.randn(frames, cells, HEADS, DEPTH, device=device, dtype=dtype)
    weights = torch.rand(frames, cells, HEADS, len(shapes), POINTS, device=device)
    drawn = torch.rand(2, *weights.shape, 2, device=device)
    locations = ((drawn[0] * (sides + 4)).floor() - 2 + 0.55 + 0.9 * drawn[1]) / sides
    return (values.requires_grad_(), locations.requires_grad_(), weights.requires_grad_()), shapes


def sampled(
    run: Callable[..., Tensor], given: Sequence[Tensor], shapes: list[tuple[int, int]], up: Tensor
) -> list[Tensor]:
    """Returns the samples, and the gradient of values, locations and weights, given that of the samples."""
    values, locations, weights = given
    out = run(values, shapes, locations, weights)
    return [out.detach(), *torch.autograd.grad((out * up).sum(), (values, locations, weights))]


def error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Returns the largest difference, as a share of the largest exact value of its tensor."""
    pairs = zip(found, [tensor.double() for tensor in exact], strict=True)
    return torch.stack([(one.to(other) - other).abs().max() / other.abs().max() for one, other in pairs]).max().item()


def distance(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Returns the norm of all differences, as a share of the norm of all exact values."""
    one, other = (torch.cat([tensor.flatten().double().cpu() for tensor in tensors]) for tensors in (found, exact))
    return ((one - other).norm() / other.norm()).item()
