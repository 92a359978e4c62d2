"""What a manifest says of its rows."""

import json
from collections.abc import Callable
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
    counts = {"videos": 3, "frames": frames, "objects": 3, "expressions": 7}
    return Manifest("own", "train", {}, counts, {}, 0, "", shards)


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(quarantined="0"), r"Expected `int`, got `str` - at `\$\.quarantined`"),
        (lambda values: values.update(dataset=None), r"Expected `str`, got `null` - at `\$\.dataset`"),
        (lambda values: values["counts"].update(frames=True), r"Expected `int`, got `bool` - at `\$\.counts"),
        (lambda values: values["counts"].update(frames=-1), r"a number from 0 - at `\$\.counts\.frames`"),
        (lambda values: values["counts"].pop("expressions"), r"a number from 0 - at `\$\.counts\.expressions`"),
        (lambda values: row_of(values).update(frames=2**40), r"1099511627776 frames.* at `\$\.shards.*row_groups"),
        (lambda values: row_of(values).update(frames=-1), r"-1 frames .*at `\$\.shards"),
        (lambda values: row_of(values).update(frames=2**20, expressions=2**20), r"are more than 268435456 - at"),
        (lambda values: row_of(values).update(anchor_counts=[1]), r"anchor_counts should be 3 numbers"),
        (lambda values: row_of(values).update(untrainable={"5": "crowd"}), r"untrainable should name some of its 3"),
        (lambda values: values["shards"][0].update(file="../a.parquet"), r"'\.\./a\.parquet' would leave"),
        (lambda values: values["shards"][0].update(bytes=-5), r"its size is -5 bytes - at `\$\.shards"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_file(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    values = json.loads(manifest_of(3).to_json())
    change(values)
    (tmp_path / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"{MANIFEST}: it is no manifest of prepared data \(.*{message}.*Prepare"):
        read_manifest(Folder(str(tmp_path)))


def row_of(values: dict[str, Any]) -> dict[str, Any]:
    """The first row of a manifest."""
    return values["shards"][0]["row_groups"][0][0]


def test_a_manifest_of_lists_in_lists_is_none(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("[" * 200_000)
    with pytest.raises(ValueError, match=rf"{MANIFEST}: it is no manifest .*in one another.* Prepare the data again"):
        read_manifest(Folder(str(tmp_path)))
