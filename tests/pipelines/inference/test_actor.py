"""The actor that holds the model, called by hand; only the count of attempts needs Ray."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from pipelines.inference.actor import MAX_CRASHES, CrashCounter, Predict
from pipelines.inference.model_frames import model_frames
from pipelines.inference.predictor_spec import PredictorSpec, checkpoint_sha256
from pipelines.inference.protocols import inference_protocol
from pipelines.inference.quarantine import Failure
from pipelines.inference.unit_messages import decoded_parcel
from pipelines.predict.plan import Unit
from prepared_data import SENTENCES, a_record, tiny_checkpoint
from sgmg.tokenizer import Tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_local")]

UNIT = Unit("u", (0, 1), ("dog", "cat"))


@pytest.fixture
def attempts() -> Any:
    return ray.remote(num_cpus=0)(CrashCounter).remote()


@pytest.fixture
def predict(attempts: Any, tmp_path: Path) -> Predict:
    path = tiny_checkpoint(tmp_path / "checkpoint")
    recipe = PredictorSpec(
        checkpoint=partial(Path, path),
        checkpoint_sha256=checkpoint_sha256(path),
        tokenizer=Tokenizer.train(SENTENCES).to_json(),
        protocol=inference_protocol("own", short_side=130),
        precision="float32",
        compile=False,
        threads=torch.get_num_threads(),
        gpu=False,
    )
    return Predict(recipe, attempts)


def test_a_sentence_that_cannot_be_read_costs_only_its_video(predict: Predict) -> None:
    records = [a_record("dog"), a_record("cat", sentences=(" ",))]
    asked = [model_frames(record, inference_protocol("own", short_side=130)) for record in records]
    (found,) = predict(decoded_parcel(UNIT, asked, [Failure("cow", "decode", "no image")]))
    failures = found["failures"][0].as_py()
    assert '"cow"' in failures
    assert '"cat"' in failures
    assert '"expressions": 3' in found["count"][0].as_py()


def test_a_unit_that_kills_its_predictors_is_left_alone(predict: Predict, attempts: Any) -> None:
    parcel = decoded_parcel(UNIT, [model_frames(a_record("dog"), inference_protocol("own", short_side=130))], [])
    for _ in range(MAX_CRASHES - 1):
        ray.get(attempts.begin.remote("u"))
    (found,) = predict(parcel)
    assert found["failures"][0].as_py() == "[]"
    assert f'"died": {MAX_CRASHES - 1}' in found["count"][0].as_py()

    for _ in range(MAX_CRASHES):
        ray.get(attempts.begin.remote("u"))
    (found,) = predict(parcel)
    assert f"{MAX_CRASHES} predictors died of it" in found["failures"][0].as_py()
    assert '"expressions": 0' in found["count"][0].as_py()
