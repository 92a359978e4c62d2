"""What predictions are made by."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pipelines.inference.predictor_spec import PredictorSpec, checkpoint_sha256
from pipelines.inference.protocols import inference_protocol
from prepared_data import SENTENCES, a_record, tiny_checkpoint
from sgmg.checkpoints import AVERAGED, MODEL, TRAINING
from sgmg.config import SgMgConfig
from sgmg.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


def recipe_of(path: Path, find: Callable[[], Path] | None = None) -> PredictorSpec:
    return PredictorSpec(
        checkpoint=find or partial(Path, path),
        checkpoint_sha256=checkpoint_sha256(path),
        tokenizer=Tokenizer.train(SENTENCES).to_json(),
        protocol=inference_protocol("own", short_side=130),
        precision="float32",
        model=SgMgConfig.preset("tiny"),
        threads=1,
        gpu=False,
    )


def test_it_makes_a_predictor_whose_rows_name_it(checkpoint: Path) -> None:
    recipe = recipe_of(checkpoint)
    found = recipe.predictor().predict(a_record("dog", t=1))
    assert {one.fingerprint for one in found} == {recipe.fingerprint()}


def test_another_setting_is_another_fingerprint(checkpoint: Path) -> None:
    recipe = recipe_of(checkpoint)
    others = [
        replace(recipe, checkpoint_sha256="0"),
        replace(recipe, tokenizer=Tokenizer.train(["another sentence"]).to_json()),
        replace(recipe, protocol=inference_protocol("own", short_side=131)),
        replace(recipe, precision="bfloat16"),
        replace(recipe, threads=2),
    ]
    assert len({one.fingerprint() for one in (recipe, *others)}) == 6


def test_who_is_asked_together_counts_for_a_model_that_is_asked_together(checkpoint: Path) -> None:
    single = recipe_of(checkpoint)
    assert "sentences_together" not in single.provenance()
    multi = replace(single, model=replace(single.model, multi_object=True), sentences_together=8)
    assert multi.provenance()["sentences_together"] == 8
    assert replace(multi, sentences_together=4).fingerprint() != multi.fingerprint()


def test_where_it_runs_does_not_matter(checkpoint: Path) -> None:
    recipe = recipe_of(checkpoint)
    assert replace(recipe, checkpoint=partial(Path, "elsewhere")).fingerprint() == recipe.fingerprint()


def test_the_state_of_the_training_is_no_part_of_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    copy = tiny_checkpoint(tmp_path / "copy")
    before = checkpoint_sha256(copy)
    (copy / TRAINING).write_bytes(b"state")
    assert checkpoint_sha256(copy) == before == checkpoint_sha256(checkpoint)
    other = tiny_checkpoint(tmp_path / "other", seed=1)
    assert checkpoint_sha256(other) != before
    shutil.copy(other / MODEL, copy / AVERAGED)
    assert checkpoint_sha256(copy) == before, "nor is the average of its weights"
    assert checkpoint_sha256(copy / AVERAGED) not in (before, checkpoint_sha256(other))


def test_another_checkpoint_on_a_node_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    other = tiny_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="same checkpoint on every node"):
        recipe_of(checkpoint, partial(Path, other)).predictor()
    with pytest.raises(FileNotFoundError, match="not on this machine"):
        recipe_of(checkpoint, partial(Path, tmp_path / "nowhere")).predictor()
