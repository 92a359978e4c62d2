"""What a read task reads, holds and passes on."""

import pickle
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_data import annotated, made_up, rectangle, rows_of
from pipelines.clips.epoch_plan import EpochPlan
from pipelines.clips.sample_table import SampleTable
from pipelines.clips.stream import Streaming, TrainData, TrainPart, windows_of
from pipelines.clips.window import Window
from pipelines.clips.window_reader import read_window
from pipelines.files import Folder
from pipelines.manifest import RowInfo
from pipelines.records import ObjectTrack, Record


def videos(number: int, size: int = 6_000, sentences: int = 1, t: int = 6) -> list[Record]:
    """Videos of t frames and so many bytes. Six frames are two anchors, and more than a clip has."""
    track = ObjectTrack(1, (rectangle(20, 40),) * t)
    return [
        replace(
            annotated(f"{video:03d}", t, track, sentences=sentences),
            frames=tuple(np.random.default_rng([video, frame]).bytes(size // t) for frame in range(t)),
        )
        for video in range(number)
    ]


def data_of(part: TrainPart, **changes: Any) -> TrainData:
    return TrainData((part,), seed=0, global_batch=2, shuffle_window=12, **changes)


class Counting(Folder):
    """A folder that counts which files it opens."""

    opened: ClassVar[Counter[str]] = Counter()

    @contextmanager
    def parquet(self, name: str, columns: Iterable[str] = ()) -> Iterator[pq.ParquetFile]:
        self.opened[name] += 1
        with super().parquet(name, columns) as parquet:
            yield parquet


def test_each_row_group_of_a_window_is_opened_once(tmp_path: Path) -> None:
    part = made_up(tmp_path, *videos(60), rows_per_group=3)
    part = replace(part, folder=Counting(part.folder.uri))
    data = data_of(part)
    groups = Counter[str]()
    Counting.opened.clear()
    for item in windows_of(data, data.plan(0), (0, 1), 0, Streaming(window_samples=50)):
        window = Window.from_bytes(item["window"])
        groups.update(file for _, file, _ in window.row_groups)
        list(read_window(item, reader=data.reader(0)))
    assert Counting.opened == groups
    assert len(groups) == 10
    assert groups.total() > 20


@pytest.mark.parametrize(("t", "sentences"), [(6, 1), (1, 2)])
def test_memory_of_a_read_task_does_not_grow_with_the_dataset(tmp_path: Path, t: int, sentences: int) -> None:
    """It holds the rows that are under way in its lanes, in one read task for all."""
    size = 60_000

    def most_held(number: int) -> float:
        """Of all moments, in videos."""
        data = data_of(made_up(tmp_path / f"{number}", *videos(number, size, sentences, t), rows_per_group=4))
        rows = rows_of(data)
        next(rows)
        tracemalloc.start()
        try:
            before = pa.total_allocated_bytes()
            held = [tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before for _ in rows]
        finally:
            tracemalloc.stop()
        assert len(held) == 2 * number - 1
        return max(held) / size

    few, many = most_held(160), most_held(480)
    # 40 rows in each of two lanes, and those of their row groups that come next.
    assert 2 * 10 < few < 2 * 80
    assert many < 1.2 * few + 5


def test_a_window_holds_no_more_frames_than_it_may(tmp_path: Path) -> None:
    data = data_of(made_up(tmp_path, *videos(30, 60_000)))
    clip = data.parts[0].clip_bytes
    assert 28_000 < clip < 34_000  # three frames of six
    assert 60_000 < data.parts[0].row_bytes < 68_000
    assert Streaming(window_samples=1_000).window_steps(data, 4) == 250
    assert Streaming(window_samples=1_000, window_bytes=6_000_000).window_steps(data, 1) == 1_000
    assert Streaming(window_samples=1_000, window_bytes=6_000_000).window_steps(data, 4) == int(6_000_000 / clip / 4)
    assert Streaming(window_bytes=1).window_steps(data, 4) == 1


def test_smaller_windows_pass_on_the_same(tmp_path: Path) -> None:
    data = data_of(made_up(tmp_path, *videos(20, sentences=3)), sentences_per_clip=3)
    whole = list(rows_of(data))
    assert list(rows_of(data, Streaming(window_samples=14))) == whole
    assert len(whole) == 20 * 2 * 3


def test_sentences_that_cannot_be_learned_from_are_no_siblings(tmp_path: Path) -> None:
    part = made_up(tmp_path, *videos(8, sentences=4))

    def without_third(group: tuple[RowInfo, ...]) -> tuple[RowInfo, ...]:
        return tuple(replace(row, untrainable={2: "crowd"}) for row in group)

    shards = tuple(
        replace(shard, row_groups=tuple(map(without_third, shard.row_groups))) for shard in part.manifest.shards
    )
    data = data_of(replace(part, manifest=replace(part.manifest, shards=shards)), sentences_per_clip=4)
    rows = list(rows_of(data))
    assert len(rows) == 8 * 2 * 3
    for row in rows:
        texts = [row["drawn"].text, *(drawn.text for drawn, _ in row["siblings"])]
        assert sorted(texts) == ["sentence 0", "sentence 1", "sentence 3"]


@pytest.mark.parametrize("t", [1, 3, 6])
def test_samples_of_one_video_share_its_frames(tmp_path: Path, t: int) -> None:
    rows = list(rows_of(data_of(made_up(tmp_path, *videos(1, sentences=4, t=t)))))
    frames = {id(frame): frame for row in rows for frame in row["frames"]}
    assert len(rows) == 4 * -(-t // 3)
    assert len(frames) == len(set(frames.values())) <= t


def test_a_sample_that_is_repeated_is_another_clip_each_time(tmp_path: Path) -> None:
    part = made_up(tmp_path, *videos(4))
    table = SampleTable.of((part.manifest,), (part.recipe.length,))
    window = EpochPlan(table, 0, 0, 2, weights=(3.0,)).window((0, 1), 0, 99)
    drawn: dict[str, list[Any]] = {}
    for row in data_of(part).reader(0).rows(window):
        drawn.setdefault(row["sample"], []).append(row["drawn"])
    assert len(drawn) == 8
    for clips in drawn.values():
        assert len(clips) == 3
        assert len({str(clip) for clip in clips}) == 3


@pytest.mark.parametrize("sentences", [1, 2])
def test_what_travels_to_a_read_task_has_no_manifest(tmp_path: Path, sentences: int) -> None:
    data = data_of(made_up(tmp_path, *videos(200)), sentences_per_clip=sentences)
    assert len(pickle.dumps(data.reader(0))) < 5_000
    (item,) = windows_of(data, data.plan(0), (0, 1), 0, Streaming())
    assert len(item["window"]) < 5_000
