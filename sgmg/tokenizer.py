"""Tokenizer of expressions: RoBERTa's, read from its files, or a small byte-level BPE trained on sentences."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path

import tokenizers
import torch
from jaxtyping import Bool, Int
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

from sgmg.expressions import normalize_expression
from sgmg.pretrained import ROBERTA, find_files

BEGIN, PAD, END = "<s>", "<pad>", "</s>"
SPECIAL = (BEGIN, PAD, END, "<unk>")
"""The special tokens in RoBERTa's order: their ids are 0 to 3."""

_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))


class Tokenizer:
    """Immutable wrapper of a `tokenizers.Tokenizer` that pads on the right and never truncates; compared by its JSON.

    >>> tokenizer = Tokenizer.train(["the red car", "the red ball"], vocabulary=300)
    >>> token_ids, padding = tokenizer(["The red", "the"])
    >>> token_ids.shape, padding.sum(dim=1).tolist()  # <s> the red </s>, and <s> the </s> with one word of padding
    (torch.Size([2, 4]), [0, 1])
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """Takes over the backend, which must not be used elsewhere afterwards."""
        self.pad = _pad_id(backend)
        backend.no_truncation()
        backend.enable_padding(pad_id=self.pad, pad_token=backend.id_to_token(self.pad) or PAD)
        self._backend = backend

    @classmethod
    def train(cls, sentences: Iterable[str], vocabulary: int = 2000) -> "Tokenizer":
        """Trains a byte-level BPE on sentences; their order does not matter.

        Raises:
            ValueError: there is no sentence, a sentence is empty, or the vocabulary is too small for the 256 bytes.
        """
        smallest = len(SPECIAL) + 256
        if vocabulary < smallest:
            raise ValueError(
                f"vocabulary={vocabulary} is too small: {len(SPECIAL)} special tokens and 256 bytes need {smallest}."
            )
        lines = [normalize_expression(sentence) for sentence in sentences]
        if not lines:
            raise ValueError("There is no sentence to train a tokenizer on. Give at least one.")
        backend = _byte_level(models.BPE())
        backend.train_from_iterator(
            lines,
            trainers.BpeTrainer(
                vocab_size=vocabulary,
                min_frequency=2,  # rare words are better split into parts that other words share
                special_tokens=list(SPECIAL),
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
        return cls(_with_ends(backend))

    @classmethod
    def from_folder(cls, folder: str | PathLike[str]) -> "Tokenizer":
        """Reads the tokenizer of a folder with tokenizer.json, or with vocab.json and merges.txt of RoBERTa.

        Raises:
            FileNotFoundError: the folder has neither; the message says where to get them.
            ValueError: a file is damaged or has another content.
        """
        return cls._from_files(find_files(Path(folder), _FILES))

    @classmethod
    def from_cache(cls, name: str = ROBERTA) -> "Tokenizer":
        """Reads the tokenizer of that name from the local Hugging Face cache, without a network call.

        Raises:
            FileNotFoundError: the cache does not hold it; the message says where to get it.
        """
        return cls.from_pretrained(name)

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | PathLike[str] = ROBERTA, allow_download: bool = False
    ) -> "Tokenizer":
        """Reads the tokenizer from a folder, else from the Hugging Face cache, else, if allowed, from the hub.

        Raises:
            FileNotFoundError: none of them has it; the message says where to get it.
        """
        return cls._from_files(find_files(name_or_folder, _FILES, allow_download))

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """Reads a tokenizer from JSON, of `to_json` or any other of the tokenizers library.

        Raises:
            ValueError: the text is not the JSON of a tokenizer.
        """
        try:
            return cls(tokenizers.Tokenizer.from_str(text))
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(f"This is not the JSON of a tokenizer: {text[:60]!r}: {error}.") from error

    def to_json(self) -> str:
        """Returns the whole tokenizer as the text of a tokenizer.json."""
        return self._backend.to_str()

    def save(self, folder: str | PathLike[str]) -> None:
        """Writes tokenizer.json into the folder, which is created if missing; `from_folder` reads it back."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "tokenizer.json").write_text(self.to_json(), encoding="utf-8")

    def __call__(
        self, expressions: Sequence[str], max_tokens: int = 512
    ) -> tuple[Int[Tensor, "e n"], Bool[Tensor, "e n"]]:
        """Tokenizes the normalized expressions, padded to the longest; returns token ids and the padding mask.

        The begin and end tokens are included (spec 2).

        Raises:
            TypeError: expressions is a single string, or an expression is not a string.
            ValueError: there is no expression, or one is empty or longer than `max_tokens` (none is truncated).
        """
        if isinstance(expressions, str):
            raise TypeError(f"Give a list of expressions, not the single string {expressions!r}.")
        if not expressions:
            raise ValueError("There is no expression to tokenize. Give at least one.")
        for index, expression in enumerate(expressions):
            if not isinstance(expression, str):
                raise TypeError(f"Expression {index} is {expression!r}, a {type(expression).__name__}. Give text.")
        sentences = [normalize_expression(expression) for expression in expressions]
        encodings = self._backend.encode_batch(sentences)
        token_ids = torch.tensor([encoding.ids for encoding in encodings])
        padding = torch.tensor([encoding.attention_mask for encoding in encodings]) != 1
        for sentence, tokens in zip(sentences, (~padding).sum(dim=1).tolist(), strict=True):
            _check_length(sentence, tokens, max_tokens)
        return token_ids, padding

    def count(self, expression: str) -> int:
        """Returns the number of tokens of an expression, with those of begin and end, however many they are."""
        return len(self._backend.encode(normalize_expression(expression)).ids)

    @property
    def vocabulary(self) -> int:
        """Number of token ids, including special tokens."""
        return self._backend.get_vocab_size()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return self.fingerprint == other.fingerprint if isinstance(other, Tokenizer) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"Tokenizer(vocabulary={self.vocabulary}, fingerprint={self.fingerprint[:12]!r})"

    @classmethod
    def _from_files(cls, files: Sequence[Path]) -> "Tokenizer":
        try:
            if len(files) == 1:
                return cls.from_json(files[0].read_text(encoding="utf-8"))
            vocabulary, merges = files
            return cls(_with_ends(_byte_level(_read_bpe(vocabulary, merges))))
        except ValueError as error:
            raise ValueError(f"{' and '.join(map(str, files))}: {error} Download the files again.") from error


