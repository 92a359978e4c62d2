"""What a manifest says of its rows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.files import Folder
from pipelines.manifest import MANIFEST, MANIFEST_VERSION, Manifest, RowInfo, Shard, read_manifest

ROWS = (
    RowInfo("a", 1, 3, untrainable={0: "crowd", 2: "box without area"}),
    RowInfo("b", 1, 2),
    RowInfo("c", 1, 2, untrainable={1: "crowd"}),
)


def manifest_of(frames: int) -> Manifest:
    shards = (Shard("0", 1, (ROWS[:1], ROWS[1:2])), Shard("1", 1, (ROWS[2:],)))
    return Manifest("own", "train", {}, {"videos": 3, "frames": frames}, {}, 0, "", shards)


def test_rows_come_in_the_order_of_the_shards() -> None:
    assert manifest_of(3).rows == list(ROWS)


def test_what_nobody_can_learn_from_is_summed_by_reason() -> None:
    manifest = Manifest.from_json(manifest_of(3).to_json())
    assert manifest.untrainable.most_common() == [("crowd", 2), ("box without area", 1)]


def test_videos_of_which_one_frame_is_annotated_are_no_single_images() -> None:
    assert manifest_of(3).single_images
    assert not manifest_of(4).single_images


def test_a_manifest_is_read_back_as_it_was() -> None:
    rows = (*ROWS[:2], RowInfo("c", 9, 2, anchor_counts=(3, 1)))
    manifest = replace(manifest_of(3), shards=(Shard("0", 1, (rows,)),))
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 1}, f"manifest version 1, this code reads {MANIFEST_VERSION}"),
        ({"shards": [{"file": "0", "bytes": 1, "row_groups": [[{"video": "a"}]]}]}, "no manifest of prepared data"),
        ({"shards": None}, "no manifest of prepared data"),
    ],
)
def test_another_version_or_a_damaged_manifest_is_to_be_prepared_again(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({**json.loads(manifest_of(3).to_json()), **change}))
    with pytest.raises(ValueError, match=rf"{message}.*Prepare the data again"):
        read_manifest(Folder(str(tmp_path)))
