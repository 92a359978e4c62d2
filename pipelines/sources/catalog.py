"""Every dataset that can be prepared, by its name on the command line."""

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.files import Folder
from pipelines.sources.a2d import A2DSentences
from pipelines.sources.base import Source
from pipelines.sources.davis import RefDavis17
from pipelines.sources.jhmdb import JhmdbSentences
from pipelines.sources.mevis import MeViS
from pipelines.sources.names import DatasetName, check_dataset
from pipelines.sources.own import Own
from pipelines.sources.refcoco import RefCoco
from pipelines.sources.ytvos import RefYouTubeVOS

IMAGES, VIDEOS = 256, 16
"""Rows per shard; a few tens of MB in both cases."""


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """Entry of a dataset: opens it from its folder, a split, and the JPEG quality for frames of video files."""

    open: Callable[[Folder, str, int], Source]
    rows_per_shard: int = VIDEOS


DATASETS: dict[DatasetName, DatasetEntry] = {
    "own": DatasetEntry(lambda root, split, quality: Own(root, split, quality=quality)),
    "refcoco": DatasetEntry(lambda root, split, _: RefCoco(root, split, "refcoco"), IMAGES),
    "refcoco+": DatasetEntry(lambda root, split, _: RefCoco(root, split, "refcoco+"), IMAGES),
    "refcocog": DatasetEntry(lambda root, split, _: RefCoco(root, split, "refcocog"), IMAGES),
    "ref-youtube-vos": DatasetEntry(lambda root, split, _: RefYouTubeVOS(root, split)),
    "ref-davis17": DatasetEntry(lambda root, split, _: RefDavis17(root, split)),
    "a2d-sentences": DatasetEntry(lambda root, split, quality: A2DSentences(root, split, quality)),
    "jhmdb-sentences": DatasetEntry(lambda root, split, _: JhmdbSentences(root, split)),
    "mevis": DatasetEntry(lambda root, split, _: MeViS(root, split)),
}


def entry_of(dataset: str) -> DatasetEntry:
    """Returns the entry of a dataset.

    Raises:
        LayoutError: no dataset has that name; the message lists the names.
    """
    return DATASETS[check_dataset(dataset)]
