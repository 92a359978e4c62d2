"""Rows that are scored: who reads which, how often a row group is read, and how far ahead."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelled_data import cut_short, labelled, spoiled
from pipelines.files import Folder
from pipelines.inference.protocols import inference_protocol
from pipelines.manifest import read_manifest
from pipelines.records import Record
from pipelines.training.validation_rows import (
    AHEAD,
    DecodedVideo,
    Lost,
    RowRef,
    decoded_ahead,
    partition_by_cost,
    read_records,
    row_groups,
)
from prepared_data import prepared_folder

PROTOCOL = inference_protocol("own", 64)


def rows_of(folder: Path) -> list[RowRef]:
    """Every row that the folder's manifest names."""
    return [
        RowRef(Folder(str(folder)), shard.file, number, row, info.video, info.frames * info.expressions)
        for shard in read_manifest(Folder(str(folder))).shards
        for number, group in enumerate(shard.row_groups)
        for row, info in enumerate(group)
    ]


def places(*groups: tuple[int, ...]) -> list[RowRef]:
    """Rows of so much work, of row groups of one file."""
    return [
        RowRef(Folder("/d"), "f", number, row, f"{number}-{row}", work)
        for number, group in enumerate(groups)
        for row, work in enumerate(group)
    ]


def work_of(refs: list[RowRef]) -> int:
    return sum(ref.work for ref in refs)


def test_videos_are_dealt_longest_first_to_whoever_has_least() -> None:
    for rows in (places((1, 9, 4, 5, 2)), places((1,), (9,), (4,), (5,), (2,))):
        shares = partition_by_cost(rows, 2)
        assert [sorted(ref.work for ref in share) for share in shares] == [[2, 9], [1, 4, 5]]
    assert partition_by_cost(rows[:1], 3)[1:] == [[], []]


def test_a_row_group_goes_to_one_rank_where_shares_stay_even() -> None:
    shares = partition_by_cost(places((3, 1), (2, 2), (4, 4)), 2)
    assert [{ref.row_group for ref in share} for share in shares] == [{2}, {0, 1}]
    images = places(*[(2,) * 52 for _ in range(75)])
    for world in (1, 3, 8, 64):
        shares = partition_by_cost(images, world)
        assert sum(len(row_groups(share)) for share in shares) <= 75 + 2 * world
        assert max(map(work_of, shares)) <= work_of(images) / world + 2


@pytest.mark.parametrize("seed", range(20))
def test_every_row_has_one_rank_and_none_has_more_than_an_even_share_and_a_row(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = places(*[tuple(rng.integers(0, 50, rng.integers(1, 30)).tolist()) for _ in range(rng.integers(1, 40))])
    world = int(rng.integers(1, 10))
    shares = partition_by_cost(rows, world)
    assert sorted(ref.video for share in shares for ref in share) == sorted(ref.video for ref in rows)
    longest = max(ref.work for ref in rows)
    assert max(map(work_of, shares)) <= work_of(rows) / world + longest
    for share in shares:  # the rows of a group stand together: it is read once
        assert [ref for group in row_groups(share) for ref in group] == share
    groups = sorted(row_groups(rows), key=lambda refs: -work_of(refs))
    dealt = [ref for group in groups for ref in sorted(group, key=lambda ref: -ref.work)]
    last = next(left for left in range(len(rows) + 1) if work_of(dealt[left:]) < world * longest)
    reads = sum(len(row_groups(share)) for share in shares)
    assert reads <= len(row_groups(rows)) + world + len(rows) - last


def test_a_row_group_is_read_once_and_only_when_its_turn_comes(tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path / "own", [labelled(name) for name in "abcdef"], 3, 1)
    rows = rows_of(folder)
    records = read_records([rows[0], rows[3], rows[1], rows[2]])  # the second group's row comes after the first's
    assert next(records)[0] == rows[0]
    first, second = sorted(folder.glob("*.parquet"))
    first.unlink()
    found = [(ref.video, type(record)) for ref, record in records]
    assert found == [("b", Record), ("c", Record), ("d", Record)]
    second.unlink()
    ((_, lost),) = read_records(rows[4:5])
    assert isinstance(lost, Lost)
    assert lost.truth
    assert f"{second}, row group 0 cannot be read: {second} does not exist" in lost.reason


def test_a_few_videos_are_decoded_ahead_and_no_more(tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path / "own", [labelled(f"v{number}") for number in range(12)], 1, 1)
    videos = decoded_ahead(rows_of(folder), PROTOCOL)
    first = next(videos)
    assert isinstance(first, DecodedVideo)
    assert first.frames.frames.shape == (1, 64, 89, 3)
    assert first.frames.record.frames == (b"",)  # the encoded ones are not held
    time.sleep(1)  # the model works on the first
    for file in folder.glob("*.parquet"):
        file.unlink()
    rest = list(videos)
    assert len(rest) == 11
    assert 1 <= sum(isinstance(one, DecodedVideo) for one in rest) <= AHEAD + 1


def test_who_ends_early_leaves_no_thread_behind(tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path / "own", [labelled(f"v{number}") for number in range(6)])
    videos = decoded_ahead(rows_of(folder), PROTOCOL)
    next(videos)
    thread = next(one for one in threading.enumerate() if "_work" in one.name)
    videos.close()
    thread.join(60)
    assert not thread.is_alive()


def test_a_damaged_shard_loses_the_truth_of_its_own_videos(tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path / "own", [labelled(name) for name in "abcd"], 1, 2)
    damaged = cut_short(folder, 1)
    a, b, c, d = decoded_ahead(rows_of(folder), PROTOCOL)
    assert [type(one) for one in (a, b)] == [DecodedVideo, DecodedVideo]
    for video, lost, group in (("c", c, 0), ("d", d, 1)):
        assert isinstance(lost, Lost)
        assert (lost.video, lost.truth) == (video, True)
        assert lost.reason.startswith(f"{damaged}, row group {group} cannot be read: ")


def test_a_frame_that_is_no_image_loses_an_answer_but_no_truth(tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path / "own", [labelled("a"), spoiled(labelled("b"))])
    _, lost = decoded_ahead(rows_of(folder), PROTOCOL)
    assert isinstance(lost, Lost)
    assert (lost.video, lost.truth) == ("b", False)
    assert "frame 00000: 8 bytes that begin with b'no image'" in lost.reason


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        ([labelled("a"), labelled("c")], "holds other videos than when the run was started"),
        ([labelled("a")], "holds other videos than when the run was started"),
        ([labelled("a"), replace(labelled("b"), expressions=())], "holds no truth any more"),
        ([labelled("a"), replace(labelled("b"), segment=1)], "is cut into segments"),
    ],
)
def test_a_folder_that_was_prepared_again_meanwhile_is_noticed(tmp_path: Path, now: list[Record], reason: str) -> None:
    rows = rows_of(prepared_folder(tmp_path / "own", [labelled("a"), labelled("b")]))
    prepared_folder(tmp_path / "own", now)
    first, lost = decoded_ahead(rows, PROTOCOL)
    assert isinstance(first, DecodedVideo)
    assert isinstance(lost, Lost)
    assert lost.truth
    assert reason in lost.reason
