"""Names of the datasets, in a module of their own because command lines import them at start-up."""

from typing import Literal, TypeGuard, get_args

from pipelines.errors import LayoutError

DatasetName = Literal[
    "own", "refcoco", "refcoco+", "refcocog", "ref-youtube-vos", "ref-davis17", "a2d-sentences", "jhmdb-sentences",
    "mevis", "mevis-v2", "long-rvos", "revos", "ref-sav", "vots",
    "coco", "youtube-vis", "cvat", "davis-folder", "sa-v", "label-studio",
]  # fmt: skip
"""Names of the datasets, as --dataset spells them."""
TOOL_FORMATS: tuple[DatasetName, ...] = ("coco", "youtube-vis", "cvat", "davis-folder", "sa-v", "label-studio")
"""Those that are formats of annotation tools: --raw names their file, --frames or --videos where the pictures are."""
ExifChoice = Literal["apply", "ignore"]
"""What --exif chooses: frames turned as viewers show them, or as their pixels are stored."""


def check_dataset(name: str) -> DatasetName:
    """Returns the name if it is that of a dataset.

    Raises:
        LayoutError: no dataset has that name; the message lists the names.
    """
    if not _is_dataset(name):
        raise LayoutError(f"There is no dataset {name!r}. Choose one of: {', '.join(get_args(DatasetName))}.")
    return name


def _is_dataset(name: str) -> TypeGuard[DatasetName]:
    return name in get_args(DatasetName)
