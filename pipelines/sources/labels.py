"""Labels of one video, the same for the annotation files of every tool, and the record made of them."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from pipelines.errors import BadItem, Dropped
from pipelines.files import Folder
from pipelines.manifest import NO_PIXELS
from pipelines.records import Expression, ObjectTrack
from pipelines.sources.base import Item, Reading, Source, build_record
from pipelines.sources.coco_annotations import coco_rle
from pipelines.sources.label_files import single_names
from pipelines.sources.meta_expressions import EMPTY
from pipelines.sources.pictures import Pictures
from sgmg.masks import Size, rle_area, rle_union

OUTSIDE = "polygon without a pixel in the image"

RleOf = Callable[[str, Size], str]
"""Converts a segmentation, as JSON text of the format, to COCO's compressed RLE; a ValueError says why it cannot."""


@dataclass(frozen=True, slots=True)
class LabelledObject:
    """One object of a video.

    Attributes:
        masks: segmentations as JSON text, by index of the frame; the mask is their union.
        unknown: indices of the frames in which it may be or not. In all other frames without a mask it is absent.
    """

    id: int
    masks: dict[int, list[str]]
    category: str = ""
    iscrowd: bool = False
    unknown: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LabelledSentence:
    """A sentence and the ids of the objects that it is about; `id` is given only where the file names it."""

    text: str
    objects: list[int]
    id: str = ""


@dataclass(frozen=True, slots=True)
class VideoLabels:
    """Content of an annotation file about one video: the key of its item.

    Attributes:
        file: name of the annotation file, for messages.
        frames: image files, in order; None: all frames of the video.
        size: annotated (width, height); None if the file has none.
        names: other names that a video file of it may have.
        dropped: what was left out: reason, and what.
        problem: why the video cannot be prepared; empty if it can.
    """

    file: str
    objects: list[LabelledObject] = field(default_factory=list)
    sentences: list[LabelledSentence] = field(default_factory=list)
    frames: list[str] | None = None
    size: tuple[int, int] | None = None
    names: list[str] = field(default_factory=list)
    fps: float | None = None
    timestamps: list[float] | None = None
    dropped: list[tuple[str, str]] = field(default_factory=list)
    problem: str = ""

    def item(self, video: str) -> Item:
        """Returns the item of the video, whose key these labels are."""
        return Item(video, msgspec.to_builtins(self, str_keys=True))


def labels_of(item: Item, folder: Folder) -> VideoLabels:
    """Returns the labels that are the key of an item, with the full path of the annotation file.

    Raises:
        BadItem: they have a problem.
    """
    labels = msgspec.convert(item.key, VideoLabels, str_keys=True, strict=False)
    labels = replace(labels, file=folder.path(labels.file))
    if labels.problem:
        raise BadItem(item.video, "list", f"{labels.file}: {labels.problem}")
    return labels


def unusable(name: str, problem: str) -> tuple[str, VideoLabels]:
    """Returns a video, called like the file, that goes to quarantine: what stands for a file that cannot be used."""
    return name, VideoLabels(name, problem=problem)


def labelled_items(labels: Iterable[tuple[str, VideoLabels]]) -> list[Item]:
    """Returns the items of videos, given by name, sorted.

    Raises:
        LayoutError: two have one name.
    """
    ordered = sorted(labels, key=lambda entry: entry[0])
    single_names((video, one.file) for video, one in ordered)
    return [one.item(video) for video, one in ordered]


def sentences_of(texts: Mapping[int, Iterable[str]], crowds: Iterable[int] = ()) -> list[LabelledSentence]:
    """Makes sentences of the texts of objects: a text that several objects have is one sentence about all of them.

    >>> sentences_of({1: ["a cat"], 2: ["a cat", "the black one"]})
    [LabelledSentence(text='a cat', objects=[1, 2], id=''), LabelledSentence(text='the black one', objects=[2], id='')]

    Args:
        texts: of each object, by its id.
        crowds: ids of crowds, which have a sentence apart, since no sentence about a crowd is learned from.
    """
    crowds = set(crowds)
    objects: dict[tuple[str, bool], list[int]] = {}
    for id, said in texts.items():
        for text in dict.fromkeys(said):
            objects.setdefault((text, id in crowds), []).append(id)
    return [LabelledSentence(text, ids) for (text, _), ids in objects.items()]


