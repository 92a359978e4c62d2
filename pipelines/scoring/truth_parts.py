"""Folders of truth, read in parts by workers: prepared Parquet, or raw masks where Parquet lacks them."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from pipelines.files import Folder, safe_name
from pipelines.images import object_map, object_rles
from pipelines.manifest import MANIFEST, SYNTHETIC, WITHHELD, RowInfo, read_manifest, read_rows
from pipelines.records import Expression, ObjectTrack
from pipelines.scoring.truth import TRUTH_COLUMNS, VideoTruth, truth_of
from pipelines.sources.object_maps import shared_tracks
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
    @property
    def labelled(self) -> bool:
        """Whether it may hold a truth, as far as that is known before it is read."""
        ...

    @property
    def synthetic(self) -> bool:
        """Whether it was drawn, in the layout of the dataset."""
        ...

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
    labelled: bool = True
    synthetic: bool = False

    def read(self) -> list[VideoTruth]:
        rows = read_rows(self.folder, self.file, self.row_group, TRUTH_COLUMNS)
        try:
            return [truth_of(row) for row in rows]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.folder.path(self.file)}: {error}") from error


@dataclass(frozen=True)
class SentencesPart:
    """One video of a Ref-YouTube-VOS folder: sentences, and their masks below `Annotations/<video>`.

    The masks are PNGs of object ids, `<frame>.png`, and sentences have an `obj_id`; or a folder of PNGs for each
    sentence, `<expression>/<frame>.png`, in which a missing one is an empty mask. A sentence without words has no
    truth, since prepared data do not hold it.
    """

    folder: Folder
    file: str
    dataset: str
    split: str
    video: str
    listed: Mapping[str, Any]
    synthetic: bool = False

    @property
    def videos(self) -> tuple[str, ...]:
        return (self.video,)

    @property
    def labelled(self) -> bool:
        try:
            return any("obj_id" in one for one in self.listed["expressions"].values()) or self._by_sentence
        except (LookupError, TypeError, AttributeError):
            return True  # `read` says what is wrong with it

    def read(self) -> list[VideoTruth]:
        try:
            safe_name(self.video)
            names = tuple(safe_name(name) for name in self.listed["frames"])
            by_sentence = self._by_sentence
            ids = {number: str(one.get("obj_id", "")) for number, one in self.listed["expressions"].items()}
            expressions = [
                Expression(
                    safe_name(number),
                    str(one["exp"]),
                    None if not str(one["exp"]).strip() else () if by_sentence else (int(one["obj_id"]),),
                    external_id=number,
                )
                for number, one in self.listed["expressions"].items()
            ]
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(
                f"{self.folder.path(self.file)}, video {self.video!r}: {error!r}. It needs frames, and expressions "
                f"with exp and obj_id; a file without obj_id holds no truth."
            ) from error
        masks = self.folder.folder(f"Annotations/{self.video}")
        if by_sentence:
            size, rles = _sentence_masks(masks, names, [one.id for one in expressions if one.object_ids is not None])
            numbers, tracks = shared_tracks((ids[id], of_sentence) for id, of_sentence in rles.items())
            of = dict(zip(rles, numbers, strict=True))
            expressions = [replace(one, object_ids=(of[one.id],)) if one.id in of else one for one in expressions]
            objects = {track.id: track for track in tracks}
            return [VideoTruth(self.dataset, self.split, self.video, size, names, objects, tuple(expressions))]
        size, objects = _object_tracks(masks, names)
        # An object without a pixel is absent all along: a prediction of it should be empty.
        absent = {number for one in expressions for number in one.targets} - set(objects)
        empty = tuple([rle_union([], size)] * len(names))
        objects = {**objects, **{number: ObjectTrack(number, empty) for number in absent}}
        return [VideoTruth(self.dataset, self.split, self.video, size, names, objects, tuple(expressions))]

    @property
    def _by_sentence(self) -> bool:
        """Returns whether each sentence has a folder of masks."""
        return not any(name.endswith(".png") for name in self.folder.names(f"Annotations/{self.video}"))


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
    labelled: bool = field(default=True, init=False)
    synthetic: bool = field(default=False, init=False)

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


_log = logging.getLogger(__name__)

_VOID = 255  # in DAVIS's maps
_DAVIS_MASKS = "Annotations_unsupervised/480p"
_DAVIS_LIST = "ImageSets/2017"
_WITH_OBJECTS = "meta_expressions_challenge.json"  # beside another one without, in the valid.zip of Ref-YouTube-VOS


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
    with_objects = [name for name in sentences if name == _WITH_OBJECTS] or sentences
    if folder.has("Annotations") and len(with_objects) == 1:
        return _sentences_parts(folder, with_objects[0])
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
            folder,
            shard.file,
            number,
            manifest.dataset,
            manifest.split,
            tuple(row.video for row in row_group),
            labelled=any(_labelled(row) for row in row_group),
            synthetic=manifest.synthetic,
        )
        for shard in manifest.shards
        for number, row_group in enumerate(shard.row_groups)
    ]


def _labelled(row: RowInfo) -> bool:
    return list((row.untrainable or {}).values()).count(WITHHELD) < row.expressions


def _sentences_parts(folder: Folder, file: str) -> list[TruthPart]:
    try:
        videos = parse_json(folder.read(file))["videos"]
        items = sorted(videos.items())
    except (json.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder.path(file)} lists no videos ({error!r}). Take it again from where it was."
        ) from error
    split = folder.path().rsplit("/", 1)[-1]
    synthetic, there = folder.has(SYNTHETIC), set(folder.names("Annotations"))
    if without := [video for video, _ in items if video not in there]:
        _log.warning(
            "%d of %d videos of %s have no masks in %s, and are not scored: %s%s",
            len(without),
            len(items),
            folder.path(file),
            folder.path("Annotations"),
            ", ".join(without[:5]),
            " …" if len(without) > 5 else "",
        )
    return [
        SentencesPart(folder, file, "ref-youtube-vos", split, video, listed, synthetic)
        for video, listed in items
        if video in there
    ]


def _sentence_masks(
    folder: Folder, names: Sequence[str], expressions: Sequence[str]
) -> tuple[Size, dict[str, list[str]]]:
    """Returns height and width of the PNGs of the sentences, and the RLE of each frame of each sentence."""
    size: Size | None = None
    found: dict[str, list[str | None]] = {}
    folders = set(folder.names())
    for expression in expressions:
        if expression not in folders:
            raise ValueError(f"{folder.path(expression)} is missing: the masks of a sentence. Unpack them again.")
        there = set(folder.names(expression, ".png"))
        rles: list[str | None] = []
        for name in (f"{name}.png" for name in names):
            if name not in there:
                rles.append(None)
                continue
            try:
                mask = object_map(folder.read(f"{expression}/{name}"), size) > 0
            except ValueError as error:
                raise ValueError(f"{folder.path(f'{expression}/{name}')}: {error}. Unpack it again.") from error
            size = (mask.shape[0], mask.shape[1])
            rles.append(mask_to_rle(mask))
        found[expression] = rles
    if size is None:
        raise ValueError(f"{folder.path()} holds no mask of a listed frame. Take the list again from where it was.")
    empty = rle_union([], size)
    return size, {expression: [rle or empty for rle in rles] for expression, rles in found.items()}


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
