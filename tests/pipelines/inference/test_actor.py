"""The actor that holds the model, called by hand; only the count of attempts needs Ray."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from prepared_data import SENTENCES, a_record, tiny_checkpoint

from pipelines.inference.actor import MOST_DEATHS, Attempts, Predict
from pipelines.inference.model_frames import asked_frames
from pipelines.inference.predictor_spec import Recipe, checkpoint_sha256
from pipelines.inference.protocols import protocol_of
from pipelines.inference.quarantine import Failure
from pipelines.inference.unit_messages import decoded_parcel
from pipelines.predict.plan import Unit
from sgmg.tokenizer import Tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_local")]

UNIT = Unit("u", (0, 1), ("dog", "cat"))


@pytest.fixture
def attempts() -> Any:
    return ray.remote(num_cpus=0)(Attempts).remote()


@pytest.fixture
def predict(attempts: Any, tmp_path: Path) -> Predict:
    path = tiny_checkpoint(tmp_path / "checkpoint")
    recipe = Recipe(
        checkpoint=partial(Path, path),
        checkpoint_sha256=checkpoint_sha256(path),
        tokenizer=Tokenizer.train(SENTENCES).to_json(),
        protocol=protocol_of("own", short_side=130),
        precision="float32",
        compile=False,
        threads=torch.get_num_threads(),
        gpu=False,
    )
    return Predict(recipe, attempts)


def test_a_sentence_that_cannot_be_read_costs_only_its_video(predict: Predict) -> None:
    records = [a_record("dog"), a_record("cat", sentences=(" ",))]
    asked = [asked_frames(record, protocol_of("own", short_side=130)) for record in records]
    (found,) = predict(decoded_parcel(UNIT, asked, [Failure("cow", "decode", "no image")]))
    failures = found["failures"][0].as_py()
    assert '"cow"' in failures
    assert '"cat"' in failures
    assert '"expressions": 3' in found["count"][0].as_py()


def test_a_unit_that_kills_its_predictors_is_left_alone(predict: Predict, attempts: Any) -> None:
    parcel = decoded_parcel(UNIT, [asked_frames(a_record("dog"), protocol_of("own", short_side=130))], [])
    for _ in range(MOST_DEATHS - 1):
        ray.get(attempts.begin.remote("u"))
    (found,) = predict(parcel)
    assert found["failures"][0].as_py() == "[]"
    assert f'"died": {MOST_DEATHS - 1}' in found["count"][0].as_py()

    for _ in range(MOST_DEATHS):
        ray.get(attempts.begin.remote("u"))
    (found,) = predict(parcel)
    assert f"{MOST_DEATHS} predictors died of it" in found["failures"][0].as_py()
    assert '"expressions": 0' in found["count"][0].as_py()
