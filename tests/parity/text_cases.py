"""Golden cases of the text encoder: words and mask in, RoBERTa's and the resizers' outputs out."""

from collections.abc import Callable

import torch

from block_cases import WIDTH, Outputs, fill, tensors
from pack import Case
from sgmg.config import TextConfig
from sgmg.text import TextEncoder


def text(case: Case) -> Outputs:
    given = tensors(case)
    padding = given["attention_mask"] != 1
    encoder = fill(TextEncoder(TextConfig(), WIDTH, dropout=0.1), case, "text")
    with torch.no_grad():
        hidden, pooled = encoder.embed(given["input_ids"], padding)
        features = encoder.resize(hidden, pooled, padding)
    return {
        "last_hidden_state": hidden,
        "pooler_output": pooled,
        "text_proj": features.words,
        "sentence_proj": features.sentence_feature,
    }


CASES: dict[str, Callable[[Case], Outputs]] = {"text": text}
