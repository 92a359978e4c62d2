"""Text encoder of SgMg (spec 2): RoBERTa, and two resizers to the width of the model."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sgmg.batch import TextFeatures
from sgmg.config import TextConfig
from sgmg.model_input import is_at_hand
from sgmg.positions import word_positions
from sgmg.precision import without_autocast
from sgmg.roberta import Roberta


class Resizer(nn.Module):
    """Projection of text features to the width of the model: linear, LayerNorm, dropout."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, width)
        # Parity: only this LayerNorm has eps 1e-12, as in the training of the published weights.
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Float[Tensor, "*batch w"]) -> Float[Tensor, "*batch c"]:
        return self.dropout(self.norm(self.fc(features)))


class TextEncoder(nn.Module):
    """Encoder of token ids to word and sentence features at the width of the model.

    Token ids may be on the CPU while the model is not: cached sentences are looked up there, without waiting for the
    device. `forward` is `embed`, then `resize`; while RoBERTa is frozen, results of `embed` can be cached per sentence.
    Weights are initialised at random; `roberta_state` reads pretrained ones for `self.roberta`. It computes in
    float32: words are few, and two thirds of what bfloat16 changed in masks came from them.
    """

    def __init__(self, config: TextConfig, width: int, dropout: float) -> None:
        super().__init__()
        self.vocabulary = config.vocabulary
        self.max_tokens = config.max_tokens
        self.width = width
        self.frozen = False
        self._kept: dict[bytes, tuple[Tensor, Tensor]] = {}
        self._keep = 0
        self.roberta = Roberta(config)
        self.word_resizer = Resizer(config.width, width, dropout)
        self.sentence_resizer = Resizer(config.width, width, dropout)

    def freeze(self, keep: int = 0) -> "TextEncoder":
        """Freezes RoBERTa with its pooler, which then stays in eval mode; the resizers remain trainable.

        Args:
            keep: number of most recent sentences whose results of `embed` are cached, since training repeats
                sentences. One takes about 30 kB on the device with roberta-base. They follow the weights to another
                device, and are computed again in another number type.
        """
        self.frozen = True
        self._keep = keep
        self.roberta.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> "TextEncoder":
        """Sets the mode; a frozen RoBERTa stays in eval mode, without dropout (the published training left it on)."""
        super().train(mode)
        if self.frozen:
            self.roberta.eval()
        return self

    def embed(
        self, token_ids: Int[Tensor, "e n"], padding: Bool[Tensor, "e n"]
    ) -> tuple[Float[Tensor, "e n w"], Float[Tensor, "e w"]]:
        """Returns RoBERTa's last hidden states and the output of its tanh pooler, without gradient if frozen.

        Raises:
            ValueError: a token id is outside the vocabulary, or an expression is too long or only padding.
        """
        self.check(token_ids, padding)
        with without_autocast(self._device):
            if self.frozen and self._keep:
                return self._cached(token_ids.cpu(), padding.cpu())
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                return self.roberta(self._here(token_ids), self._here(padding))

    def resize(
        self, hidden: Float[Tensor, "e n w"], pooled: Float[Tensor, "e w"], padding: Bool[Tensor, "e n"]
    ) -> TextFeatures:
        """Projects the results of `embed` to the width of the model, and adds the positions of the words."""
        with without_autocast(self._device):
            return TextFeatures(
                words=self.word_resizer(hidden),
                positions=word_positions(padding, self.width),
                padding=padding,
                sentence_feature=self.sentence_resizer(pooled),
            )

    def forward(self, token_ids: Int[Tensor, "e n"], padding: Bool[Tensor, "e n"]) -> TextFeatures:
        return self.resize(*self.embed(token_ids, padding), self._here(padding))

    @property
    def _device(self) -> torch.device:
        return self.word_resizer.fc.weight.device

    def _here(self, values: Tensor) -> Tensor:
        """Sends values to the device of the model."""
        return values.to(self._device, non_blocking=True)

    @torch.no_grad()
    def _cached(self, token_ids: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Does what `embed` does, with a cache; encodes new sentences alone, so that batches do not change results."""
        found = []
        for ids, padded in zip(token_ids, padding, strict=True):
            sentence = ids[~padded]
            key = sentence.numpy().tobytes()
            kept = self._remembered(key)  # added again below, as the most recent
            if kept is None:
                alone = self._here(sentence[None])
                (features,), (pooled,) = self.roberta(alone, torch.zeros_like(alone, dtype=torch.bool))
                kept = (features, pooled)
            self._kept[key] = kept
            found.append(kept)
        while len(self._kept) > self._keep:
            del self._kept[next(iter(self._kept))]
        hidden = found[0][0].new_zeros(*token_ids.shape, found[0][0].shape[-1])
        for row, (features, _), padded in zip(hidden, found, padding, strict=True):
            row.index_copy_(0, self._here((~padded).nonzero().flatten()), features)
        return hidden, torch.stack([pooled for _, pooled in found])

    def _remembered(self, key: bytes) -> tuple[Tensor, Tensor] | None:
        """Takes a sentence out of the cache, to the device that the weights are on now; None if it is not there.

        The weights may have moved since, or changed their number type. Features of another type are forgotten: turned
        into this one, they would still be rounded as in that.
        """
        kept, weight = self._kept.pop(key, None), self.word_resizer.fc.weight
        if kept is None or kept[0].dtype != weight.dtype:
            return None
        features, pooled = kept
        return features.to(weight.device), pooled.to(weight.device)

    def check(self, token_ids: Tensor, padding: Tensor) -> None:
        """Checks token ids: their shape always, their values where they are on the CPU.

        Raises:
            ValueError: a token id is outside the vocabulary, or an expression is too long or only padding.
        """
        if token_ids.shape != padding.shape:
            raise ValueError(
                f"Word ids of shape {tuple(token_ids.shape)} need padding of the same shape, "
                f"not {tuple(padding.shape)}."
            )
        if 0 in token_ids.shape:
            raise ValueError(
                f"Word ids have shape {tuple(token_ids.shape)}: there is no expression. Give at least one."
            )
        if token_ids.shape[1] > self.max_tokens:
            raise ValueError(
                f"Expressions of {token_ids.shape[1]} tokens exceed the {self.max_tokens} that this text encoder has "
                f"positions for. Shorten them; the tokenizer names the longest when given max_tokens={self.max_tokens}."
            )
        if not is_at_hand(token_ids):
            return
        outside = (token_ids < 0) | (token_ids >= self.vocabulary)
        all_padding = padding.all(dim=1)
        if not (outside.any() | all_padding.any()):
            return
        if outside.any():
            expression, word = outside.nonzero()[0].tolist()
            raise ValueError(
                f"Word id {token_ids[expression, word].item()} of expression {expression}, word {word}, is outside 0 "
                f"to {self.vocabulary - 1}, the vocabulary of this text encoder. Use the tokenizer it was trained with."
            )
        raise ValueError(
            f"Expression {all_padding.nonzero()[0].item()} of {len(token_ids)} is nothing but padding. "
            f"Leave it out, or mark its words False in the padding."
        )
