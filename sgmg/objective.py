"""Training objective: model, matching and losses in one module, to be wrapped in DDP."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from sgmg.batch import ClipBatch, ClipOutput, ClipTargets
from sgmg.decoding import take_query
from sgmg.losses import check_targets, count_valid_frames, layer_losses, total
from sgmg.matching import match
from sgmg.model import SgMg
from sgmg.patch_kernels import unfold_patches


@dataclass(frozen=True, slots=True)
class TrainOutput:
    """Outputs of one training forward pass: predictions of all l layers, the matched queries, and the losses."""

    out: ClipOutput
    matched: Int[Tensor, "l e"]
    masks: Float[Tensor, "l e t h w"]  # refined logits of the matched query
    patch_masks: Float[Tensor, "l e t h2 w2"]  # the same before refinement, at half resolution
    losses: dict[str, Float[Tensor, ""]]


class Objective(nn.Module):
    """Computes the named losses of a batch.

    Losses of the last layer have the names of `sgmg.losses.LOSS_WEIGHTS`; those of earlier layers end in the number
    of the layer (`dice_0`). `total` is the weighted sum of all layers, to be minimized. Buffers never change, so DDP
    can be used with `broadcast_buffers=False`.
    """

    def __init__(self, model: SgMg) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, batch: ClipBatch, targets: ClipTargets, valid_frames: Float[Tensor, ""] | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Returns the losses of a batch, including `total`.

        Args:
            batch: input of the model.
            targets: ground truth, padded like the frames.
            valid_frames: V of spec 9 if a step spans several batches; None computes it from this batch of all ranks.

        Raises:
            ValueError: an expression of weight 1 has no frame with its object.
        """
        return self.forward_with_outputs(batch, targets, valid_frames).losses

    def forward_with_outputs(
        self, batch: ClipBatch, targets: ClipTargets, valid_frames: Float[Tensor, ""] | None = None
    ) -> TrainOutput:
        """Computes what `forward` does, and returns the predictions and matches along with the losses."""
        check_targets(targets)
        model = self.model
        video = model.encode_video(batch.frames, batch.padding, batch.target_frame)
        text = model.encode_text(batch.token_ids, batch.token_padding)
        out = model.segment(video, text, batch.sizes, batch.clip_of, layers="all")
        layers = list(zip(out.scores, out.boxes, unfold_patches(out.patch_masks), strict=True))
        matched = [match(scores, boxes, candidates, targets) for scores, boxes, candidates in layers]
        patches = [take_query(candidates, query) for (_, _, candidates), query in zip(layers, matched, strict=True)]
        masks = [model.refine(video, out, query, layer) for layer, query in enumerate(matched)]
        valid = global_valid_frames(targets) if valid_frames is None else valid_frames
        by_layer = [
            layer_losses(scores, boxes, mask, patch, query, targets, valid)
            for (scores, boxes, _), mask, patch, query in zip(layers, masks, patches, matched, strict=True)
        ]
        losses = {"total": torch.stack([total(losses) for losses in by_layer]).sum(), **by_layer[-1]}
        for layer, earlier in enumerate(by_layer[:-1]):
            losses |= {f"{name}_{layer}": loss for name, loss in earlier.items()}
        return TrainOutput(out, torch.stack(matched), torch.stack(masks), torch.stack(patches), losses)


def global_valid_frames(targets: ClipTargets) -> Float[Tensor, ""]:
    """Returns V of spec 9: valid frames summed over all ranks, divided by the number of ranks (DDP averages)."""
    count = count_valid_frames(targets)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count = count / dist.get_world_size()
    return count
