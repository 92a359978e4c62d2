"""The predictions of a shard are written: the rows of short videos, or the windows of a stretch."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch

from pipelines.annotate.decode import PartContext, PartsContext, WindowContext
from pipelines.annotate.events import LongVideo, News, ShardDone, StretchDone, VideoSeen
from pipelines.annotate.layout import ExpressionGroup, expression_groups
from pipelines.annotate.settings import Settings
from pipelines.annotate.tracks import JoinSettings
from pipelines.annotate.write import WriteStage
from pipelines.errors import Failure
from pipelines.files import Folder
from pipelines.inference.actor import MAX_CRASHES, PredictStage
from pipelines.inference.crash_counter import CrashCounter
from pipelines.inference.messages import FramesInfo, decode, encode_pixels
from pipelines.inference.predictor_spec import PredictorSpec, checkpoint_sha256
from pipelines.ledger import read_footer
from pipelines.prediction_reader import iter_predictions
from pipelines.records import Expression, Record
from pipelines.video.listing import Video
from prepared_data import SENTENCES, tiny_checkpoint
from sgmg.config import SgMgConfig
from sgmg.tokenizer import Tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_local")]

ONE, TWO = Video("/one.mp4", stamp="listed"), Video("/two.mp4")
BALL, DOG = Expression("1", "the ball"), Expression("2", "the dog")
SEEN = tuple(VideoSeen(video.id, video.path, video.stamp, "file") for video in (ONE, TWO))
LOST = VideoSeen("poem-0123456789", "/poem.mp4", "", "", failure=Failure("/poem.mp4", "decode", "it is a poem"))


@pytest.fixture
def crash_counter() -> Any:
    return ray.remote(num_cpus=0)(CrashCounter).remote()


@pytest.fixture
def predict(crash_counter: Any, tmp_path: Path) -> PredictStage:
    path = tiny_checkpoint(tmp_path / "checkpoint")
    spec = PredictorSpec(
        checkpoint=partial(Path, path),
        checkpoint_sha256=checkpoint_sha256(path),
        tokenizer=Tokenizer.train(SENTENCES).to_json(),
        protocol=Settings().protocol(130),
        precision="float32",
        model=SgMgConfig.preset("tiny"),
        threads=torch.get_num_threads(),
        gpu=False,
    )
    return PredictStage(spec, crash_counter)


@pytest.fixture
def out(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "out"))


def part(
    video: Video, *expressions: Expression, windows: int | tuple[WindowContext, ...] = 1, **values: Any
) -> PartContext:
    """Windows of two frames, without overlap."""
    (group,) = expression_groups(video.id, "file", "settings", expressions)
    if isinstance(windows, int):
        windows = tuple(WindowContext(number, "", "", 0.2 * number, 0.2 * number + 0.1) for number in range(windows))
    given = {"seconds": 0.2 * len(windows), "windows": windows, "stretch": None, "failures": (), **values}
    return PartContext(video, "file", group=group, **given)


def message(*parts: PartContext, news: News | None = None) -> pa.Table:
    rng = np.random.default_rng(0)
    infos, pixels = [], []
    for one in parts:
        for window in one.windows:
            names = tuple(f"{2 * window.number + t:05d}" for t in range(2))
            record = Record(
                "videos", "", one.video.id, 60, 40, names, (b"", b""), (), one.group.expressions, one.video.path,
                "file", 60, 40, timestamps=(window.start, window.stop),
            )  # fmt: skip
            pixels.append(rng.integers(0, 256, (2, 130, 195, 3), dtype=np.uint8))
            infos.append(FramesInfo(record, (0, 1), (2, 130, 195, 3), one.stretch is not None))
    context = PartsContext("shard", parts, news or News(SEEN[: len(parts)]))
    return encode_pixels("shard", infos, b"".join(one.data for one in pixels), context=context)


def done(out: Folder, predict: PredictStage, message: pa.Table) -> ShardDone:
    (predictions,) = predict(message)
    (message,) = WriteStage(out, JoinSettings(0.0, "f"))(predictions)
    event, _ = decode(message, 0, ShardDone)
    assert event is not None
    return event


def test_rows_of_several_videos_come_in_one_file_that_tells_of_them(predict: PredictStage, out: Folder) -> None:
    event = done(out, predict, message(part(ONE, BALL, DOG, windows=2), part(TWO, BALL)))
    assert (event.file, event.size) == ("shard.parquet", out.size("predictions/shard.parquet"))
    assert (event.windows, event.frames, event.crashes, event.stretches) == (3, 6, 0, ())
    one, two = event.entries
    assert (one.video, one.path, one.stamp, one.fingerprint) == (ONE.id, ONE.path, "listed", "file")
    assert (one.sentences, one.frames, one.seconds) == ((("1", "the ball"), ("2", "the dog")), 4, 0.4)
    assert ((one.first_group, one.groups), (two.first_group, two.groups)) == ((0, 1), (1, 1))
    assert one.final
    assert two.final
    assert read_footer(out, "shard.parquet") == [one, two]
    rows = list(iter_predictions(out))
    assert [(row.video, row.text, len(row.frame_names), len(row.queries)) for row in rows] == [
        (ONE.id, "the ball", 4, 1), (ONE.id, "the dog", 4, 1), (TWO.id, "the ball", 2, 1),
    ]  # fmt: skip
    assert rows[0].fingerprint == "f"


def test_damage_is_in_the_rows_and_in_the_entry(predict: PredictStage, out: Folder) -> None:
    damaged = (WindowContext(0, "2 of its frames are damaged", "", 0.0, 0.1),)
    event = done(out, predict, message(part(ONE, BALL, windows=damaged), part(TWO, BALL)))
    assert [entry.damage for entry in event.entries] == ["2 of its frames are damaged", ""]
    row, other = iter_predictions(out)
    assert (row.status, row.note) == ("partial", "2 of its frames are damaged")
    assert other.status != "partial"


def test_what_failed_is_told_and_only_rows_are_in_a_footer(predict: PredictStage, out: Folder) -> None:
    failure = Failure(TWO.path, "decode", "0.00 to 0.10 s: it took too long")
    lost = part(TWO, BALL, windows=0, failures=(failure,))
    event = done(out, predict, message(part(ONE, BALL), lost, news=News((*SEEN, LOST))))
    one, two, poem = event.entries
    assert (one.failures, two.failures, two.groups, poem.failures) == ((), (failure,), 0, (LOST.failure,))
    assert [entry.video for entry in read_footer(out, event.file)] == [ONE.id]


def test_where_nothing_can_be_had_no_file_is_written(predict: PredictStage, out: Folder) -> None:
    failure = Failure(TWO.path, "decode", "0.00 to 0.10 s: it took too long")
    event = done(out, predict, message(part(TWO, BALL, windows=0, failures=(failure,)), news=News((SEEN[1], LOST))))
    assert (event.file, [len(entry.failures) for entry in event.entries]) == ("", [1, 1])
    assert not out.has("predictions")
    assert "predictor" not in vars(predict)


def test_a_shard_that_crashes_its_predictors_is_skipped(predict: PredictStage, crash_counter: Any, out: Folder) -> None:
    for _ in range(MAX_CRASHES - 1):
        ray.get(crash_counter.start.remote("shard"))
    event = done(out, predict, message(part(ONE, BALL)))
    assert (event.entries[0].failures, event.crashes) == ((), MAX_CRASHES - 1)
    for _ in range(MAX_CRASHES):
        ray.get(crash_counter.start.remote("shard"))
    event = done(out.folder("skipped"), predict, message(part(ONE, BALL)))
    (failure,) = event.entries[0].failures
    assert (failure.video, failure.stage) == (ONE.path, "predict")
    assert failure.reason.startswith("0.00 to 0.10 s: 4 predictors crashed on it")
    assert not out.has("skipped")


def test_a_stretch_is_written_window_by_window(predict: PredictStage, out: Folder) -> None:
    stretch = part(ONE, BALL, DOG, windows=2, stretch=7)
    long = LongVideo(SEEN[0], 9.0, (stretch.group,), stretches=8, todo=1)
    event = done(out, predict, message(stretch, news=News(long=(long,))))
    assert (event.file, event.entries, event.news.long) == ("", (), (long,))
    assert event.stretches == (StretchDone(ONE.id, stretch.group.name, 7),)
    with out.parquet(stretch.group.stretch(7)) as parquet:
        windows = [parquet.read_row_group(number).to_pylist() for number in range(parquet.num_row_groups)]
    keys = ("queries", "every", "size")
    found = [
        [(row["text"], row["frame_names"][0], *(len(row[key]) for key in keys)) for row in rows] for rows in windows
    ]
    assert found == [
        [("the ball", "00000", 1, 5, 2), ("the dog", "00000", 1, 5, 2)],
        [("the ball", "00002", 1, 5, 2), ("the dog", "00002", 1, 5, 2)],
    ]


def test_a_stretch_that_lacks_windows_says_so_in_its_name(predict: PredictStage, out: Folder) -> None:
    failure = Failure(ONE.path, "decode", "0.20 to 0.30 s: it took too long")
    stretch = part(ONE, BALL, stretch=7, failures=(failure,))
    event = done(out, predict, message(stretch))
    assert event.stretches == (StretchDone(ONE.id, stretch.group.name, 7, (failure,)),)
    group: ExpressionGroup = stretch.group
    assert out.has(group.stretch(7, whole=False))
    assert not out.has(group.stretch(7))
