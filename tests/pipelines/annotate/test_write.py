"""The predictions of a window are written for each of its expression groups."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch

from pipelines.annotate.decode import WindowContext
from pipelines.annotate.events import Planned, WindowDone
from pipelines.annotate.layout import ExpressionGroup, expression_group
from pipelines.annotate.settings import Settings
from pipelines.annotate.write import WriteStage
from pipelines.files import Folder
from pipelines.inference.actor import MAX_CRASHES, PredictStage
from pipelines.inference.crash_counter import CrashCounter
from pipelines.inference.messages import decode, encode, encode_frames
from pipelines.inference.model_frames import ModelFrames
from pipelines.inference.predictor_spec import PredictorSpec, checkpoint_sha256
from pipelines.predictions import prediction_of
from pipelines.records import Expression, Record
from pipelines.video.listing import Video
from prepared_data import SENTENCES, tiny_checkpoint
from sgmg.tokenizer import Tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_local")]

VIDEO = Video("/v.mp4")
ONE = expression_group(VIDEO.id, "file", "settings", (Expression("1", "the ball"),))
TWO = expression_group(VIDEO.id, "file", "settings", (Expression("2", "the dog"), Expression("3", "a man")))


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
        compile=False,
        threads=torch.get_num_threads(),
        gpu=False,
    )
    return PredictStage(spec, crash_counter)


def window(damage: str = "") -> pa.Table:
    names = ("00004", "00005")
    record = Record(
        "videos", "", VIDEO.id, 60, 40, names, (b"", b""), (), ONE.expressions + TWO.expressions, VIDEO.path, "file",
        60, 40, timestamps=(0.4, 0.5),
    )  # fmt: skip
    frames = np.random.default_rng(0).integers(0, 256, (2, 130, 195, 3), dtype=np.uint8)
    context = WindowContext(VIDEO, 3, (ONE, TWO), damage, 0.4, 0.5)
    return encode_frames(f"{VIDEO.id} 3", [ModelFrames(record, (0, 1), frames)], context=context)


def written(out: Folder, group: ExpressionGroup) -> list[Any]:
    with out.open(group.window(3)) as source:
        return [prediction_of(row) for row in pq.read_table(source).to_pylist()]


def done(out: Folder, predict: PredictStage, message: pa.Table) -> WindowDone:
    (predictions,) = predict(message)
    (message,) = WriteStage(out)(predictions)
    event, _ = decode(message, 0, WindowDone)
    assert event is not None
    return event


def test_a_window_is_answered_once_and_written_for_each_group(predict: PredictStage, tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    event = done(out, predict, window())
    assert (event.video, event.window, event.frames, event.failure) == (VIDEO.id, 3, 2, None)
    (ball,), (dog, man) = written(out, ONE), written(out, TWO)
    assert [one.text for one in (ball, dog, man)] == ["the ball", "the dog", "a man"]
    assert [(len(one.queries), one.frame_names, one.note) for one in (ball, dog, man)] == [
        (5, ("00004", "00005"), "")
    ] * 3


def test_damage_goes_with_the_window(predict: PredictStage, tmp_path: Path) -> None:
    whole, damaged = Folder(str(tmp_path / "whole")), Folder(str(tmp_path / "damaged"))
    done(whole, predict, window())
    done(damaged, predict, window("2 of its frames are damaged"))
    (row,) = written(damaged, ONE)
    assert (row.status, row.note) == ("partial", "2 of its frames are damaged")
    (same,) = written(whole, ONE)
    assert replace(row, status=same.status, note="") == same


def test_a_window_that_crashes_its_predictors_is_skipped(
    predict: PredictStage, crash_counter: Any, tmp_path: Path
) -> None:
    out = Folder(str(tmp_path))
    for _ in range(MAX_CRASHES - 1):
        ray.get(crash_counter.start.remote(f"{VIDEO.id} 3"))
    event = done(out, predict, window())
    assert (event.failure, event.crashes) == (None, MAX_CRASHES - 1)
    for _ in range(MAX_CRASHES):
        ray.get(crash_counter.start.remote(f"{VIDEO.id} 3"))
    event = done(out.folder("skipped"), predict, window())
    assert event.failure
    assert (event.failure.video, event.failure.stage) == ("/v.mp4", "predict")
    assert event.failure.reason.startswith("0.40 to 0.50 s: 4 predictors crashed on it")
    assert not out.has("skipped")


def test_events_of_other_stages_pass_through(tmp_path: Path) -> None:
    (message,) = WriteStage(Folder(str(tmp_path)))(encode(Planned("ü", segments=2)))
    assert decode(message, 0, Planned)[0] == Planned("ü", segments=2)
