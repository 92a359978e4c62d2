"""Ref-DAVIS17: DAVIS 2017 with the texts of two annotators, in the raw or the converted layout."""

import json
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field

import numpy as np

from pipelines.errors import BadItem, Dropped, LayoutError
from pipelines.files import Folder
from pipelines.images import object_map, object_rles
from pipelines.records import Expression, ObjectTrack
from pipelines.sources.base import Item, Reading, build_record
from pipelines.sources.davis_texts import SETS, DavisVideo, converted_videos, raw_videos
from pipelines.sources.reading import checked_split, checked_video, image_frames, item_bytes
from sgmg.masks import Size, mask_to_rle

_NO_OBJECT = (0, 255)  # background, void


@dataclass(frozen=True)
class RefDavis17:
    """Ref-DAVIS17 in its raw or its converted layout (spec data.md §1).

    The `id` of an expression is the number that the official converter gives it, 4 · (index of the object) + annotator.
    Its `annotator` 0 … 3 means annotator 1 first frame, 1 full video, 2 first frame, 2 full video. Object ids are those
    of the masks; void pixels (255) belong to no object.

    Args:
        root: folder with `davis_text_annotations/` and `DAVIS/` (or its content), or folder with `meta_expressions/`
            and `<split>/`. If it has both, the raw layout is read.
        split: train or valid.

    Raises:
        LayoutError: the dataset has no such split.
    """

    root: Folder
    split: str
    dataset: str = field(default="ref-davis17", init=False)

    def __post_init__(self) -> None:
        checked_split(self.dataset, self.split, list(SETS))

    def items(self) -> list[Item]:
        """Returns the videos of the split, sorted by name.

        Raises:
            LayoutError: the folder has neither layout, or an annotation file is missing or damaged.
        """
        raw = self.root.has("davis_text_annotations")
        if not raw and not self.root.has("meta_expressions"):
            raise LayoutError(
                f"{self.root.path()} holds neither davis_text_annotations/ (as distributed) nor meta_expressions/ "
                f"(converted). Point --raw at the folder that does, and check --dataset."
            )
        videos = dict((raw_videos if raw else converted_videos)(self.root, self.split))
        return [Item(name, asdict(videos[name])) for name in sorted(videos)]

    def read(self, item: Item) -> Reading:
        """Reads one video with the masks of all its objects.

        Raises:
            BadItem: the video has no frame; a frame or mask is missing, damaged or of another size; or an object does
                not have 4 texts.
        """
        checked_video(item.video)
        video = DavisVideo(**item.key)
        if video.problem:
            raise BadItem(item.video, "list", video.problem)
        images = [f"{name}.jpg" for name in video.frame_names] or self.root.names(video.frames, ".jpg")
        names = [image.removesuffix(".jpg") for image in images]
        frames, (width, height) = image_frames(self.root.folder(video.frames), images, item.video)
        folder = self.root.folder(video.masks)
        masks = {folder.path(f"{name}.png"): item_bytes(folder, f"{name}.png", item.video) for name in names}
        expressions, dropped = _expressions(item.video, video)
        named = {id for one in expressions for id in one.targets}
        objects = _objects(item.video, masks, (height, width), video.categories or {}, named)
        record = build_record(
            self,
            item.video,
            (width, height),
            frame_names=tuple(names),
            frames=frames,
            objects=objects,
            expressions=expressions,
            path=video.frames,
            made_from=[json.dumps(item.key, sort_keys=True), *frames, *masks.values()],
        )
        return Reading(record, dropped)


def _objects(
    video: str, masks: Mapping[str, bytes], size: Size, categories: Mapping[str, str], named: Set[int]
) -> tuple[ObjectTrack, ...]:
    """Returns a track for every object id that has a pixel in a PNG, or of which a text speaks: empty if it has none.

    Args:
        masks: the bytes of each PNG, by its path.
        named: the ids that texts speak of.
    """
    by_frame: list[dict[int, str]] = []
    for path, data in masks.items():
        try:
            by_frame.append(object_rles(object_map(data, size), without=_NO_OBJECT))
        except ValueError as error:
            raise BadItem(video, "decode", f"{path}: {error}. Unpack frames and masks of one resolution.") from error
    empty = mask_to_rle(np.zeros(size, dtype=np.bool_))
    return tuple(
        ObjectTrack(
            id=found,
            rle=tuple(of_frame.get(found, empty) for of_frame in by_frame),
            category=categories.get(str(found), ""),
        )
        for found in sorted(set(named).union(*by_frame))
    )


def _expressions(video: str, annotations: DavisVideo) -> tuple[tuple[Expression, ...], tuple[Dropped, ...]]:
    """Returns the expressions to keep, and the dropped ones; dropping one leaves the ids of the others unchanged."""
    kept: list[Expression] = []
    dropped: list[Dropped] = []
    for place, (number, text, found) in enumerate(annotations.expressions):
        if not text.strip():
            dropped.append(Dropped(video, "empty expression", f"expression {number}, of object {found}"))
        else:
            kept.append(Expression(number, text, (int(found),), annotator=place % 4))
    return tuple(kept), tuple(dropped)
