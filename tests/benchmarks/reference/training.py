"""A training step as the published implementation does it: one clip, one sentence, all in float32."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from reference.model import draw, refined
from torch import Tensor, nn
from torch.optim import AdamW

from sgmg.batch import ClipBatch, ClipTargets
from sgmg.losses import count_valid_frames, layer_losses, total
from sgmg.matching import match
from sgmg.model import SgMg
from sgmg.optim import MAX_GRADIENT_NORM, WEIGHT_DECAY, LearningRates, parameter_groups
from sgmg.patch_kernels import PATCH
from sgmg.preprocess import normalize_clips, pad_clips

WORDS = 10
"""Tokens of a sentence."""


class PublishedStep:
    """Trains a model on one clip at a time: forward, backward, clipping, and AdamW (`foreach`).

    Args:
        model: a model as `reference.model.draw` takes it, in train mode.
    """

    def __init__(self, model: SgMg) -> None:
        self.model = model
        self.optimizer = AdamW(parameter_groups(model, LearningRates()), weight_decay=WEIGHT_DECAY, foreach=True)

    def __call__(self, batch: ClipBatch, targets: ClipTargets) -> float:
        """Returns the loss before the step. Arguments as in `losses`."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = losses(self.model, batch, targets)["total"]
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], MAX_GRADIENT_NORM)
        self.optimizer.step()
        return loss.item()


def losses(model: SgMg, batch: ClipBatch, targets: ClipTargets) -> dict[str, Tensor]:
    """Returns the losses of one clip and sentence, under the names that `Objective` gives them.

    Args:
        model: a model as `reference.model.draw` takes it.
        batch: one clip of normalized frames, and one sentence.
        targets: what the sentence means in it, padded like the frames.
    """
    height, width = batch.sizes[0].tolist()
    drawn = draw(model, batch.frames, batch.padding, (height, width), batch.token_ids, batch.token_padding)
    valid = count_valid_frames(targets)
    by_layer = []
    for scores, boxes, masks in zip(drawn.scores[:, None], drawn.boxes[:, None], drawn.masks, strict=True):
        patches = F.pixel_shuffle(masks, PATCH)[None, :, :, 0]
        query = match(scores, boxes, patches, targets)
        mask = refined(model, masks.index_select(1, query)[:, 0], drawn.features)[None]
        patch = patches.index_select(2, query)[:, :, 0]
        by_layer.append(layer_losses(scores, boxes, mask, patch, query, targets, valid))
    found = {"total": torch.stack([total(layer) for layer in by_layer]).sum(), **by_layer[-1]}
    for number, layer in enumerate(by_layer[:-1]):
        found |= {f"{name}_{number}": loss for name, loss in layer.items()}
    return found


def training_clip(frames: int, size: tuple[int, int]) -> tuple[ClipBatch, ClipTargets]:
    """Returns a clip in bytes with one sentence, and the object that it means: the second quarter of each side."""
    padded, padding, sizes = pad_clips([torch.randint(256, (frames, 3, *size)).float()], 32)
    (h, w), (height, width) = size, padded.shape[-2:]
    masks = torch.zeros(1, frames, height, width, dtype=torch.bool)
    masks[..., h // 4 : h // 2, w // 4 : w // 2] = True
    batch = ClipBatch(
        frames=padded.byte(),
        padding=padding,
        sizes=sizes,
        token_ids=torch.randint(4, 2000, (1, WORDS)),
        token_padding=torch.zeros(1, WORDS, dtype=torch.bool),
        clip_of=torch.zeros(1, dtype=torch.int64),
    )
    boxes = torch.tensor([0.375, 0.375, 0.25, 0.25]).expand(1, frames, 4)
    return batch, ClipTargets(masks, boxes, torch.ones(1, frames, dtype=torch.bool), torch.ones(1))


def in_floats(batch: ClipBatch) -> ClipBatch:
    """Returns the batch with normalized frames, which the reference takes."""
    return replace(batch, frames=normalize_clips(batch.frames, batch.padding))
