from pathlib import Path

import pytest

from pipelines.errors import LayoutError
from pipelines.files import Folder
from pipelines.sources.catalog import DATASETS, SourceOptions, entry_of

SPLITS = {"jhmdb-sentences": "test", "ref-sav": "valid", "vots": "valid"}


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_opens_under_its_name(name: str, tmp_path: Path) -> None:
    split = SPLITS.get(name, "train")
    source = entry_of(name).open(Folder(str(tmp_path)), split, SourceOptions(90))
    assert (source.dataset, source.split) == (name, split)
    assert getattr(source, "quality", 90) == 90
    with pytest.raises(LayoutError):
        source.items()


def test_images_share_a_file_more_than_videos_do() -> None:
    assert entry_of("refcocog").rows_per_shard > entry_of("mevis").rows_per_shard


def test_a_wrong_name_prints_the_choices() -> None:
    with pytest.raises(LayoutError, match=r"no dataset 'refcoco-plus'. Choose one of: own, refcoco, refcoco\+,"):
        entry_of("refcoco-plus")
