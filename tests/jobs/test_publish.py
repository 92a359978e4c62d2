"""A trained model as a folder for the hub, its card written from notes, MLflow run and scores."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from jobs.publish import PublishConfig, main
from pipelines.errors import Exit, JobError
from pipelines.files import Folder
from pipelines.tracking.metric_log import MetricLog
from pipelines.tracking.mlflow_run import RunHandle, open_run
from sgmg.checkpoints import save
from sgmg.config import SgMgConfig
from sgmg.model import SgMg
from sgmg.segmenter import Segmenter
from sgmg.tokenizer import Tokenizer

# MLflow's tables use a loader that SQLAlchemy 2.1 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

WRITTEN = {"README.md", "config.json", "model.safetensors", "tokenizer.json"}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a run whose scores differ: of one set at steps 10 and 20, of three at step 30, none at step 40."""
    storage = tmp_path_factory.mktemp("storage")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run = open_run("finetune", "small", str(storage), {})
    save_steps(storage, run)
    with MetricLog(run, Folder(str(storage / "spool")), system_seconds=None) as log:
        log.log(10, {"valid/J_and_F": 0.25, "loss/total": 3.0})
        log.log(20, {"valid/J_and_F": 0.5, "valid/J": 0.4, "valid/videos_lost": 0.0, "loss/total": 2.0})
        log.log(30, {"valid/refcoco-val/mAP": 0.3, "valid/refcoco-val/videos_lost": 1.0, "valid/mean": 0.2})
        log.log(30, {"valid/own-val/J_and_F": 0.1, "valid/own-val/videos_lost": 0.0})
        log.log(30, {"valid/synthetic-own-val/J_and_F": 0.4, "valid/synthetic-own-val/videos_lost": 0.0})
    return storage


def save_steps(storage: Path, run: RunHandle) -> None:
    torch.manual_seed(0)
    model, tokenizer = SgMg(SgMgConfig.preset("tiny")), Tokenizer.train(["the red car", "the ball"])
    for step in (10, 20, 30, 40):
        notes = {"run": "small", "recipe": "tiny", "step": step, "data": ["own/train"], "mlflow_run": run.run_id}
        save(storage / f"step_{step}", model, tokenizer=tokenizer, training={"step": step}, notes=notes)


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def head_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])


def scores_of(folder: Path) -> dict[str, dict[str, float]]:
    (index,) = head_of(folder)["model-index"]
    found: dict[str, dict[str, float]] = {}
    for result in index["results"]:
        for metric in result["metrics"]:
            found.setdefault(result["dataset"]["name"], {})[metric["type"]] = metric["value"]
    return found


def test_the_folder_holds_the_model_and_what_its_training_scored_at_that_step(storage: Path, tmp_path: Path) -> None:
    config = PublishConfig(
        str(storage / "step_20"), str(tmp_path / "shared"), licence="cc-by-4.0", short_side=160, storage=str(storage)
    )
    assert main(config) is Exit.CLEAN
    assert {file.name for file in (tmp_path / "shared").iterdir()} == WRITTEN
    assert head_of(tmp_path / "shared")["license"] == "cc-by-4.0"
    assert scores_of(tmp_path / "shared") == {"videos held out of the training data": {"J": 0.4, "J&F": 0.5}}
    assert "recipe tiny, 20 optimiser steps" in (tmp_path / "shared" / "README.md").read_text()
    assert Segmenter.from_pretrained(tmp_path / "shared", device="cpu").short_side == 160


def test_scores_of_evaluate_join_those_of_training(storage: Path, tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    summary = {"dataset": "ref-davis17", "splits": ["valid"], "figures": {"J&F": 0.625}}
    (tmp_path / "scores" / "scores.json").write_text(json.dumps(summary))
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "scores.json").write_text(json.dumps({**summary, "synthetic": True}))
    scores = (str(tmp_path / "scores"), str(tmp_path / "drawn"))
    main(PublishConfig(str(storage / "step_10"), str(tmp_path / "shared"), scores=scores, storage=str(storage)))
    assert scores_of(tmp_path / "shared") == {
        "videos held out of the training data": {"J&F": 0.25},
        "ref-davis17/valid": {"J&F": 0.625},
        "synthetic (layout of ref-davis17)/valid": {"J&F": 0.625},
    }


def test_a_training_that_was_scored_on_several_sets_has_the_scores_of_each(storage: Path, tmp_path: Path) -> None:
    main(PublishConfig(str(storage / "step_30"), str(tmp_path / "shared"), storage=str(storage)))
    assert scores_of(tmp_path / "shared") == {
        "refcoco-val": {"mAP": 0.3},
        "own-val": {"J&F": 0.1},
        "synthetic-own-val": {"J&F": 0.4},
    }


def test_what_the_card_cannot_tell_is_said(storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(PublishConfig(str(storage / "step_40"), str(tmp_path / "shared"), storage=str(storage)))
    said = capsys.readouterr().out
    assert "--scores was not given" in said
    assert "--licence was not given" in said
    assert "It was not scored." in (tmp_path / "shared" / "README.md").read_text()


def test_an_mlflow_that_is_away_leaves_the_card_without_scores(
    storage: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    main(PublishConfig(str(storage / "step_20"), str(tmp_path / "shared"), storage=str(tmp_path / "elsewhere")))
    assert "has no scores of the training" in caplog.text
    assert (tmp_path / "shared" / "README.md").is_file()


def test_what_is_no_result_of_evaluate_is_said(storage: Path, tmp_path: Path) -> None:
    config = PublishConfig(
        str(storage / "step_20"), str(tmp_path / "out"), scores=(str(tmp_path),), storage=str(storage)
    )
    with pytest.raises(JobError, match=r"holds no scores\.json.*--out"):
        main(config)


def test_a_hub_that_is_away_leaves_the_folder(storage: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    config = PublishConfig(str(storage / "step_20"), str(out), push_to="somebody/found", storage=str(storage))
    with pytest.raises(JobError, match=r"did not accept 'somebody/found'.*hf auth login"):
        main(config)
    assert {file.name for file in out.iterdir()} == WRITTEN


def test_the_result_is_local(storage: Path) -> None:
    with pytest.raises(JobError, match="not a local folder"):
        main(PublishConfig(str(storage / "step_20"), "s3://bucket/model", storage=str(storage)))
