"""Fusion of the word features of an expression into the pixel features of a clip."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from sgmg.batch import TextFeatures


class LanguageFusion(nn.Module):
    """Cross-attention from pixels to words; each pixel is multiplied by the result (spec 5).

    One module serves all levels; it has no residual, norm or pixel positions. Pixels are projected once per clip, for
    all of its expressions.
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
        t, h, w = pixels.shape[1], pixels.shape[3], pixels.shape[4]
        (w_query, w_key, w_value), (b_query, b_key, b_value) = self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3)
        split = "e n (k d) -> e k n d"
        query = F.linear(rearrange(pixels, "b t c h w -> b (t h w) c"), w_query, b_query)
        attended = F.scaled_dot_product_attention(
            rearrange(query[clip_of], split, k=self.heads),
            rearrange(F.linear(text.words + text.positions, w_key, b_key), split, k=self.heads),
            rearrange(F.linear(text.words, w_value, b_value), split, k=self.heads),
            attn_mask=rearrange(~text.padding, "e n -> e 1 1 n"),
        )
        attended = self.out_proj(rearrange(attended, "e k n d -> e n (k d)"))
        return pixels[clip_of] * rearrange(attended, "e (t h w) c -> e t c h w", t=t, h=h, w=w)
