"""What training minimizes: the model, its matching and its losses in one module. This is what DDP wraps."""

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
    """One training forward: predictions of all l layers, the query each matched, and what that cost."""

    out: ClipOutput
    matched: Int[Tensor, "l e"]
    masks: Float[Tensor, "l e t h w"]  # refined logits of the matched query
    patch_masks: Float[Tensor, "l e t h2 w2"]  # the same before refinement, at half resolution
    losses: dict[str, Float[Tensor, ""]]


class Objective(nn.Module):
    """Named losses of a batch.

    DDP may be told `broadcast_buffers=False`: no buffer here ever changes.

    The last layer's losses go by the names of `sgmg.losses.LOSS_WEIGHTS`, those of earlier layers have the number of
    the layer behind (`dice_0`); `total` is the weighted sum of all, the one to minimize.
    """

    def __init__(self, model: SgMg) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, batch: ClipBatch, targets: ClipTargets, valid_frames: Float[Tensor, ""] | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses of a batch, `total` among them.

        Args:
            batch: what the model sees.
            targets: what it should find, padded like the frames.
            valid_frames: V of spec 9, where a step spans several batches; else this batch's, over all ranks.

        Raises:
            ValueError: the object of an expression is in no frame.
        """
        return self.forward_with_outputs(batch, targets, valid_frames).losses

    def forward_with_outputs(
        self, batch: ClipBatch, targets: ClipTargets, valid_frames: Float[Tensor, ""] | None = None
    ) -> TrainOutput:
        """As `forward`, with everything the losses were made from."""
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
    """V of spec 9: valid frames of the batch of all ranks, a rank's share of them (DDP averages over ranks)."""
    count = count_valid_frames(targets)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count = count / dist.get_world_size()
    return count
