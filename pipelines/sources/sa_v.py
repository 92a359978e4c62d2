"""SA-V: `<video>_manual.json` with masks of every fourth frame beside `<video>.mp4`, and a table of sentences."""

from dataclasses import dataclass

import msgspec

from pipelines.errors import BadItem, LayoutError
from pipelines.files import Folder, parent_and_name
from pipelines.sources.base import Item, Reading
from pipelines.sources.frame_files import FrameFiles, is_folder
from pipelines.sources.label_files import LabelFiles, json_content, label_files, text_of
from pipelines.sources.labels import LabelledObject, VideoLabels, labelled_reading
from pipelines.sources.pictures import Pictures
from pipelines.sources.sentence_table import TABLE, SentenceTable, rows_of, sentences_of_rows

STEP = 4
"""Frames of the video for each annotated one: the videos have 24 frames per second, the masks 6."""
_ENDINGS = ("_manual.json", "_auto.json")


class _Masklets(msgspec.Struct):
    masklet: list[list[msgspec.Raw]]  # for each annotated frame, for each object
    masklet_id: list[int]
    video_width: float | None = None
    video_height: float | None = None


@dataclass(frozen=True, slots=True)
class SaV:
    """A folder of SA-V, or one of its JSON files; `expressions.csv` beside them has the sentences, as SA-V has none.

    The columns of the table are video, object_id (a `masklet_id`, from 0), text and, optionally, expression and split.
    The record keeps the annotated frames only, named by their index in the video: 00000, 00004, …. Without `_manual`
    annotation of a video, that of `_auto.json` is taken.

    Args:
        raw: the folder or file.
        split: any name if the table has no column split.
        files: where the video files are, or the images in folders `<video>/`: all frames, or the annotated ones alone.
    """

    raw: Folder
    split: str
    files: FrameFiles
    dataset: str = "sa-v"

    def items(self) -> list[Item]:
        """Returns every video of the table, sorted. The key holds its sentences, and the name of its JSON file.

        Raises:
            LayoutError: the table is missing or malformed, or there is no JSON file at all.
        """
        self.files.check()
        names = label_files(self.raw, ".json").names
        sentences = SentenceTable(self._files.folder, least=0).sentences(self.split)
        there = {video: name for ending in reversed(_ENDINGS) for name in names if (video := _video(name, ending))}
        if not there:
            raise LayoutError(f"{self.raw.path()} is or holds no <video>_manual.json. Point --raw at a folder of SA-V.")
        keys = {video: {"file": there.get(video), "rows": rows_of(of)} for video, of in sentences.items()}
        return [Item(video, keys[video]) for video in sorted(keys)]

    def read(self, item: Item) -> Reading:
        """Reads one video: its masks, and its annotated frames.

        Raises:
            BadItem: the JSON or the pictures are missing or damaged, or contradict one another.
        """
        name, files = item.key["file"], self._files
        if name is None:
            missing = files.folder.path(f"{item.video}{_ENDINGS[0]}")
            raise BadItem(item.video, "list", f"{missing} does not exist. Put it there, or mend {TABLE}.")
        path = files.folder.path(name)
        try:
            content = json_content(files.read(name), _Masklets, path, "SA-V JSON")
        except LayoutError as error:
            raise BadItem(item.video, "read", str(error)) from error
        labels = _labels(item, content, path)
        pictures = self.files.whole(item.video, labels.size)
        chosen = pictures.chosen(_annotated(item.video, len(content.masklet), pictures))
        masks = [[text_of(mask) for mask in frame] for frame in content.masklet]
        return labelled_reading(self, Item(item.video, {**item.key, "masklet": masks}), labels, chosen)

    @property
    def _files(self) -> LabelFiles:
        return LabelFiles(self.raw if is_folder(self.raw) else Folder(parent_and_name(self.raw.uri)[0]), ())


def _video(file: str, ending: str) -> str:
    """Returns the video of a file with this ending; empty if it has another."""
    return file.removesuffix(ending) if file.endswith(ending) else ""


def _labels(item: Item, content: _Masklets, path: str) -> VideoLabels:
    """Returns the masks of the objects that the sentences are about, by annotated frame."""
    ids = content.masklet_id
    for frame, masks in enumerate(content.masklet):
        if len(masks) != len(ids):
            reason = f"{path}: masklet[{frame}] has {len(masks)} masks for {len(ids)} masklet_id. Download it again."
            raise BadItem(item.video, "list", reason)
    sentences = sentences_of_rows(item.key["rows"])
    wanted = {id for one in sentences for id in one.objects}
    objects = [
        LabelledObject(
            id, {frame: [text] for frame, masks in enumerate(content.masklet) if (text := text_of(masks[at]))}
        )
        for at, id in enumerate(ids)
        if id in wanted
    ]
    has_size = content.video_width and content.video_height
    size = (int(content.video_width or 0), int(content.video_height or 0)) if has_size else None
    return VideoLabels(path, objects, sentences, size=size)


def _annotated(video: str, count: int, pictures: Pictures) -> list[int]:
    """Returns the indices of the annotated frames: every fourth, or all if there are only as many."""
    if len(pictures.frames) == count:
        return list(range(count))
    if not count or STEP * (count - 1) >= len(pictures.frames):
        raise BadItem(
            video,
            "list",
            f"{count} frames are annotated, one of {STEP}, but {pictures.source} has {len(pictures.frames)} frames. "
            f"Give the video that was annotated.",
        )
    return list(range(0, STEP * count, STEP))