def _byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _with_ends(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Adds the special tokens of RoBERTa, and its begin and end tokens around every sentence."""
    ids = backend.get_vocab()
    if missing := [token for token in SPECIAL if token not in ids]:
        raise ValueError(f"The vocabulary of {len(ids)} tokens lacks {', '.join(missing)}, which RoBERTa needs.")
    backend.add_special_tokens(list(SPECIAL))
    backend.post_processor = processors.RobertaProcessing((END, ids[END]), (BEGIN, ids[BEGIN]), add_prefix_space=False)
    return backend


def _read_bpe(vocabulary: Path, merges: Path) -> models.BPE:
    try:
        return models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:  # the library raises nothing more precise
        raise ValueError(f"not the vocabulary and merges of a BPE: {error}.") from error


def _pad_id(backend: tokenizers.Tokenizer) -> int:
    named = backend.token_to_id(PAD)
    if named is not None:
        return named
    return backend.padding["pad_id"] if backend.padding else SPECIAL.index(PAD)


def _check_length(sentence: str, tokens: int, max_tokens: int) -> None:
    start = sentence if len(sentence) <= 60 else sentence[:60] + "..."
    if tokens == 0:
        raise ValueError(f"The expression {start!r} has no token in this tokenizer's vocabulary. Use another word.")
    if tokens > max_tokens:
        raise ValueError(
            f"The expression {start!r} has {len(sentence.split())} words and {tokens} tokens, but the text encoder "
            f"reads at most {max_tokens} tokens. Shorten it: expressions are never cut."
        )
