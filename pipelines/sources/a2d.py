"""A2D-Sentences: short clips, sentences about actors in them, and masks at a few frames of each clip."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipelines.errors import BadItem, Dropped, LayoutError, shown
from pipelines.files import Folder
from pipelines.records import Expression, ObjectTrack
from pipelines.sources.a2d_clip import Annotation, annotation_of_h5, decoded_clip
from pipelines.sources.base import Item, Reading, build_record
from pipelines.sources.csv_table import headless_lines
from pipelines.sources.frame_ids import frame_id_template
from pipelines.sources.reading import (
    annotation_list,
    annotation_rows,
    annotation_text,
    checked_split,
    checked_video,
    item_bytes,
    whole_number,
)

_SPLITS = {"train": "0", "test": "1"}  # last column of videoset.csv
_TEXTS = "text_annotations/a2d_annotation.txt"
_MISSED = ("text_annotations/a2d_missed_videos.txt", "a2d_missed_videos.txt")
_H5 = "text_annotations/a2d_annotation_with_instances"
_VIDEOSET = "Release/videoset.csv"

_Expression = tuple[str, str, str, list[int] | None]
"""Video, instance as written, text, and the frames to evaluate, from 1; None for all frames that have the instance."""


@dataclass(frozen=True)
class A2DSentences:
    """A2D-Sentences (spec data.md §1): one record per video, every frame of its clip, masks at the annotated frames.

    The clips are mp4. Their frames are decoded once and stored as JPEG without chroma subsampling (4:4:4), named by
    their number from 1 with five digits. At frames without annotation `rle` and `boxes` are None. `boxes` are `reBBox`
    as stored, not the boxes of the masks.

    Results are named by expression and frame: `Expression.external_id` is a template such as
    `v_-davisCamel_f_{frame}_i_0`, and `frame_ids.frame_id(external_id, frame_name)` is the id at one of the frames in
    `Expression.frames`. The `id` of an expression is its instance, which is also the id of its object.

    Args:
        root: folder with `Release/` and `text_annotations/`. If `text_annotations/a2d_annotation.txt` is missing, the
            sentences come from `a2d_sentences_single_frame_<split>_annotations.json` in `root`.
        split: train or test.
        quality: of the JPEG, 1 … 100.

    Raises:
        LayoutError: the dataset has no such split.
    """

    root: Folder
    split: str
    quality: int = 95
    dataset: str = field(default="a2d-sentences", init=False)

    def __post_init__(self) -> None:
        checked_split(self.dataset, self.split, list(_SPLITS))

    def items(self) -> list[Item]:
        """Returns the videos of the split that have a sentence, sorted by name.

        Raises:
            LayoutError: an annotation file is missing or damaged.
        """
        videos: dict[str, list[tuple[str, str, list[int] | None]]] = {}
        for video, instance, text, frames in self._sentences()[0]:
            videos.setdefault(video, []).append((instance, text, frames))
        return [Item(video, videos[video]) for video in sorted(videos)]

    def left_out(self) -> list[Dropped]:
        """Returns the sentences of videos that are no items: missed by the annotators, or in no split.

        Raises:
            LayoutError: an annotation file is missing or damaged.
        """
        return self._sentences()[1]

    def read(self, item: Item) -> Reading:
        """Reads one clip with the masks of its annotated frames.

        Raises:
            BadItem: the clip or an h5 file is missing or damaged, or their sizes differ.
        """
        checked_video(item.video)
        data = item_bytes(self.root, f"Release/CLIPS320/{item.video}.mp4", item.video)
        path = self.root.path(f"Release/CLIPS320/{item.video}.mp4")
        clip = decoded_clip(item.video, path, data, self.quality)
        h5, dropped = self._h5(item.video, len(clip.frames))
        annotations = {
            frame: annotation_of_h5(item.video, self._h5_path(item.video, frame), content, (clip.height, clip.width))
            for frame, content in h5.items()
        }
        expressions, more = _expressions(item, annotations)
        record = build_record(
            self,
            item.video,
            (clip.width, clip.height),
            frame_names=tuple(f"{number:05d}" for number in range(1, len(clip.frames) + 1)),
            frames=clip.frames,
            objects=_objects(annotations, len(clip.frames)),
            expressions=expressions,
            path=f"Release/CLIPS320/{item.video}.mp4",
            made_from=[json.dumps(item.key), str(self.quality), data, *h5.values()],
            fps=clip.fps,
            timestamps=clip.timestamps,
        )
        return Reading(record, (*clip.dropped, *dropped, *more))

    def _sentences(self) -> tuple[list[_Expression], list[Dropped]]:
        """Returns the sentences of the split's videos, in file order, and the sentences of videos that are left out."""
        if not self.root.has(_TEXTS):
            return list(self._sentences_at_frames()), []
        kept: list[_Expression] = []
        left_out: list[Dropped] = []
        split_of = self._split_of()
        missed = set(annotation_text(self.root, next(filter(self.root.has, _MISSED), _MISSED[0])).split())
        for video, instance, text in annotation_rows(self.root, _TEXTS, ("video_id", "instance_id", "query")):
            if split_of.get(video, self.split) != self.split:
                continue
            if video in missed:
                left_out.append(Dropped(video, "video in a2d_missed_videos.txt", f"instance {instance}: {text}"))
            elif video not in split_of:
                left_out.append(Dropped(video, "video not in videoset.csv", f"instance {instance}: {text}"))
            else:
                kept.append((video, instance, text, None))
        return kept, left_out

    def _split_of(self) -> dict[str, str]:
        """Returns the split (train or test) of every video in videoset.csv."""
        names = {number: split for split, number in _SPLITS.items()}
        found: dict[str, str] = {}
        for number, columns in headless_lines(annotation_text(self.root, _VIDEOSET)):
            if len(columns) < 2 or columns[-1] not in names:
                raise LayoutError(
                    f"{self.root.path(_VIDEOSET)}, line {number}: {shown(','.join(columns))} does not end with 0 "
                    f"(train) or 1 (test). Download it again."
                )
            found[columns[0]] = names[columns[-1]]
        return found

    def _sentences_at_frames(self) -> Iterator[_Expression]:
        """Yields the sentences of the list of [text, video, frame, instance]; LoSh's rows also have a short text."""
        name = f"a2d_sentences_single_frame_{self.split}_annotations.json"
        if not self.root.has(name):
            raise LayoutError(
                f"{self.root.path()} holds neither {_TEXTS} nor {name}. Point --raw at the folder that holds Release/ "
                f"and text_annotations/, and check --dataset."
            )
        frames: dict[tuple[str, str, str], list[int]] = {}
        for number, row in enumerate(annotation_list(self.root, name)):
            try:
                text, (video, frame, instance) = row[0], row[-3:]
                if len(row) not in (4, 5) or not isinstance(text, str) or not isinstance(video, str):
                    raise ValueError(f"{len(row)} values")
                frames.setdefault((video, str(instance), text), []).append(int(frame))
            except (TypeError, ValueError, LookupError, OverflowError) as error:
                raise LayoutError(
                    f"{self.root.path(name)}, row {number} (from 0): {shown(row)} is not [text, video, frame, "
                    f"instance]. Download it again."
                ) from error
        yield from ((*key, numbers) for key, numbers in frames.items())

    def _h5_path(self, video: str, frame: int) -> str:
        return self.root.path(f"{_H5}/{video}/{frame:05d}.h5")

    def _h5(self, video: str, t: int) -> tuple[dict[int, bytes], list[Dropped]]:
        """Returns the annotation file of every annotated frame, numbered from 1, within a clip of t frames."""
        numbers = [name.removesuffix(".h5") for name in self.root.names(f"{_H5}/{video}", ".h5")]
        if not numbers or not all(number.isdecimal() for number in numbers):
            raise BadItem(
                video,
                "list",
                f"{self.root.path(f'{_H5}/{video}')} holds {numbers or 'no files'}, not <frame number>.h5. "
                f"Unpack the annotations again.",
            )
        dropped = [Dropped(video, "annotated frame beyond the end", number) for number in numbers if int(number) > t]
        kept = [number for number in numbers if int(number) <= t]
        return {int(number): item_bytes(self.root, f"{_H5}/{video}/{number}.h5", video) for number in kept}, dropped


