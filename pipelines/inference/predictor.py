"""A predictor: records in, predictions out, by the protocol of a benchmark. Knows no Ray; validation uses it too."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from pipelines.errors import BadItem
from pipelines.inference.answers import Answer, Compressed, Masks, prediction_from
from pipelines.inference.model_frames import ModelFrames, model_frames
from pipelines.inference.protocols import InferenceProtocol, Pass
from pipelines.inference.segment_clip import ClipAnswer, EncodedClip, NotFinite, segment_clip
from pipelines.predictions import Prediction
from pipelines.records import Record
from sgmg.batch import TextFeatures
from sgmg.model import SgMg
from sgmg.precision import Precision, autocast
from sgmg.preprocess import normalize, pad_clips
from sgmg.segmenter import CPU_ROWS, GPU_ROWS, asked_together, best_device, groups_of
from sgmg.tokenizer import Tokenizer

T = TypeVar("T")

_log = logging.getLogger(__name__)

SENTENCES_OF_AN_OBJECT = 4
"""Expressions for each object of Ref-DAVIS17: expression n is about object n // 4 + 1, by annotator n % 4 (spec data.md
§4)."""


class Predictor:
    """A model, its tokenizer and the protocol of a benchmark.

    Args:
        model: moved to `device` and put into eval mode; not copied.
        tokenizer: the one that the model was trained with.
        protocol: of the benchmark, see `pipelines.inference.protocols`.
        device: None takes the GPU if there is one, else the CPU.
        precision: of the matrix products.
        rows: most pairs of frame and expression segmented at once; halved for a video that does not fit the memory of
            the GPU. None takes the default of the device.
        sentences_together: most expressions that a multi-object model is asked in one pass, in order of their ids; None
            takes what it was trained with. The objects of one annotator of Ref-DAVIS17 are always asked together.
        fingerprint: of checkpoint and settings; every prediction has it.
    """

    def __init__(
        self,
        model: SgMg,
        tokenizer: Tokenizer,
        protocol: InferenceProtocol,
        *,
        device: torch.device | str | None = None,
        precision: Precision = "float32",
        rows: int | None = None,
        sentences_together: int | None = None,
        fingerprint: str = "",
    ) -> None:
        self.device = best_device(device)
        self.model = model.eval().to(self.device)
        self.tokenizer, self.protocol = tokenizer, protocol
        self.precision: Precision = precision
        self.rows = rows
        self.sentences_together = asked_together(model.config, sentences_together)
        self.fingerprint = fingerprint

    def predict(self, record: Record) -> list[Prediction]:
        """Returns a prediction for every expression of a record, in order. A clip is encoded once for all expressions.

        Raises:
            BadItem: a frame cannot be decoded, an expression cannot be asked, or the model's scores are not finite.
        """
        return self.predict_decoded(model_frames(record, self.protocol))

    def predict_decoded(self, frames: ModelFrames) -> list[Prediction]:
        """Does what `predict` does, from frames that are decoded already.

        Raises:
            BadItem: an expression cannot be asked, or the model's scores are not finite.
        """
        record = frames.record
        for number, reason in self.refused(record).items():
            raise BadItem(record.video, "predict", f"expression {record.expressions[number].id}: {reason}")
        return [prediction_from(record, answer, self.fingerprint) for answer in self.answer(frames)]

    def answer(self, frames: ModelFrames, encoded: EncodedClip | None = None) -> list[Answer]:
        """Returns the answer to every expression that is not `refused`, in order, from frames that are decoded already.

        Args:
            frames: of a record.
            encoded: what `encode` returned for these frames; None encodes them.

        Raises:
            BadItem: the model's scores are not finite.
        """
        try:
            return self._answers(frames, self.device, encoded=encoded)
        except torch.OutOfMemoryError:
            if self.device.type == "cpu":
                raise
        # The clip itself, or one frame and expression, does not fit: a slow result is better than none.
        _log.warning("%s does not fit the memory of the GPU: it is segmented on the CPU.", frames.record.video)
        try:
            self.model.to("cpu")
            torch.cuda.empty_cache()
            return self._answers(frames, torch.device("cpu"), "out of GPU memory: segmented on the CPU")
        finally:
            self.model.to(self.device)

    def refused(self, record: Record) -> dict[int, str]:
        """Returns the expressions of a record that cannot be asked, by number, and why: empty, or too long."""
        reasons = {}
        for number, expression in enumerate(record.expressions):
            try:
                self.tokenizer([expression.text])
            except ValueError as error:
                reasons[number] = str(error)
        return reasons

    @torch.no_grad()
    def encode(self, clips: Sequence[ModelFrames]) -> list[EncodedClip]:
        """Encodes clips of one size and length in one forward pass, whatever is asked of them.

        Args:
            clips: all frames of records, in one pass, as the protocol `VIDEO` shows them.

        Raises:
            ValueError: the protocol shows a record in several passes.
            torch.OutOfMemoryError: the memory of the GPU is full.
        """
        if self.protocol.window or self.protocol.context:
            raise ValueError("This protocol shows a record in several passes, so it cannot be encoded beforehand.")
        with autocast(self.device, self.precision):
            return self._encoded([one.frames for one in clips], [one.record for one in clips], self.device)

    @torch.no_grad()  # Not inference_mode: validation shares the model with training.
    def _answers(
        self, frames: ModelFrames, device: torch.device, note: str = "", encoded: EncodedClip | None = None
    ) -> list[Answer]:
        record = frames.record
        refused = self.refused(record)
        asked = [number for number in range(len(record.expressions)) if number not in refused]
        passes = list(_of_some(self.protocol.passes(record), set(asked)))
        if not passes:
            return []
        rows = _Rows(self.rows or (CPU_ROWS if device.type == "cpu" else GPU_ROWS), record.video)
        parts: list[list[_Part]] = [[] for _ in record.expressions]
        try:
            with autocast(device, self.precision):
                text = self.model.encode_text(*self.tokenizer([record.expressions[number].text for number in asked]))
                for one in passes:
                    clip = encoded or self._encode(frames, one, device)
                    for numbers, answers, merged in self._segment(frames, clip, one, asked, text, rows):
                        for i, (number, answer) in enumerate(zip(numbers, answers, strict=True)):
                            parts[number].append(_Part(answer, () if i else merged))
        except NotFinite as error:
            raise BadItem(record.video, "predict", str(error)) from error
        notes = "; ".join(filter(None, (note, rows.note)))
        return [self._answer(record, number, passed, notes) for number, passed in enumerate(parts) if passed]

    def _encode(self, frames: ModelFrames, one: Pass, device: torch.device) -> EncodedClip:
        place = None if one.place is None else torch.tensor([one.place], device=device)
        (clip,) = self._encoded([frames.shown(one)], [frames.record], device, place)
        return clip

    def _encoded(
        self,
        clips: Sequence[UInt8[np.ndarray, "t h w 3"]],
        records: Sequence[Record],
        device: torch.device,
        places: Int[Tensor, " b"] | None = None,
    ) -> list[EncodedClip]:
        """Encodes clips of one size and length, each of a record; `places` are the only frames that are segmented."""
        pixels, padding, sizes = pad_clips([normalize(clip, device) for clip in clips], self.protocol.multiple)
        video, sizes = self.model.encode_video(pixels, padding.to(device), places), sizes.to(device)
        originals = [(record.original_height, record.original_width) for record in records]
        return [EncodedClip(video.clip(k), sizes[k : k + 1], original) for k, original in enumerate(originals)]

    def _segment(
        self,
        frames: ModelFrames,
        clip: EncodedClip,
        one: Pass,
        asked: Sequence[int],
        text: TextFeatures,
        rows: "_Rows",
    ) -> Iterator[tuple[Sequence[int], list[ClipAnswer], tuple[Compressed, ...]]]:
        """Yields expressions of a pass, as many as fit the memory or are asked together, their answers and merged maps.

        `text` is of the expressions `asked`. The objects of one annotator, which compete for the pixels, are segmented
        together.
        """
        record, merge = frames.record, self.protocol.merge
        ordered = self._in_order(record, one.expressions)
        for group in _by_annotator(record, ordered) if merge else [ordered]:
            start = 0
            while start < len(group):
                left = group[start:]
                first = groups_of(self.model, len(left), self.sentences_together, rows.most // clip.length)[0]
                numbers = left if merge else left[first]
                objects = [_object_number(record, number) for number in numbers] if merge else None
                places = [asked.index(number) for number in numbers]
                words = _some(text, torch.tensor(places, device=text.sentence_feature.device))
                predicted = None
                try:
                    predicted = segment_clip(
                        self.model,
                        clip,
                        words,
                        self.protocol.keep,
                        rows.most,
                        together=len(numbers),
                        objects=objects,
                        coarse=frames.one_of_many,
                    )
                except torch.OutOfMemoryError:
                    if rows.most == 1:
                        raise
                if predicted is None:  # Here the error no longer holds the tensors that filled the memory.
                    rows.halve()
                    continue
                yield numbers, *predicted
                start += len(numbers)

    def _in_order(self, record: Record, numbers: Sequence[int]) -> Sequence[int]:
        """Returns expressions in order of their ids, numbers as numbers, if it matters who is asked with whom."""
        if not self.model.config.multi_object:
            return numbers
        return sorted(numbers, key=lambda number: (len(record.expressions[number].id), record.expressions[number].id))

    def _answer(self, record: Record, number: int, parts: Sequence["_Part"], note: str) -> Answer:
        """Returns the answer to one expression, from what each pass shows of it."""
        expression, t = record.expressions[number], len(record.frame_names)
        frames = sorted(expression.frames) if self.protocol.context and expression.frames is not None else range(t)
        first = parts[0].answer
        return Answer(
            number=number,
            frames=tuple(frames),
            masks=_joined([part.answer.masks for part in parts]),
            scores=_tracks([part.answer.scores for part in parts]),
            boxes=_tracks([part.answer.boxes for part in parts]),
            coarse=_joined([part.answer.coarse for part in parts if part.answer.coarse]) if first.coarse else None,
            best=first.best,
            note=note,
            merged=tuple(maps for part in parts for maps in part.merged),
        )


class _Part(NamedTuple):
    """Answer of one pass to an expression, and the merged maps if it is the first of its annotator."""

    answer: ClipAnswer
    merged: tuple[Compressed, ...]


def _joined(masks: Sequence[Masks]) -> Masks:
    return replace(masks[0], parts=tuple(part for one in masks for part in one.parts))


def _tracks(parts: Sequence[tuple[tuple[T, ...], ...]]) -> tuple[tuple[T, ...], ...]:
    """Joins the values of each query, frame after frame."""
    return tuple(tuple(chain.from_iterable(query)) for query in zip(*parts, strict=True))


class _Rows:
    """The most pairs of frame and expression segmented at once for one video; halved whenever they do not fit."""

    def __init__(self, most: int, video: str) -> None:
        self.most, self.video, self.note = most, video, ""

    def halve(self) -> None:
        """Halves the rows, and notes that in the log and in the predictions of the video."""
        torch.cuda.empty_cache()
        _log.warning("%s: out of memory at %d rows, going on with %d.", self.video, self.most, self.most // 2)
        self.most //= 2
        self.note = f"out of GPU memory: segmented {self.most} rows at a time"


def _some(text: TextFeatures, numbers: Int[Tensor, " n"]) -> TextFeatures:
    return TextFeatures(
        text.words[numbers], text.positions[numbers], text.padding[numbers], text.sentence_feature[numbers]
    )


def _of_some(passes: Sequence[Pass], numbers: Set[int]) -> Iterator[Pass]:
    """Yields the passes that some expressions need, without the others."""
    for one in passes:
        if some := tuple(number for number in one.expressions if number in numbers):
            yield replace(one, expressions=some)


def _by_annotator(record: Record, numbers: Sequence[int]) -> list[list[int]]:
    groups: defaultdict[int | None, list[int]] = defaultdict(list)
    for number in numbers:
        groups[record.expressions[number].annotator].append(number)
    return list(groups.values())


def _object_number(record: Record, number: int) -> int:
    """Returns the number, from 1, of an expression's object in merged maps. Objects that were left out are counted."""
    return int(record.expressions[number].id) // SENTENCES_OF_AN_OBJECT + 1
