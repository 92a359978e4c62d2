"""Folders of truth, read in parts by workers: prepared Parquet, or raw masks where Parquet lacks them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipelines.files import Folder, safe_name
from pipelines.images import object_map, object_rles
from pipelines.manifest import MANIFEST, read_manifest, read_rows
from pipelines.records import Expression, ObjectTrack
from pipelines.scoring.truth import TRUTH_COLUMNS, VideoTruth, truth_of
from sgmg.json_text import parse_json
from sgmg.masks import Size, mask_to_rle, rle_union


class TruthPart(Protocol):
    """Truth of a few videos that one worker reads at once."""

    @property
    def dataset(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def videos(self) -> tuple[str, ...]: ...
    def read(self) -> list[VideoTruth]:
        """Reads the truths, in the order of `videos`."""
        ...


@dataclass(frozen=True)
class PreparedPart:
    """One row group of prepared Parquet."""

    folder: Folder
    file: str
    row_group: int
    dataset: str
    split: str
    videos: tuple[str, ...]

    def read(self) -> list[VideoTruth]:
        rows = read_rows(self.folder, self.file, self.row_group, TRUTH_COLUMNS)
        try:
            return [truth_of(row) for row in rows]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.folder.path(self.file)}: {error}") from error


@dataclass(frozen=True)
class SentencesPart:
    """One video of a Ref-YouTube-VOS folder: `Annotations/<video>/<frame>.png` and sentences with their `obj_id`."""

    folder: Folder
    file: str
    dataset: str
    split: str
    video: str
    listed: Mapping[str, Any]

    @property
    def videos(self) -> tuple[str, ...]:
        return (self.video,)

    def read(self) -> list[VideoTruth]:
        try:
            safe_name(self.video)
            names = tuple(safe_name(name) for name in self.listed["frames"])
            expressions = [
                Expression(number, str(one["exp"]), (int(one["obj_id"]),), external_id=number)
                for number, one in self.listed["expressions"].items()
            ]
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(
                f"{self.folder.path(self.file)}, video {self.video!r}: {error!r}. It needs frames, and expressions "
                f"with exp and obj_id; a file without obj_id holds no truth."
            ) from error
        size, objects = _object_tracks(self.folder.folder(f"Annotations/{self.video}"), names)
        # An object without a pixel is absent all along: a prediction of it should be empty.
        absent = {number for one in expressions for number in one.object_ids} - set(objects)
        empty = tuple([rle_union([], size)] * len(names))
        objects = {**objects, **{number: ObjectTrack(number, empty) for number in absent}}
        return [VideoTruth(self.dataset, self.split, self.video, size, names, objects, tuple(expressions))]


@dataclass(frozen=True)
class DavisPart:
    """One sequence of a DAVIS folder: `Annotations_unsupervised/480p/<sequence>`, void pixels and all.

    It holds no texts: expression 4 · o + k, without text, is annotator k's expression for object o + 1.
    """

    folder: Folder
    dataset: str
    split: str
    video: str
    annotators: tuple[int, ...] = (0, 1, 2, 3)

    @property
    def videos(self) -> tuple[str, ...]:
        return (self.video,)

    def read(self) -> list[VideoTruth]:
        masks = self.folder.folder(f"{_DAVIS_MASKS}/{self.video}")
        names = tuple(name.removesuffix(".png") for name in masks.names(suffix=".png"))
        if not names:
            raise ValueError(f"{masks.path()} holds no PNG, but the list of sequences names it. Unpack it again.")
        size, objects = _object_tracks(masks, names)
        expressions = [
            Expression(str(4 * (number - 1) + annotator), "", (number,), annotator=annotator)
            for number in objects
            if number != _VOID
            for annotator in self.annotators
        ]
        return [VideoTruth(self.dataset, self.split, self.video, size, names, objects, tuple(expressions))]


_VOID = 255  # in DAVIS's maps
_DAVIS_MASKS = "Annotations_unsupervised/480p"
_DAVIS_LIST = "ImageSets/2017"


def truth_parts(path: str, split: str | None = None) -> list[TruthPart]:
    """Lists the truth of a folder in parts for workers: prepared data, Ref-YouTube-VOS masks or DAVIS.

    Args:
        path: a folder, or its URI.
        split: list of a DAVIS folder; val if None or "valid".

    Raises:
        FileNotFoundError: the folder is none of these.
        ValueError: the manifest or the list of expressions is damaged.
    """
    folder = Folder(path)
    if folder.has(MANIFEST):
        return _prepared_parts(folder)
    for home in (folder, folder.folder("DAVIS"), folder.folder("valid")):
        if home.has(_DAVIS_MASKS):
            name = "val" if split in (None, "valid") else split
            listed = home.read(f"{_DAVIS_LIST}/{name}.txt").decode().split()
            return [DavisPart(home, "ref-davis17", split or "valid", video) for video in listed]
    sentences = [name for name in folder.names(suffix=".json") if name.startswith("meta_expressions")]
    if folder.has("Annotations") and len(sentences) == 1:
        return _sentences_parts(folder, sentences[0])
    raise FileNotFoundError(
        f"{folder.path()} holds no truth: neither {MANIFEST} (prepared data), nor {_DAVIS_MASKS}/ (DAVIS), nor "
        f"Annotations/ beside one meta_expressions*.json (Ref-YouTube-VOS). Point at the folder that does."
    )


def read_truths(path: str) -> Iterator[VideoTruth]:
    """Yields every truth of a folder, with one part in memory at a time.

    Raises:
        FileNotFoundError: the folder is none of these.
        ValueError: a file is damaged.
    """
    for part in truth_parts(path):
        yield from part.read()


def _prepared_parts(folder: Folder) -> list[TruthPart]:
    manifest = read_manifest(folder)
    return [
        PreparedPart(
            folder, shard.file, number, manifest.dataset, manifest.split, tuple(row.video for row in row_group)
        )
        for shard in manifest.shards
        for number, row_group in enumerate(shard.row_groups)
    ]


def _sentences_parts(folder: Folder, file: str) -> list[TruthPart]:
    try:
        videos = parse_json(folder.read(file))["videos"]
        items = sorted(videos.items())
    except (json.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder.path(file)} lists no videos ({error!r}). Take it again from where it was."
        ) from error
    split = folder.path().rsplit("/", 1)[-1]
    return [SentencesPart(folder, file, "ref-youtube-vos", split, video, listed) for video, listed in items]


def _object_tracks(folder: Folder, names: Sequence[str]) -> tuple[Size, dict[int, ObjectTrack]]:
    """Returns height and width of the object id PNGs, and the track of each id."""
    by_frame: list[dict[int, str]] = []
    size: Size | None = None
    for name in names:
        try:
            ids = object_map(folder.read(f"{name}.png"), size)
            by_frame.append(object_rles(ids))
        except ValueError as error:
            raise ValueError(f"{folder.path(f'{name}.png')}: {error}. Unpack masks of one resolution again.") from error
        size = (ids.shape[0], ids.shape[1])
    if size is None:
        raise ValueError(f"{folder.path()}: the list names no frame of it. Take the list again from where it was.")
    empty = mask_to_rle(np.zeros(size, dtype=np.bool_))
    ids = sorted(set().union(*by_frame))
    return size, {one: ObjectTrack(one, tuple(of_frame.get(one, empty) for of_frame in by_frame)) for one in ids}
