"""The interface of a source: it lists its videos cheaply, then reads one at a time, on any worker."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pipelines.errors import Dropped
from pipelines.records import Expression, ObjectTrack, Record


@dataclass(frozen=True, slots=True)
class Item:
    """One record to prepare: its name, and the plain values that its source needs. Sent to workers as JSON."""

    video: str
    key: Any = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A record, and a list of what was left out of it."""

    record: Record
    dropped: tuple[Dropped, ...] = ()


class Source(Protocol):
    """One split of one raw dataset. Frozen and small, because it is sent to every worker."""

    @property
    def dataset(self) -> str: ...

    @property
    def split(self) -> str: ...

    def items(self) -> Sequence[Item]:
        """Returns every record to read, sorted by video. Reads annotation files, opens no frame.

        Raises:
            LayoutError: the folder lacks a file that the source needs; the message names the file and how to mend it.
        """
        ...

    def read(self, item: Item) -> Reading:
        """Reads one record, with its frames as encoded bytes.

        Raises:
            BadItem: the record cannot be prepared; the message says why.
        """
        ...


@runtime_checkable
class LeavesOut(Protocol):
    """A source whose annotation files also mention things that belong to none of its items."""

    def left_out(self) -> list[Dropped]:
        """Returns the annotations that belong to no item, with the reason, to be counted with what readings drop.

        Raises:
            LayoutError: an annotation file is missing or damaged.
        """
        ...


def build_record(
    source: Source,
    video: str,
    size: tuple[int, int],
    *,
    frame_names: tuple[str, ...],
    frames: tuple[bytes, ...],
    objects: tuple[ObjectTrack, ...],
    expressions: tuple[Expression, ...],
    path: str,
    made_from: Iterable[bytes | str],
    fps: float | None = None,
    timestamps: tuple[float, ...] | None = None,
) -> Record:
    """Builds the record of a video whose frames are kept at their original size.

    Args:
        source: gives the names of the dataset and of the split.
        size: width and height of the frames in pixels.
        path: of the frames within the dataset, kept as `Record.source`.
        made_from: everything that the record depends on, for its fingerprint.
        fps: average frames per second, where known.
        timestamps: seconds of each frame, where known.
    """
    width, height = size
    return Record(
        dataset=source.dataset,
        split=source.split,
        video=video,
        width=width,
        height=height,
        frame_names=frame_names,
        frames=frames,
        objects=objects,
        expressions=expressions,
        source=path,
        source_fingerprint=fingerprint(made_from),
        original_width=width,
        original_height=height,
        fps=fps,
        timestamps=timestamps,
    )


def fingerprint(parts: Iterable[bytes | str]) -> str:
    """Returns the sha256 of everything a record is made from, in order; the length of each part is hashed too."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
