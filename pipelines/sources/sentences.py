"""Limit of the length of a sentence, for every door through which sentences come."""

from collections.abc import Callable

MAX_TOKENS = 512
"""Positions that RoBERTa has."""


def token_upper_bound(text: str) -> int:
    """Returns the most tokens that a text can have: one for each byte, as in byte-level BPE, and two special tokens."""
    return len(" ".join(text.lower().split()).encode()) + 2  # as the model reads it


def too_long(text: str, tokens: Callable[[str], int] = token_upper_bound) -> str:
    """Returns why a sentence cannot be asked: it has more than `MAX_TOKENS` tokens; empty if it can.

    Args:
        text: the sentence.
        tokens: counts its tokens; called only where the upper bound does not settle it.
    """
    if token_upper_bound(text) <= MAX_TOKENS or (count := tokens(text)) <= MAX_TOKENS:
        return ""
    return f"up to {count} tokens where the text encoder takes {MAX_TOKENS}"
