"""Decodes and resizes the frames of a record that its protocol shows to the model."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from pipelines.errors import BadItem
from pipelines.images import decode_image
from pipelines.inference.protocols import InferenceProtocol, Pass
from pipelines.records import Record
from sgmg.resize import resize_frames, resized_size


@dataclass(frozen=True, slots=True)
class ModelFrames:
    """A record, and the frames of it that the model is shown.

    Attributes:
        record: without encoded frames and ground truth.
        numbers: indices of the frames in the record, ascending.
        frames: RGB, at the size the model sees.
        one_of_many: whether the join chooses the query: this is a window that shares frames with another, or its query
            is chosen frame by frame.
    """

    record: Record
    numbers: tuple[int, ...]
    frames: UInt8[np.ndarray, "t h w 3"]
    one_of_many: bool = False

    def shown(self, one: Pass) -> UInt8[np.ndarray, "t h w 3"]:
        """Returns the frames of a pass; a frame may occur more than once."""
        return self.frames[np.searchsorted(self.numbers, one.frames)]


def model_frames(record: Record, protocol: InferenceProtocol) -> ModelFrames:
    """Returns the frames that the protocol shows to the model, decoded without EXIF rotation, which masks ignore.

    Raises:
        BadItem: a frame cannot be decoded, or its size differs from that of the record.
    """
    numbers = tuple(sorted({frame for one in protocol.passes(record) for frame in one.frames}))
    size = resized_size(record.height, record.width, protocol.short_side, protocol.long_side)
    frames = np.empty((len(numbers), *size, 3), dtype=np.uint8)
    for t, number in enumerate(numbers):
        try:
            image = decode_image(record.frames[number], (record.height, record.width))
        except ValueError as error:
            raise BadItem(record.video, "decode", f"frame {record.frame_names[number]}: {error}") from error
        frames[t] = resize_frames(image[None], *size)[0]
    return ModelFrames(without_pixels(record), numbers, frames)


def without_pixels(record: Record) -> Record:
    """Returns the record without encoded frames and ground truth: names, sizes and expressions."""
    expressions = tuple(replace(expression, object_ids=None) for expression in record.expressions)
    return replace(record, frames=(b"",) * len(record.frame_names), objects=(), expressions=expressions)
