"""The truth of a video: a record without its frames."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from pipelines.records import SCHEMA, SCHEMA_VERSION, Expression, ObjectTrack, Record
from pipelines.safety.limits import check_pixels
from sgmg.masks import Size, rle_union

TRUTH_COLUMNS = tuple(name for name in SCHEMA.names if name != "frames")
"""Columns of prepared Parquet that a truth is made from."""


@dataclass(frozen=True, slots=True)
class VideoTruth:
    """A record without its frames. `objects` may hold 255, DAVIS's void: pixels that are not scored."""

    dataset: str
    split: str
    video: str
    size: Size  # height, width of the masks
    frame_names: tuple[str, ...]
    objects: Mapping[int, ObjectTrack]
    expressions: tuple[Expression, ...]

    def rle(self, expression: Expression, frame: int) -> str | None:
        """Returns the mask of all objects of an expression in a frame; None if one of them is not annotated there."""
        if expression.object_ids is None:
            return None
        rles = [self.objects[number].rle[frame] for number in expression.object_ids]
        found = [rle for rle in rles if rle is not None]
        if len(found) < len(rles):
            return None
        return found[0] if len(found) == 1 else rle_union(found, self.size)

    def scored_frames(self, expression: Expression) -> list[int]:
        """Returns the frames in which an expression is scored: the annotated ones of those it names, else of all."""
        if expression.object_ids is None:
            return []
        frames = range(len(self.frame_names)) if expression.frames is None else expression.frames
        tracks = [self.objects[number].rle for number in expression.object_ids]
        return [frame for frame in frames if all(track[frame] is not None for track in tracks)]

    @property
    def labelled_expressions(self) -> list[Expression]:
        """Returns the expressions with a truth; that of the others is withheld."""
        return [expression for expression in self.expressions if self.scored_frames(expression)]


def truth_of(record: Record | Mapping[str, Any]) -> VideoTruth:
    """Returns the truth of a record, or of a row of prepared Parquet that was read without its frames.

    Raises:
        ValueError: the row has another schema version, or holds only a segment of a video.
    """
    row = {name: getattr(record, name) for name in TRUTH_COLUMNS} if isinstance(record, Record) else record
    if row["schema_version"] != SCHEMA_VERSION:
        raise ValueError(
            f"{row['video']} has schema version {row['schema_version']}, this code reads {SCHEMA_VERSION}. "
            f"Prepare the data again."
        )
    if row["segment"]:
        raise ValueError(f"{row['video']} is cut into segments, but scores need whole videos. Prepare it uncut.")
    check_pixels(row["height"], row["width"])
    tracks = msgspec.convert(row["objects"], tuple[ObjectTrack, ...])
    expressions = msgspec.convert(row["expressions"], tuple[Expression, ...])
    return VideoTruth(
        row["dataset"],
        row["split"],
        row["video"],
        (row["height"], row["width"]),
        msgspec.convert(row["frame_names"], tuple[str, ...]),
        {track.id: track for track in tracks},
        expressions,
    )
