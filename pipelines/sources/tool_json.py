"""COCO and YouTube-VIS: sources whose JSON files list the images of every video, and the masks of its objects."""

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.errors import Dropped
from pipelines.files import Folder
from pipelines.sources.base import Item, Reading
from pipelines.sources.coco_json import coco_labels
from pipelines.sources.frame_files import FrameFiles
from pipelines.sources.label_files import each_file, label_files
from pipelines.sources.labels import VideoLabels, labelled_items, labelled_reading, labels_of, unusable
from pipelines.sources.youtube_vis_json import youtube_vis_labels

Listing = tuple[dict[str, VideoLabels], list[Dropped]]
"""Labels of each video, and what belongs to none."""

_PARSERS: dict[str, Callable[[bytes, Folder, str], Listing]] = {"coco": coco_labels, "youtube-vis": youtube_vis_labels}


@dataclass(frozen=True, slots=True)
class ToolJson:
    """A JSON file of COCO or YouTube-VIS, or a folder of such files, each with all annotations of its videos.

    Args:
        raw: the file or folder.
        split: any name; the records get it.
        files: where the images or video files are.
        dataset: coco or youtube-vis.
    """

    raw: Folder
    split: str
    files: FrameFiles
    dataset: str = "coco"

    def items(self) -> list[Item]:
        """Returns every video or image with an annotation, sorted. The key holds its labels.

        Raises:
            LayoutError: a file is missing, no JSON, too large, or of another format; or two videos have one name.
        """
        self.files.check()
        return labelled_items(one for listed, _ in self._listings() for one in listed.items())

    def left_out(self) -> list[Dropped]:
        """Returns images without annotation, and annotations of no image."""
        return [one for _, dropped in self._listings() for one in dropped]

    def read(self, item: Item) -> Reading:
        """Reads the pictures of one video or image, and its masks.

        Raises:
            BadItem: a picture is missing, damaged, or not of the annotated size, or an annotation is unusable.
        """
        labels = labels_of(item, self.files.root)
        pictures = self.files.listed(item.video, labels.frames or [], labels.size, labels.names)
        return labelled_reading(self, item, labels, pictures)

    def _listings(self) -> list[Listing]:
        found, parse = label_files(self.raw, ".json"), _PARSERS[self.dataset]
        return each_file(found, parse, lambda name, problem: (dict([unusable(name, problem)]), []))