def _objects(annotations: dict[int, Annotation], t: int) -> tuple[ObjectTrack, ...]:
    """Returns a track for every instance, over the t frames of the clip."""
    of_frame = [annotations.get(number, {}) for number in range(1, t + 1)]
    return tuple(
        ObjectTrack(
            id=instance,
            rle=tuple(found[instance].rle if instance in found else None for found in of_frame),
            boxes=tuple(found[instance].box if instance in found else None for found in of_frame),
        )
        for instance in sorted(set().union(*of_frame))
    )


def _expressions(item: Item, annotations: dict[int, Annotation]) -> tuple[tuple[Expression, ...], tuple[Dropped, ...]]:
    """Returns every sentence with the frames to evaluate, and what is dropped with its reason."""
    kept: dict[str, Expression] = {}
    dropped: list[Dropped] = []
    for instance, text, asked in item.key:
        what = f"instance {instance}: {text}"
        if whole_number(instance) is None:  # `1 (copy)`
            dropped.append(Dropped(item.video, "instance is no number", what))
            continue
        if not text.strip() or instance in kept:
            reason = "duplicate expression id" if text.strip() else "empty expression"
            dropped.append(Dropped(item.video, reason, what))
            continue
        frames = sorted(annotations) if asked is None else sorted(set(asked))
        found = tuple(frame - 1 for frame in frames if int(instance) in annotations.get(frame, {}))
        dropped += [
            Dropped(item.video, "instance not in annotated frame", f"{what}, frame {frame}")
            for frame in frames
            if frame - 1 not in found
        ]
        if not found:
            dropped.append(Dropped(item.video, "instance in no annotated frame", what))
            continue
        external = frame_id_template(f"v_{item.video}_f_", f"_i_{instance}")
        kept[instance] = Expression(instance, text, (int(instance),), external, frames=found)
    return tuple(kept.values()), tuple(dropped)
