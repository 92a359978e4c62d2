"""The actor that holds the model, called by hand; only the count of crashes needs Ray."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
import ray
import torch

from pipelines.errors import Failure
from pipelines.inference.actor import MAX_CRASHES, PredictStage
from pipelines.inference.answers import Answer
from pipelines.inference.crash_counter import CrashCounter
from pipelines.inference.messages import AnswersHeader, decode, decode_answers, encode, encode_frames
from pipelines.inference.model_frames import model_frames
from pipelines.inference.predictor_spec import PredictorSpec, checkpoint_sha256
from pipelines.inference.protocols import inference_protocol
from prepared_data import SENTENCES, a_record, tiny_checkpoint
from sgmg.config import SgMgConfig
from sgmg.tokenizer import Tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_local")]

PROTOCOL = inference_protocol("own", short_side=130)


@dataclass(frozen=True)
class Planned:
    video: str


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
        protocol=PROTOCOL,
        precision="float32",
        model=SgMgConfig.preset("tiny"),
        threads=torch.get_num_threads(),
        gpu=False,
    )
    return PredictStage(spec, crash_counter)


def run(predict: PredictStage, message: pa.Table) -> tuple[AnswersHeader, list[list[Answer]]]:
    (done,) = predict(message)
    header, payload = decode(done, 0, AnswersHeader)
    assert header is not None
    return header, decode_answers(payload)


def test_a_sentence_that_cannot_be_asked_costs_only_itself(predict: PredictStage) -> None:
    frames = [
        model_frames(record, PROTOCOL) for record in (a_record("dog"), a_record("cat", sentences=("the ball", " ")))
    ]
    header, answers = run(predict, encode_frames("u", frames, [Failure("cow", "decode", "no image")], context=["c"]))
    assert [(one.video, one.stage) for one in header.failures] == [("cow", "decode")]
    assert {index: [(one.video, one.stage) for one in some] for index, some in header.failed.items()} == {
        1: [("cat", "predict")]
    }
    assert (header.unit, [len(some) for some in answers], msgspec.json.decode(header.context)) == ("u", [3, 1], ["c"])
    assert header.frames == sum(len(one.record.frame_names) for one in frames)
    assert header.records == tuple(one.record for one in frames)
    assert header.fingerprint == predict.predictor.fingerprint
    assert [answer.number for answer in answers[0]] == [0, 1, 2]


def test_a_unit_that_crashes_its_predictors_is_skipped(predict: PredictStage, crash_counter: Any) -> None:
    message = encode_frames("u", [model_frames(a_record("dog"), PROTOCOL)])
    for _ in range(MAX_CRASHES - 1):
        ray.get(crash_counter.start.remote("u"))
    header, _ = run(predict, message)
    assert (header.failed, header.crashes) == ({}, MAX_CRASHES - 1)

    for _ in range(MAX_CRASHES):
        ray.get(crash_counter.start.remote("u"))
    header, answers = run(predict, message)
    (failure,) = header.failed[0]
    assert (failure.video, failure.stage) == ("dog", "predict")
    assert f"{MAX_CRASHES} predictors crashed on it" in failure.reason
    assert answers == [[]]


def test_scores_that_are_no_numbers_cost_only_their_unit(predict: PredictStage) -> None:
    head = predict.predictor.model.class_heads[-1]
    assert isinstance(head, torch.nn.Linear)
    torch.nn.init.constant_(head.bias, math.nan)
    header, answers = run(predict, encode_frames("u", [model_frames(a_record("dog"), PROTOCOL)]))
    (failure,) = header.failed[0]
    assert "scores are not finite" in failure.reason
    assert answers == [[]]


def test_news_alone_load_no_model(predict: PredictStage) -> None:
    header, answers = run(predict, encode_frames("u", [], [Failure("cow", "decode", "no image")], context=["c"]))
    assert (header.records, header.frames, answers) == ((), 0, [])
    assert [one.video for one in header.failures] == ["cow"]
    assert "predictor" not in vars(predict)


def test_other_messages_pass_through_and_load_no_model(predict: PredictStage) -> None:
    (message,) = predict(encode(Planned("ü"), b"data"))
    header, payload = decode(message, 0, Planned)
    assert (header, bytes(payload)) == (Planned("ü"), b"data")
    assert "predictor" not in vars(predict)
