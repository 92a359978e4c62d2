"""Fusion of the words of an expression into the pixels of a clip, and of several expressions that share its encoder."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from sgmg.batch import TextFeatures
from sgmg.precision import without_autocast


class LanguageFusion(nn.Module):
    """Cross-attention from pixels to words; each pixel is multiplied by the result (spec 5).

    One module serves all levels; it has no residual, norm or pixel positions. Words are few and pixels many, so the
    projections of the pixels are taken over to the words: what a word is compared with, and what it answers with.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(channels, 3 * channels)
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, pixels: Float[Tensor, "b t c h w"], text: TextFeatures, clip_of: Int[Tensor, " e"]
    ) -> Float[Tensor, "e t c h w"]:
        """Returns, for each expression, the pixels of its clip fused with its words."""
        questions, biases, answers = self._of_words(text)
        seen = pixels[clip_of].flatten(3)
        logits = torch.matmul(questions[:, None], seen) + biases[:, None, :, None]
        logits = logits.unflatten(2, (self.heads, -1)).masked_fill(text.padding[:, None, None, :, None], -math.inf)
        shares = logits.softmax(dim=3, dtype=torch.promote_types(logits.dtype, torch.float32)).flatten(2, 3)
        attended = torch.matmul(answers[:, None], shares) + self.out_proj.bias[:, None]
        return (seen * attended).unflatten(3, pixels.shape[3:])

    def _of_words(
        self, text: TextFeatures
    ) -> tuple[Float[Tensor, "e kn c"], Float[Tensor, "e kn"], Float[Tensor, "e c kn"]]:
        """Returns, for each head and word, what a pixel is multiplied by, what is added to that, and the answer."""
        (w_query, w_key, w_value), (b_query, b_key, b_value) = self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3)
        split = "e n (k d) -> e k n d"
        with without_autocast(text.words.device):
            words, positions = text.words.to(w_key.dtype), text.positions.to(w_key.dtype)
            keys = rearrange(F.linear(words + positions, w_key, b_key), split, k=self.heads)
            values = rearrange(F.linear(words, w_value, b_value), split, k=self.heads)
            keys = keys * keys.shape[-1] ** -0.5
            questions = keys @ w_query.unflatten(0, (self.heads, -1))
            biases = keys @ b_query.view(self.heads, -1, 1)
            answers = values @ rearrange(self.out_proj.weight, "c (k d) -> k d c", k=self.heads)
        return questions.flatten(1, 2), biases.flatten(1), answers.flatten(1, 2).mT


class Decoupling(nn.Module):
    """Change of the memory that the expressions of a clip share into the memory of each (spec many.md, 3).

    What the clip fused with one expression holds at a cell, and how that differs from the mean of the expressions that
    share the clip, scales and shifts the memory there. It starts at zero: the memory is then handed on as it is, and
    one expression alone is answered as by a single-object model.
    """

    GAIN = 8.0
    """Factor of the layer that starts at zero. AdamW moves every weight by about the learning rate, so this layer,
    which has everything to learn, learns that much faster than the trained ones around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.difference_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.scale_and_shift = nn.Linear(2 * channels, 2 * channels)
        nn.init.zeros_(self.scale_and_shift.weight)
        nn.init.zeros_(self.scale_and_shift.bias)

    def forward(
        self, memory: Float[Tensor, "b t s c"], fused: Float[Tensor, "e t s c"], clip_of: Int[Tensor, " e"]
    ) -> Float[Tensor, "e t s c"]:
        """Returns the memory of each expression, of that of its clip and of the cells fused with it alone."""
        members = sum_of_clip(torch.ones_like(fused[:, :1, :1, :1]), clip_of, len(memory))
        mean = sum_of_clip(fused, clip_of, len(memory)) / members.clamp(min=1)
        # Of an expression that is alone in its clip, the difference is exactly zero.
        inputs = torch.cat([self.norm(fused), self.difference_norm(fused - mean[clip_of])], dim=-1)
        scale, shift = (self.GAIN * self.scale_and_shift(inputs)).chunk(2, dim=-1)
        return torch.addcmul(memory[clip_of] + shift, memory[clip_of], scale)


def sum_of_clip(fused: Float[Tensor, "e ..."], clip_of: Int[Tensor, " e"], clips: int) -> Float[Tensor, "b ..."]:
    """Returns, for each clip, the sum of what it is when fused with each of its expressions (spec many.md, 1)."""
    if clips == 1:
        return fused.sum(dim=0, keepdim=True)
    members = (clip_of == torch.arange(clips, device=clip_of.device)[:, None]).to(fused.dtype)
    return (members @ fused.flatten(1)).unflatten(1, fused.shape[1:])
