"""RoBERTa (Liu et al. 2019), with the module names of the published weights.

Written here because importing transformers costs every process 2.7 s of processor time and 157 MB.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sgmg import vector_math
from sgmg.config import TextConfig
from sgmg.tokenizer import PAD, SPECIAL

vector_math.settle()

PAD_ID = SPECIAL.index(PAD)
_EPS = 1e-5


class Roberta(nn.Module):
    """Transformer encoder of token ids, normalised after each block, with a tanh pooler of the first token.

    Weights are initialised at random; `sgmg.pretrained.roberta_state` reads pretrained ones.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.pooler = nn.ModuleDict({"dense": nn.Linear(config.width, config.width)})
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=config.initial_std)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=config.initial_std)
                if module.padding_idx is not None:
                    nn.init.zeros_(module.weight[module.padding_idx])

    def forward(
        self, token_ids: Int[Tensor, "e n"], padding: Bool[Tensor, "e n"]
    ) -> tuple[Float[Tensor, "e n w"], Float[Tensor, "e w"]]:
        """Returns the last hidden states, and the pooled first token. Words do not read the padding."""
        hidden = self.encoder(self.embeddings(token_ids), ~padding[:, None, None])
        return hidden, torch.tanh(self.pooler["dense"](hidden[:, 0]))


class _Embeddings(nn.Module):
    """Sum of the embeddings of words, their positions, and the one type of token there is."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocabulary, config.width, padding_idx=PAD_ID)
        self.token_type_embeddings = nn.Embedding(1, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=_EPS)
        self.dropout = nn.Dropout(config.dropout)
        # Positions of words begin after the id of the padding, which is the position of all padding.
        self.position_embeddings = nn.Embedding(config.max_tokens + PAD_ID + 1, config.width, padding_idx=PAD_ID)

    def forward(self, token_ids: Int[Tensor, "e n"]) -> Float[Tensor, "e n w"]:
        words = token_ids != PAD_ID
        positions = PAD_ID + words.cumsum(dim=1) * words
        types = self.token_type_embeddings(torch.zeros_like(token_ids))
        embedded = self.word_embeddings(token_ids) + types + self.position_embeddings(positions)
        return self.dropout(self.LayerNorm(embedded))


class _Encoder(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.layers))

    def forward(self, hidden: Float[Tensor, "e n w"], readable: Bool[Tensor, "e 1 1 n"]) -> Float[Tensor, "e n w"]:
        for layer in self.layer:
            hidden = layer(hidden, readable)
        return hidden


class _Layer(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.width, config.ffn)})
        self.output = _Output(config.ffn, config)

    def forward(self, hidden: Float[Tensor, "e n w"], readable: Bool[Tensor, "e 1 1 n"]) -> Float[Tensor, "e n w"]:
        hidden = self.attention(hidden, readable)
        return self.output(F.gelu(self.intermediate["dense"](hidden)), hidden)


class _Attention(nn.Module):
    """Self-attention with several heads."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        projections = {name: nn.Linear(config.width, config.width) for name in ("query", "key", "value")}
        self.self = nn.ModuleDict(projections)
        self.output = _Output(config.width, config)

    def forward(self, hidden: Float[Tensor, "e n w"], readable: Bool[Tensor, "e 1 1 n"]) -> Float[Tensor, "e n w"]:
        query, key, value = (
            rearrange(self.self[name](hidden), "e n (h d) -> e h n d", h=self.heads)
            for name in ("query", "key", "value")
        )
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=readable, dropout_p=dropout)
        return self.output(rearrange(found, "e h n d -> e n (h d)"), hidden)


class _Output(nn.Module):
    """The end of a block: projection, dropout, sum with the block's input, LayerNorm."""

    def __init__(self, inputs: int, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: Float[Tensor, "e n inputs"], before: Float[Tensor, "e n w"]) -> Float[Tensor, "e n w"]:
        return self.LayerNorm(self.dropout(self.dense(features)) + before)
