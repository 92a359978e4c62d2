"""Label Studio: its JSON export of images (or frames of videos) that were painted with brushes."""

import re
from dataclasses import dataclass, replace

from pipelines.errors import BadItem, Dropped
from pipelines.files import Folder
from pipelines.sources.base import Item, Reading
from pipelines.sources.frame_files import FrameFiles
from pipelines.sources.label_files import each_file, label_files, plain
from pipelines.sources.label_studio_rle import brush_mask
from pipelines.sources.label_studio_tasks import label_studio_labels
from pipelines.sources.labels import VideoLabels, labelled_items, labelled_reading, labels_of, unusable
from sgmg.masks import Size, mask_to_rle

_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
"""Name of an uploaded file: Label Studio writes eight digits before the user's."""


@dataclass(frozen=True, slots=True)
class LabelStudio:
    """The export "JSON" (not "JSON-MIN") of Label Studio, one file or a folder of them.

    A task of an image (`data.image`) is a record; in one of a video (`data.video`) brushes name their frame, from 1.
    Brushes with one region id are one object. Its sentence is the text that was typed for the region (a TextArea
    with perRegion, or its meta text), or else its labels. Of several annotations of a task the one marked as ground
    truth counts, or else the first that was not cancelled.

    Args:
        raw: the file or folder.
        split: any name; the records get it.
        files: where the images or video files are. `/data/upload/1/12345678-cat.jpg` is looked for as that path, as
            `12345678-cat.jpg` and as `cat.jpg`.
    """

    raw: Folder
    split: str
    files: FrameFiles
    dataset: str = "label-studio"

    def items(self) -> list[Item]:
        """Returns every task with a brush, sorted by the path of its image or video.

        Raises:
            LayoutError: a file is missing, no JSON, too large, or of another format; or two tasks have one picture.
        """
        self.files.check()
        return labelled_items(one for listed, _ in self._listings() for one in listed)

    def left_out(self) -> list[Dropped]:
        """Returns the tasks without brush."""
        return [one for _, dropped in self._listings() for one in dropped]

    def read(self, item: Item) -> Reading:
        """Reads the picture or pictures of a task, and its masks.

        Raises:
            BadItem: a picture is missing, damaged, or not of the annotated size, or a brush is unusable.
        """
        labels = labels_of(item, self.files.root)
        if labels.frames is None:
            names = [name for path in labels.names for name in _possible(path)]
            pictures = self.files.whole(item.video, labels.size, names)
            labels = _with_unknown(labels, len(pictures.frames))
        else:
            pictures = self.files.listed(item.video, [self._image(labels.frames[0])], labels.size)
        return labelled_reading(self, item, labels, pictures, _rle)

    def _image(self, path: str) -> str:
        """Returns the first of the possible paths at which there is an image; the first of all if there is none."""
        possible = _possible(path)
        try:
            return next((one for one in possible if self.files.images.has(one)), possible[0])
        except ValueError as error:
            raise BadItem(path, "list", str(error)) from error

    def _listings(self) -> list[tuple[list[tuple[str, VideoLabels]], list[Dropped]]]:
        found = label_files(self.raw, ".json")
        return each_file(found, label_studio_labels, lambda name, problem: ([unusable(name, problem)], []))


def _with_unknown(labels: VideoLabels, t: int) -> VideoLabels:
    """Returns the labels of a video of t frames, in which frames without any brush are not annotated."""
    painted = {index for one in labels.objects for index in one.masks}
    unknown = [index for index in range(t) if index not in painted]
    return replace(labels, objects=[replace(one, unknown=unknown) for one in labels.objects])


def _possible(path: str) -> list[str]:
    """Returns the paths at which a picture may be.

    >>> _possible("a/0a1b2c3d-cat.jpg")
    ['a/0a1b2c3d-cat.jpg', '0a1b2c3d-cat.jpg', 'cat.jpg']
    """
    base = path.rpartition("/")[2]
    uploaded = _UPLOADED.fullmatch(base)
    return list(dict.fromkeys([path, base, uploaded[1] if uploaded else base]))


def _rle(text: str, size: Size) -> str:
    content = plain(text.encode())
    if not isinstance(content, dict) or not isinstance(content["rle"], list):
        raise ValueError("its rle is no list of bytes")
    return mask_to_rle(brush_mask(content["rle"], size))
