"""Every dataset that can be prepared, by its name on the command line."""

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.files import Folder
from pipelines.sources.a2d import A2DSentences
from pipelines.sources.base import Source
from pipelines.sources.davis import RefDavis17
from pipelines.sources.jhmdb import JhmdbSentences
from pipelines.sources.mevis import MeViS
from pipelines.sources.names import DatasetName, ExifChoice, check_dataset
from pipelines.sources.own import Own
from pipelines.sources.refcoco import RefCoco
from pipelines.sources.video_files import QUALITY
from pipelines.sources.ytvos import RefYouTubeVOS

IMAGES, VIDEOS = 256, 16
"""Rows per shard; a few tens of MB in both cases."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What is chosen for a source beside its folder and split; each source takes what concerns it.

    Args:
        quality: JPEG quality of frames that are encoded anew: those of video files, and turned ones.
        exif: whether frames are turned as their EXIF says; None: as their masks fit.
    """

    quality: int = QUALITY
    exif: ExifChoice | None = None


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """Entry of a dataset: how it is opened, and the rows of a shard."""

    make: Callable[[Folder, str, SourceOptions], Source]
    rows_per_shard: int = VIDEOS

    def open(self, root: Folder, split: str, options: SourceOptions | None = None) -> Source:
        """Returns the source of a split of the dataset in a folder.

        Raises:
            LayoutError: the dataset has no such split.
        """
        return self.make(root, split, options or SourceOptions())


DATASETS: dict[DatasetName, DatasetEntry] = {
    "own": DatasetEntry(lambda root, split, options: Own(root, split, quality=options.quality, exif=options.exif)),
    "refcoco": DatasetEntry(lambda root, split, _: RefCoco(root, split, "refcoco"), IMAGES),
    "refcoco+": DatasetEntry(lambda root, split, _: RefCoco(root, split, "refcoco+"), IMAGES),
    "refcocog": DatasetEntry(lambda root, split, _: RefCoco(root, split, "refcocog"), IMAGES),
    "ref-youtube-vos": DatasetEntry(lambda root, split, _: RefYouTubeVOS(root, split)),
    "ref-davis17": DatasetEntry(lambda root, split, _: RefDavis17(root, split)),
    "a2d-sentences": DatasetEntry(lambda root, split, options: A2DSentences(root, split, options.quality)),
    "jhmdb-sentences": DatasetEntry(lambda root, split, _: JhmdbSentences(root, split)),
    "mevis": DatasetEntry(lambda root, split, _: MeViS(root, split)),
}


def entry_of(dataset: str) -> DatasetEntry:
    """Returns the entry of a dataset.

    Raises:
        LayoutError: no dataset has that name; the message lists the names.
    """
    return DATASETS[check_dataset(dataset)]
