"""Answers of a predictor: masks as compressed bits, which the writing stage turns into rows of predictions.

Run-length encoding and PNGs are left to that stage, so that the predictor's thread only runs the model. No torch here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import cv2
import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from pipelines.predictions import Box, Prediction, QueryTrack
from pipelines.records import Record
from sgmg.masks import Size, bits_to_rles, mask_to_rle

_CODEC = pa.Codec("zstd", compression_level=1)


@dataclass(frozen=True, slots=True)
class Compressed:
    """An array of bytes, compressed: masks are a hundredth of their size then."""

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, values: UInt8[np.ndarray, "..."]) -> "Compressed":
        """Compresses an array."""
        return cls(values.shape, _CODEC.compress(np.ascontiguousarray(values).data.cast("B"), asbytes=True))

    def array(self) -> UInt8[np.ndarray, "..."]:
        """Returns the array; it cannot be written to."""
        return np.frombuffer(_CODEC.decompress(self.data, prod(self.shape)), np.uint8).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Masks:
    """Masks of k queries in t frames, as bits (`sgmg.masks.masks_to_bits`).

    Attributes:
        size: of a mask.
        parts: bits (k t n) of some frames after the other.
    """

    size: Size
    parts: tuple[Compressed, ...]

    def rles(self) -> list[tuple[str, ...]]:
        """Returns the masks of each query as RLEs."""
        parts = [[bits_to_rles(query, self.size) for query in part.array()] for part in self.parts]
        return [tuple(rle for part in query for rle in part) for query in zip(*parts, strict=True)]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one expression of a record: k masks a frame, scores and boxes of q queries.

    Attributes:
        number: of the expression in the record.
        frames: indices in the record of the t frames that are segmented.
        masks: of the kept queries at the original size, in the order in which predictions have them.
        scores: of q queries in each frame.
        boxes: xyxy of q queries in each frame, in pixels of the original.
        coarse: masks of all q queries at the size that the model sees, if the join chooses the query; then only the
            masks of the best query are kept at the original size, or those of all if it chooses frame by frame.
        best: index of the kept query among all q, if there are coarse masks; 0 if all are kept.
        note: what was out of the ordinary.
        merged: maps (t h w) of object numbers, some frames after the other, if objects are merged.
    """

    number: int
    frames: tuple[int, ...]
    masks: Masks
    scores: tuple[tuple[float, ...], ...]
    boxes: tuple[tuple[Box, ...], ...]
    coarse: Masks | None = None
    best: int = 0
    note: str = ""
    merged: tuple[Compressed, ...] = ()

    @property
    def kept(self) -> Iterator[QueryTrack]:
        """Tracks of the kept queries, masks at the original size."""
        rles = self.masks.rles()
        kept = slice(None) if len(rles) == len(self.scores) else slice(self.best, self.best + 1)
        for rle, boxes, scores in zip(rles, self.boxes[kept], self.scores[kept], strict=True):
            yield QueryTrack(rle, boxes, scores)

    @property
    def every(self) -> Iterator[QueryTrack]:
        """Tracks of all queries, masks at the size that the model sees; none if there are no coarse masks."""
        if self.coarse:
            for rle, boxes, scores in zip(self.coarse.rles(), self.boxes, self.scores, strict=True):
                yield QueryTrack(rle, boxes, scores)


def prediction_from(record: Record, answer: Answer, fingerprint: str) -> Prediction:
    """Returns the row of an answer.

    Args:
        record: without pixels.
        answer: to one of its expressions.
        fingerprint: of checkpoint and settings.
    """
    expression, queries = record.expressions[answer.number], tuple(answer.kept)
    means = [float(np.mean(query.scores)) for query in queries]
    chosen = queries[int(np.argmax(means))]
    empty = mask_to_rle(np.zeros((record.original_height, record.original_width), dtype=np.bool_))
    return Prediction(
        dataset=record.dataset,
        split=record.split,
        video=record.video,
        expression=expression.id,
        text=expression.text,
        width=record.original_width,
        height=record.original_height,
        frame_names=tuple(record.frame_names[frame] for frame in answer.frames),
        queries=queries,
        score=max(means),
        fingerprint=fingerprint,
        source=record.source,
        source_fingerprint=record.source_fingerprint,
        external_id=expression.external_id,
        annotator=expression.annotator,
        status="absent" if set(chosen.rle) == {empty} else "ok",
        note=answer.note,
        segment=record.segment,
        start_frame=record.start_frame,
        fps=record.fps,
        timestamps=None if record.timestamps is None else tuple(record.timestamps[frame] for frame in answer.frames),
        merged=tuple(_pngs(answer.merged)) or None,
    )


def _pngs(maps: Sequence[Compressed]) -> Iterator[bytes]:
    for part in maps:
        for one in part.array():
            written, data = cv2.imencode(".png", one)
            assert written
            yield data.tobytes()
