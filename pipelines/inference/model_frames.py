"""From a record to what a predictor needs of it: the frames somebody asks about, decoded and resized."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from pipelines.errors import BadItem
from pipelines.images import decode_image
from pipelines.inference.protocols import InferenceProtocol, Pass
from pipelines.records import Record
from sgmg.preprocess import resize_frames, resized_size


@dataclass(frozen=True, slots=True)
class ModelFrames:
    """A record without bytes and truth, and those of its frames that the model is shown."""

    record: Record
    numbers: tuple[int, ...]  # of the frames in the record, ascending
    frames: UInt8[np.ndarray, "t h w 3"]  # RGB, at the size the model sees

    def shown(self, one: Pass) -> UInt8[np.ndarray, "t h w 3"]:
        """The frames of a pass; a frame may come more than once."""
        places = np.searchsorted(self.numbers, one.frames)
        return self.frames[places]


def model_frames(record: Record, protocol: InferenceProtocol) -> ModelFrames:
    """The frames of a record that its protocol shows the model; decoded without EXIF rotation, which masks ignore.

    Raises:
        BadItem: a frame cannot be decoded, or has another size than the record says.
    """
    numbers = tuple(sorted({frame for one in protocol.passes(record) for frame in one.frames}))
    size = resized_size(record.height, record.width, protocol.short_side, protocol.long_side)
    frames = np.empty((len(numbers), *size, 3), dtype=np.uint8)
    for place, number in enumerate(numbers):
        try:
            image = decode_image(record.frames[number], (record.height, record.width))
        except ValueError as error:
            raise BadItem(record.video, "decode", f"frame {record.frame_names[number]}: {error}") from error
        frames[place] = resize_frames(image[None], *size)[0]
    return ModelFrames(without_pixels(record), numbers, frames)


def without_pixels(record: Record) -> Record:
    """The record as predictions need it: names, sizes and sentences."""
    expressions = tuple(replace(expression, object_ids=()) for expression in record.expressions)
    return replace(record, frames=(b"",) * len(record.frame_names), objects=(), expressions=expressions)
