"""Reader of single samples from a row group of prepared Parquet: sentence, track of its object, and single frames."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.clip import Box, ClipSample
from pipelines.clips.pseudo_video import suits_copies
from pipelines.clips.sample_table import SampleRef
from pipelines.files import Folder
from pipelines.manifest import annotated_frames
from sgmg.masks import Size, rle_union

_COLUMNS = ("dataset", "split", "video", "width", "height", "objects", "expressions", "schema_version")


class RowGroup:
    """A row group in memory; gives access to single rows, and to single frames without decoding their neighbours."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._rows: dict[int, dict[str, Any]] = {}
        self._read: dict[tuple[int, int], bytes] = {}

    @classmethod
    def read(cls, folder: Folder, file: str, row_group: int) -> "RowGroup":
        """Reads a row group of a shard.

        Raises:
            FileNotFoundError: the shard does not exist.
            DamagedFile: it is damaged.
        """
        columns = [*_COLUMNS, "frames"]
        with folder.parquet(file, columns) as parquet:
            table = parquet.read_row_group(row_group, columns=columns, use_threads=False)
        return cls(table.combine_chunks())

    def single(self, row: int) -> "RowGroup":
        """Returns a row group of one row, in memory of its own: that of the others can be released."""
        single = RowGroup(self._table.select(_COLUMNS).take([row]))
        single._read = {(0, number): self.frame(row, number) for number in range(self.frame_count(row))}
        return single

    def row(self, number: int) -> dict[str, Any]:
        """Returns a row without its frames, as plain values."""
        if number not in self._rows:
            self._rows[number] = self._table.select(_COLUMNS).slice(number, 1).to_pylist()[0]
        return self._rows[number]

    def frame(self, row: int, number: int) -> bytes:
        """Returns the bytes of one encoded frame: the same object each time, so that samples share it."""
        if (row, number) not in self._read:
            self._read[row, number] = self._frames[row][number].as_py()
        return self._read[row, number]

    def frame_count(self, row: int) -> int:
        """Returns the number of frames of a row."""
        return len(self._frames[row])

    @cached_property
    def _frames(self) -> pa.ChunkedArray:
        return self._table["frames"]


@dataclass(frozen=True, slots=True)
class FoundSample:
    """Input for the parameters of a clip. `frames` maps the frame indices of `clip` to frame indices of the row."""

    name: str
    clip: ClipSample
    frames: tuple[int, ...]
    anchor: int
    unfit: str = ""  # why no clip can be made of it; empty if one can


def sample_of(group: RowGroup, sample: SampleRef, recipe: ClipRecipe) -> FoundSample:
    """Returns the sample that a plan refers to.

    If every frame of a clip needs a target, frames without annotation are skipped; if only the anchor does (A2D), all
    frames are used.
    """
    row = group.row(sample.row)
    expression = row["expressions"][sample.expression]
    annotated = annotated_frames([track["rle"] for track in row["objects"]])
    if expression["frames"] is not None:
        anchor = expression["frames"][sample.anchor]
    else:
        anchor = annotated[sample.anchor * recipe.length]
    frames = list(range(len(row["objects"][0]["rle"]))) if recipe.anchor_only else annotated
    clip = _clip_sample(row, sample.expression, anchor, frames)
    name = f"{row['dataset']}/{row['split']}/{row['video']}/{expression['id']}/{anchor}"
    narrow = "copy" in recipe.steps and not suits_copies(clip.size)
    unfit = "image too narrow for a clip of copies" if narrow else ""
    return FoundSample(name, clip, tuple(frames), anchor, unfit)


def sibling_samples(
    group: RowGroup,
    sample: SampleRef,
    found: FoundSample,
    untrainable: Collection[int],
    count: int,
    rng: np.random.Generator,
    *,
    spread: bool = False,
) -> list[ClipSample]:
    """Returns up to `count` other sentences of the video, drawn at random, for the same frames.

    With `spread`, each object has one before any has a second.
    """
    row = group.row(sample.row)
    others = [
        number
        for number, expression in enumerate(row["expressions"])
        if number != sample.expression
        and number not in untrainable
        and (expression["frames"] is None or found.anchor in expression["frames"])
    ]
    drawn = [others[place] for place in rng.permutation(len(others))]
    if spread:
        drawn = _each_object_first(row, sample.expression, drawn)
    return [_clip_sample(row, number, found.anchor, found.frames) for number in drawn[:count]]


def _each_object_first(row: Mapping[str, Any], own: int, numbers: Sequence[int]) -> list[int]:
    """Sorts expressions by how many before them, or the sample's own, speak of the same objects."""

    def objects(number: int) -> frozenset[str]:
        return frozenset(row["expressions"][number]["object_ids"] or ())

    before, ranked = Counter([objects(own)]), []
    for number in numbers:
        ranked.append((before[objects(number)], number))
        before[objects(number)] += 1
    return [number for _, number in sorted(ranked, key=itemgetter(0))]


def _clip_sample(row: Mapping[str, Any], number: int, anchor: int, frames: Sequence[int]) -> ClipSample:
    expression = row["expressions"][number]
    size = (row["height"], row["width"])
    tracks = [track for track in row["objects"] if track["id"] in set(expression["object_ids"])]
    rles = [_union([track["rle"][t] for track in tracks], size) for t in range(len(tracks[0]["rle"]))]
    boxes = tracks[0]["boxes"] if len(tracks) == 1 else None
    return ClipSample(
        text=expression["text"],
        anchor=list(frames).index(anchor),
        size=size,
        rles=[rles[t] for t in frames],
        boxes=None if boxes is None else [_box(boxes[t]) for t in frames],
    )


def _union(rles: list[str | None], size: Size) -> str | None:
    """Returns the union of the objects' masks; None if one of them is not annotated."""
    known = [rle for rle in rles if rle is not None]
    if len(known) < len(rles):
        return None
    return known[0] if len(known) == 1 else rle_union(known, size)


def _box(box: list[float] | None) -> Box | None:
    return None if box is None else (box[0], box[1], box[2], box[3])
