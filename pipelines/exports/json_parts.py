"""JSON of annotations in parts: files of some videos each, which are whole in themselves."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from pipelines.exports.writing import json_output, to_line, write_lines, write_list
from pipelines.files import Folder

PART_BYTES = 256 * 10**6
"""Most bytes of a part."""


@dataclass(frozen=True, slots=True)
class JsonHead:
    """The beginning of every part.

    Attributes:
        info: of the whole file, as JSON.
        key: of the list of videos or images.
        categories: an entry for each, by its id.
    """

    info: str
    key: str
    categories: Mapping[int, Mapping[str, Any]]

    def begin(self, write: Callable[[str], None], things: Iterable[str], used: Iterable[int] | None = None) -> None:
        """Writes the file up to its list of annotations.

        Args:
            write: of the file.
            things: lines of videos or images.
            used: ids of the categories to write, in order; None writes all.
        """
        write(f'{{\n"info":{self.info},\n"{self.key}":')
        write_lines(write, things)
        write(',\n"categories":')
        write_list(write, (self.categories[id] for id in (self.categories if used is None else used)))
        write(',\n"annotations":')


def write_parts(
    out: Folder,
    name: str,
    head: JsonHead,
    things: Iterable[tuple[str, Iterable[dict[str, Any]]]],
    annotations: Iterator[dict[str, Any]],
    most: int,
) -> int:
    """Writes the parts, video by video, as 00000.json and so on; holds one of them in memory. Deletes stale ones.

    Args:
        out: folder of the run.
        name: that a single file would have; without its suffix it is the folder of the parts.
        head: the beginning of every part.
        things: id of each video, and its entries in the list of videos or images.
        annotations: in the order of the videos.
        most: bytes of a part, which is larger only if one video is.

    Returns:
        The number of annotations.
    """
    folder = out.folder(name.removesuffix(".json"))
    of_videos = groupby(annotations, key=lambda one: one["video"])
    following = next(of_videos, None)
    count, written = 0, 0
    part = _Part()
    for video, of_video in things:
        added = _Part(things=[to_line(one) for one in of_video])
        if following and following[0] == video:
            for one in following[1]:
                added.used[one["category_id"]] = None
                added.annotations.append(to_line(one))
            following = next(of_videos, None)
        if part.things and part.size + added.size > most:
            part.write(folder, f"{written:05d}.json", head)
            written, part = written + 1, _Part()
        part.add(added)
        count += len(added.annotations)
    part.write(folder, f"{written:05d}.json", head)
    for stale in folder.names(suffix=".json"):
        if stale > f"{written:05d}.json":
            folder.remove(stale)
    return count


@dataclass(slots=True)
class _Part:
    """Lines of a growing part, and the categories that they speak of."""

    things: list[str] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    used: dict[int, None] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes, more or less: lines are nearly all ASCII."""
        return sum(map(len, self.things)) + sum(map(len, self.annotations))

    def add(self, other: "_Part") -> None:
        """Adds the lines of a video."""
        self.things += other.things
        self.annotations += other.annotations
        self.used |= other.used

    def write(self, folder: Folder, name: str, head: JsonHead) -> None:
        """Writes the file."""
        with json_output(folder, name) as write:
            head.begin(write, self.things, sorted(self.used))
            write_lines(write, self.annotations)
            write("}\n")