def labelled_reading(
    source: Source, item: Item, labels: VideoLabels, pictures: Pictures, rle_of: RleOf | None = None
) -> Reading:
    """Makes the record of a video from its labels and its pictures.

    Args:
        rle_of: converts segmentations; by default those of COCO.

    Raises:
        BadItem: the annotated size is not that of the pictures, or a mask is unusable.
    """
    video, size = item.video, (pictures.width, pictures.height)
    if labels.size not in (None, size):
        width, height = labels.size
        raise BadItem(
            video,
            "decode",
            f"{labels.file} annotates {width}x{height} pixels, but {pictures.source} has {size[0]}x{size[1]}: its "
            f"masks do not fit. Give the frames that were annotated, or export the annotation again.",
        )
    tracks, outside = _tracks(video, labels, pictures, rle_of or coco_rle)
    # An object of a tool that has no mask was perhaps given as a box, or lies outside: not a truth that it is absent.
    seen = [one for one in tracks if any(rle and rle_area(rle, (size[1], size[0])) for rle in one.rle)]
    return record_of_tracks(
        source,
        video,
        pictures,
        seen,
        labels.sentences,
        dropped=[*(Dropped(video, *one) for one in labels.dropped), *outside],
        made_from=[json.dumps(item.key, sort_keys=True)],
        times=(labels.fps, tuple(labels.timestamps) if labels.timestamps else None),
    )


def record_of_tracks(
    source: Source,
    video: str,
    pictures: Pictures,
    tracks: Iterable[ObjectTrack],
    sentences: Iterable[LabelledSentence],
    *,
    dropped: Iterable[Dropped],
    made_from: Iterable[bytes | str],
    times: tuple[float | None, tuple[float, ...] | None] = (None, None),
) -> Reading:
    """Makes the record of a video from the tracks of its objects. Drops sentences about none of them.

    Args:
        tracks: with empty masks throughout for an object that is never there.
        dropped: what was left out before.
        made_from: what the record depends on beside the pictures, for its fingerprint.
        times: frames per second, and seconds of each frame, where the pictures do not tell them.
    """
    tracks = tuple(tracks)
    expressions, without = _expressions(video, sentences, {track.id for track in tracks})
    others = [Dropped(video, "other video tracks", pictures.other_tracks)] if pictures.other_tracks else []
    timestamps = pictures.timestamps or times[1]
    record = build_record(
        source,
        video,
        (pictures.width, pictures.height),
        frame_names=pictures.names,
        frames=pictures.frames,
        objects=tracks,
        expressions=tuple(expressions),
        path=pictures.source,
        made_from=[*made_from, *pictures.names, *pictures.raw],
        fps=pictures.fps or times[0],
        timestamps=timestamps if timestamps and len(timestamps) == len(pictures.frames) else None,
    )
    return Reading(record, (*others, *dropped, *without))


def _tracks(
    video: str, labels: VideoLabels, pictures: Pictures, rle_of: RleOf
) -> tuple[list[ObjectTrack], list[Dropped]]:
    """Returns the tracks of the objects, and the polygons that have no pixel."""
    size, t = (pictures.height, pictures.width), len(pictures.frames)
    tracks: list[ObjectTrack] = []
    outside: list[Dropped] = []
    for one in labels.objects:
        rles: list[str | None] = [rle_union([], size)] * t
        for index in one.unknown:
            rles[index] = None
        known: dict[str, str] = {}  # a mask that holds over many frames is converted once
        for index, texts in sorted(one.masks.items()):
            what = f"object {one.id}, frame {pictures.names[index] if index < t else index}"
            if index >= t:
                raise BadItem(video, "list", f"{labels.file}: {what}, but {pictures.source} has only {t} frames.")
            try:
                known |= {text: rle_of(text, size) for text in texts if text not in known}
            except ValueError as error:
                raise BadItem(video, "decode", f"{labels.file}: {what}: {error}. Mend it there.") from error
            rles[index] = rle_union([known[text] for text in texts], size)
            if any(text.startswith("[") and not rle_area(known[text], size) for text in texts):
                outside.append(Dropped(video, OUTSIDE, what))
        tracks.append(ObjectTrack(one.id, tuple(rles), one.category, one.iscrowd))
    return tracks, outside


def _expressions(
    video: str, sentences: Iterable[LabelledSentence], known: set[int]
) -> tuple[list[Expression], list[Dropped]]:
    """Returns the expressions, and the sentences that are empty or about no known object.

    Raises:
        BadItem: two sentences have one id.
    """
    expressions: list[Expression] = []
    dropped: list[Dropped] = []
    ids: set[str] = set()
    for number, sentence in enumerate(sentences):
        id = sentence.id or str(number)
        if id in ids:
            raise BadItem(
                video, "list", f"two of its sentences have the id {id!r}. Give each an id of its own, or none at all."
            )
        ids.add(id)
        objects = tuple(one for one in sentence.objects if one in known)
        if not sentence.text.strip():
            dropped.append(Dropped(video, EMPTY, f"expression {id}"))
        elif not objects:
            of = ", ".join(map(str, sentence.objects))
            dropped.append(Dropped(video, NO_PIXELS, f"expression {id}, of object {of}: {sentence.text}"))
        else:
            expressions.append(Expression(id, sentence.text, objects, external_id=id))
    return expressions, dropped
