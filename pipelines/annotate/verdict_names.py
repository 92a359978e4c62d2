"""The verdicts on answers, in a module of their own because command lines import them at start-up."""

from typing import Literal

Verdict = Literal["accepted", "rejected", "to-correct"]
"""What a person may say of an answer: it may be learned from; it may not; it may once its masks are corrected."""
