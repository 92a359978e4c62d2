"""Names of the datasets, apart from the code that reads them: command lines import them at once."""

from typing import Literal, TypeGuard, get_args

from pipelines.errors import LayoutError

DatasetName = Literal[
    "own", "refcoco", "refcoco+", "refcocog", "ref-youtube-vos", "ref-davis17", "a2d-sentences", "jhmdb-sentences",
    "mevis",
]  # fmt: skip
"""Every dataset, as --dataset spells it."""


def check_dataset(name: str) -> DatasetName:
    """Returns the name if a dataset is called so.

    Raises:
        LayoutError: there is no such dataset; the message lists all of them.
    """
    if not _is_dataset(name):
        raise LayoutError(f"There is no dataset {name!r}. Choose one of: {', '.join(get_args(DatasetName))}.")
    return name


def _is_dataset(name: str) -> TypeGuard[DatasetName]:
    return name in get_args(DatasetName)
