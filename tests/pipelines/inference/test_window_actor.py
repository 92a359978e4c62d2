"""The actor that holds the model, and what is written of its answers; only the count of attempts needs Ray."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch

from pipelines.annotate.expressions_file import Expression as Sentence
from pipelines.annotate.layout import ExpressionGroup, batch_of
from pipelines.annotate.settings import Settings
from pipelines.annotate.write import WriteStage
from pipelines.files import Folder
from pipelines.inference.actor import MAX_CRASHES, CrashCounter
from pipelines.inference.messages import FOUND, NEWS, open_parcel, parcel, window_parcel
from pipelines.inference.predictor_spec import PredictorSpec, checkpoint_sha256
from pipelines.inference.window_actor import Annotate
from pipelines.predictions import prediction_of
from pipelines.records import Expression, Record
from prepared_data import SENTENCES, tiny_checkpoint
from sgmg.tokenizer import Tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_local")]

ONE = batch_of("v", "file", "settings", (Sentence("1", "the ball"),))
TWO = batch_of("v", "file", "settings", (Sentence("2", "the dog"), Sentence("3", "a man")))


@pytest.fixture
def attempts() -> Any:
    return ray.remote(num_cpus=0)(CrashCounter).remote()


@pytest.fixture
def annotate(attempts: Any, tmp_path: Path) -> Annotate:
    path = tiny_checkpoint(tmp_path / "checkpoint")
    recipe = PredictorSpec(
        checkpoint=partial(Path, path),
        checkpoint_sha256=checkpoint_sha256(path),
        tokenizer=Tokenizer.train(SENTENCES).to_json(),
        protocol=Settings().protocol(130),
        precision="float32",
        compile=False,
        threads=torch.get_num_threads(),
        gpu=False,
    )
    return Annotate(recipe, attempts)


def window(damage: str = "") -> pa.Table:
    sentences = [Expression(one.id, one.text) for batch in (ONE, TWO) for one in batch.sentences]
    names = ("00004", "00005")
    record = Record(
        "videos", "", "v", 60, 40, names, (b"", b""), (), tuple(sentences), "/v.mp4", "file", 60, 40,
        segment=3, timestamps=(0.4, 0.5),
    )  # fmt: skip
    frames = np.random.default_rng(0).integers(0, 256, (2, 130, 195, 3), dtype=np.uint8)
    return window_parcel(record, frames, {"batches": [ONE.to_plain(), TWO.to_plain()], "damage": damage})


def written(out: Folder, batch: ExpressionGroup) -> list[Any]:
    with out.open(batch.window(3)) as source:
        return [prediction_of(row) for row in pq.read_table(source).to_pylist()]


def test_a_window_is_answered_once_and_written_for_each_batch(annotate: Annotate, tmp_path: Path) -> None:
    (found,) = annotate(window())
    assert open_parcel(found, 0)[0] == FOUND
    out = Folder(str(tmp_path))
    (news,) = WriteStage(out)(found)
    kind, about, _ = open_parcel(news, 0)
    assert (kind, about["news"], about["video"], about["window"], about["frames"]) == (NEWS, "window", "v", 3, 2)
    (ball,), (dog, man) = written(out, ONE), written(out, TWO)
    assert [one.text for one in (ball, dog, man)] == ["the ball", "the dog", "a man"]
    assert [(len(one.queries), one.frame_names, one.note) for one in (ball, dog, man)] == [
        (5, ("00004", "00005"), "")
    ] * 3


def test_damage_goes_with_the_window(annotate: Annotate, tmp_path: Path) -> None:
    (found,) = annotate(window("2 of its frames are damaged"))
    list(WriteStage(Folder(str(tmp_path)))(found))
    (row,) = written(Folder(str(tmp_path)), ONE)
    assert (row.status, row.note) == ("partial", "2 of its frames are damaged")


def test_a_window_that_kills_its_predictors_is_left_alone(annotate: Annotate, attempts: Any) -> None:
    for _ in range(MAX_CRASHES - 1):
        ray.get(attempts.begin.remote("v 3"))
    (found,) = annotate(window())
    assert open_parcel(found, 0)[0] == FOUND
    for _ in range(MAX_CRASHES):
        ray.get(attempts.begin.remote("v 3"))
    (news,) = annotate(window())
    kind, about, _ = open_parcel(news, 0)
    assert kind == NEWS
    assert about["failure"]["stage"] == "predict"
    assert about["failure"]["reason"].startswith("0.40 to 0.50 s: 4 predictors died of it")


def test_scores_that_are_no_numbers_cost_only_their_window(annotate: Annotate) -> None:
    head = annotate.predictor.model.class_heads[-1]
    assert isinstance(head, torch.nn.Linear)
    torch.nn.init.constant_(head.bias, math.nan)
    (news,) = annotate(window())
    assert "scores are not finite" in open_parcel(news, 0)[1]["failure"]["reason"]


def test_news_of_others_pass_through(annotate: Annotate, tmp_path: Path) -> None:
    for stage in (annotate, WriteStage(Folder(str(tmp_path)))):
        (news,) = stage(parcel(NEWS, {"news": "planned", "video": "ü"}))
        assert open_parcel(news, 0)[:2] == (NEWS, {"news": "planned", "video": "ü"})
