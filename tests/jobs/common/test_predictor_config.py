"""What jobs that run a checkpoint share."""

from functools import partial
from pathlib import Path

import pytest
from ray.exceptions import RayError

from jobs.common.predictor_config import PredictorConfig, actor_range
from jobs.common.predictors import predictor_spec, with_resources
from pipelines.annotate.settings import Settings
from pipelines.errors import root_cause
from pipelines.inference.stream import Resources
from prepared_data import SENTENCES, tiny_checkpoint
from sgmg.checkpoints import MODEL
from sgmg.tokenizer import Tokenizer

recipe_here = partial(predictor_spec, config=PredictorConfig())


def test_a_recipe_holds_the_checkpoint_and_its_tokenizer(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "checkpoint")
    protocol = Settings().protocol(130)
    recipe = recipe_here(str(path), str(tmp_path), protocol=protocol)
    assert recipe.checkpoint() == path
    assert recipe.precision == "float32"
    assert Tokenizer.from_json(recipe.tokenizer) == Tokenizer.train(SENTENCES)
    on_gpus = with_resources(recipe, PredictorConfig(precision="float16"), Resources((1, 2), 0.5, 0.5, 0.5))
    assert (on_gpus.gpu, on_gpus.precision) == (True, "float16")
    goes_on = with_resources(recipe, PredictorConfig(), Resources((1, 2), 0.5, 0.5, 0.5), begun_in="bfloat16")
    assert (goes_on.gpu, goes_on.precision) == (True, "bfloat16")


def test_a_damaged_checkpoint_is_said_before_anything_starts(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "checkpoint")
    (path / MODEL).write_bytes((path / MODEL).read_bytes()[:1000])
    with pytest.raises(ValueError, match=MODEL):
        recipe_here(str(path), str(tmp_path), protocol=Settings().protocol(130))


def test_a_range_of_predictors_is_read() -> None:
    assert [actor_range(text) for text in ("2:8", "3", "1:1")] == [(2, 8), (3, 3), (1, 1)]
    for wrong in ("0:2", "3:2", "two", ":2"):
        with pytest.raises(ValueError, match=f"--actors '{wrong}' is not MIN:MAX"):
            actor_range(wrong)


def test_an_error_of_a_worker_is_told_without_its_way() -> None:
    told = 'ray::Write() (pid=7)\n  File "a.py", line 3, in f\n    g()\nbuiltins.OSError: [Errno 28] No space left'
    assert root_cause(RayError(told)) == "OSError: [Errno 28] No space left"
    assert root_cause(RayError("the node died")) == "the node died"
