"""Every dataset that can be prepared, by its name on the command line."""

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.files import Folder, parent_and_name
from pipelines.sources.a2d import A2DSentences
from pipelines.sources.base import Source
from pipelines.sources.cvat import Cvat
from pipelines.sources.davis import RefDavis17
from pipelines.sources.davis_folder import DavisFolder, davis_root
from pipelines.sources.frame_files import FrameFiles, is_folder
from pipelines.sources.jhmdb import JhmdbSentences
from pipelines.sources.label_studio import LabelStudio
from pipelines.sources.long_rvos import LongRVOS
from pipelines.sources.mask_dict import MaskDict
from pipelines.sources.names import DatasetName, ExifChoice, check_dataset
from pipelines.sources.own import Own
from pipelines.sources.refcoco import RefCoco
from pipelines.sources.sa_v import SaV
from pipelines.sources.tool_json import ToolJson
from pipelines.sources.video_files import QUALITY
from pipelines.sources.vots import Vots
from pipelines.sources.ytvos import RefYouTubeVOS

IMAGES, EITHER, VIDEOS = 256, 64, 16
"""Rows per shard: a few tens of MB of images or of videos; of files that may hold either, something between."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Choices for a source beside its folder and split; each source takes what concerns it.

    Args:
        quality: JPEG quality of frames that are encoded anew: those of video files, and turned ones.
        exif: whether frames are turned as their EXIF says; None: as their masks fit.
        frames: folder of the images that an annotation file of a tool speaks of; empty: the folder of that file.
        videos: folder of its video files; empty if not given.
    """

    quality: int = QUALITY
    exif: ExifChoice | None = None
    frames: str = ""
    videos: str = ""

    def frame_files(self, root: Folder) -> FrameFiles:
        """Returns where the pictures of an annotation file are, or of all those in a folder."""
        folder = root if is_folder(root) else Folder(parent_and_name(root.uri)[0])
        return FrameFiles(folder, self.frames, self.videos, self.quality, self.exif)


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
    "mevis": DatasetEntry(lambda root, split, _: MaskDict(root, split, "mevis")),
    "mevis-v2": DatasetEntry(lambda root, split, _: MaskDict(root, split, "mevis-v2")),
    "revos": DatasetEntry(lambda root, split, _: MaskDict(root, split, "revos")),
    "ref-sav": DatasetEntry(lambda root, split, _: MaskDict(root, split, "ref-sav")),
    "long-rvos": DatasetEntry(lambda root, split, _: LongRVOS(root, split)),
    "vots": DatasetEntry(lambda root, split, _: Vots(root, split)),
    "coco": DatasetEntry(lambda root, split, options: ToolJson(root, split, options.frame_files(root), "coco"), EITHER),
    "youtube-vis": DatasetEntry(
        lambda root, split, options: ToolJson(root, split, options.frame_files(root), "youtube-vis")
    ),
    "cvat": DatasetEntry(lambda root, split, options: Cvat(root, split, options.frame_files(root))),
    "davis-folder": DatasetEntry(
        lambda root, split, options: DavisFolder(davis_root(root), split, options.frame_files(root))
    ),
    "sa-v": DatasetEntry(lambda root, split, options: SaV(root, split, options.frame_files(root))),
    "label-studio": DatasetEntry(
        lambda root, split, options: LabelStudio(root, split, options.frame_files(root)), EITHER
    ),
}


def entry_of(dataset: str) -> DatasetEntry:
    """Returns the entry of a dataset.

    Raises:
        LayoutError: no dataset has that name; the message lists the names.
    """
    return DATASETS[check_dataset(dataset)]
