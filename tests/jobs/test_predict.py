"""jobs/predict.py: prepared data and a checkpoint in, Parquet of predictions out."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.common.cli import parse
from jobs.predict import PredictConfig, main
from pipelines.config_io import CONFIG, read_config
from pipelines.errors import Exit, JobError
from pipelines.files import Folder
from pipelines.inference.predictor import Predictor
from pipelines.inference.protocols import inference_protocol
from pipelines.ledger import PREDICTIONS
from pipelines.manifest import QUARANTINE
from pipelines.predict.summary import Progress
from pipelines.predict.write import UnitDone
from pipelines.prediction_reader import iter_predictions
from pipelines.records import Record
from prepared_data import SENTENCES, a_record, prepared_folder, tiny_checkpoint, tiny_model
from sgmg.tokenizer import Tokenizer

SIDE = 130
COMMAND = ["--data", "d", "--checkpoint", "c", "--out", "o"]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [a_record(f"video-{number}", t=2) for number in range(5)]


@pytest.fixture(scope="module")
def data(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_folder(tmp_path_factory.mktemp("data"), records)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


def config_of(data: Path, checkpoint: Path, out: Path, **settings: Any) -> PredictConfig:
    return PredictConfig(str(data), str(checkpoint), str(out), **{"short_side": SIDE, "actors": "1:1", **settings})


def files_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / PREDICTIONS).iterdir())}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local", "one_thread")
def test_a_run_predicts_every_sentence_and_the_next_one_has_nothing_to_do(
    records: list[Record], data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(data, checkpoint, tmp_path / "out", actors="1:2")
    assert main(config) == Exit.CLEAN
    assert "15 expressions of 5 videos predicted" in capsys.readouterr().out

    predictor = Predictor(tiny_model(), Tokenizer.train(SENTENCES), inference_protocol("own", SIDE), device="cpu")
    wanted = [prediction for record in records for prediction in predictor.predict(record)]
    found = list(iter_predictions(Folder(str(tmp_path / "out"))))
    assert [(one.video, one.text) for one in found] == [(one.video, one.text) for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.queries[0].rle == other.queries[0].rle
        assert one.score == np.float32(other.score)  # as Parquet keeps it

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / PREDICTIONS).iterdir()}
    assert main(config) == Exit.CLEAN
    assert "0 of 3 units of work to do, 3 are done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / PREDICTIONS).iterdir()} == before

    saved = read_config(PredictConfig, str(tmp_path / "out" / CONFIG))
    assert saved.made_by is not None
    assert {one.fingerprint for one in found} == {saved.made_by["fingerprint"]}
    assert replace(saved, made_by=None) == config
    with pytest.raises(JobError, match="precision was 'float32' and is now 'bfloat16'"):
        main(replace(config, precision="bfloat16"))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_broken_input_goes_to_quarantine_and_is_done_when_it_is_mended(
    records: list[Record], data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = shutil.copytree(data, tmp_path / "data")
    no_image = replace(records[1], frames=(records[1].frames[0], b"no image"))
    first, *others = records[2].expressions
    too_long = replace(records[2], expressions=(replace(first, text="the ball " * 300), *others))
    prepared_folder(broken, [records[0], no_image, too_long, *records[3:]])
    shutil.copy(data / "manifest.json", broken)
    last = max(broken.glob("*.parquet"))
    last.write_bytes(last.read_bytes()[:100])

    config = config_of(broken, checkpoint, tmp_path / "out")
    assert main(config) == Exit.QUARANTINE
    said = [json.loads(line) for line in (tmp_path / "out" / QUARANTINE).read_text().splitlines()]
    assert [(one["video"], one["stage"]) for one in said] == [
        ("video-1", "decode"),
        ("video-2", "predict"),
        ("video-4", "read"),
    ]
    assert "frame 00005" in said[0]["reason"]
    assert said[1]["reason"].startswith("expression 0: ")
    assert str(last) in said[2]["reason"]
    assert "in quarantine: 3" in capsys.readouterr().out
    answered = Counter(one.video for one in iter_predictions(Folder(str(tmp_path / "out"))))
    assert answered == {"video-0": 3, "video-2": 2, "video-3": 3}

    for shard in data.glob("*.parquet"):
        shutil.copy(shard, broken)
    assert main(replace(config, actors="2:2")) == Exit.CLEAN
    assert (tmp_path / "out" / QUARANTINE).read_text() == ""
    assert main(config_of(data, checkpoint, tmp_path / "whole")) == Exit.CLEAN
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_images_of_a_row_group_come_in_one_file(checkpoint: Path, tmp_path: Path) -> None:
    records = [a_record(f"image-{number}", t=1, dataset="refcoco") for number in range(5)]
    data = prepared_folder(tmp_path / "data", records, rows_per_group=3)
    assert main(config_of(data, checkpoint, tmp_path / "out")) == Exit.CLEAN
    assert len(files_of(tmp_path / "out")) == 2
    found = list(iter_predictions(Folder(str(tmp_path / "out"))))
    assert [len(one.queries) for one in found] == [5] * 15


def test_the_command_line_says_how_many_predictors() -> None:
    assert parse(PredictConfig, [*COMMAND, "--actors", "2:8"]).actors == "2:8"
    for wrong in ("0:2", "3:2", "two", ":2"):
        with pytest.raises(ValueError, match=f"--actors '{wrong}' is not MIN:MAX"):
            PredictConfig("d", "c", "o", actors=wrong)


def test_numbers_out_of_range_are_said() -> None:
    with pytest.raises(ValueError, match=r"--short-side must be 1 or more \(got 0\)"):
        PredictConfig("d", "c", "o", short_side=0)
    with pytest.raises(ValueError, match="--cpus-per-actor must be 0 or more"):
        PredictConfig("d", "c", "o", cpus_per_actor=-1)


def test_data_that_was_never_prepared_is_said(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"jobs/prepare\.py"):
        main(config_of(tmp_path / "nothing", checkpoint, tmp_path / "out"))


def test_progress_counts_speed_waiting_and_deaths() -> None:
    progress = Progress(units=2)
    assert "time left unknown" in str(progress)
    for crashes in (0, 1):
        progress.count(UnitDone("u", 0, videos=1, frames=10, expressions=3, crashes=crashes, waited=1.0, busy=3.0))
    assert str(progress).startswith("2/2 units, ")
    assert re.search(r"[1-9][0-9.]* sentences/s", str(progress))
    assert "waiting for data 25%, 0 in quarantine, 1 failed actors" in str(progress)


def test_units_that_failed_count_for_the_time_that_is_left() -> None:
    progress = Progress(units=4)
    progress.count(UnitDone("u", 1, videos=0, frames=0, expressions=0, crashes=0, waited=1.0, busy=3.0))
    assert re.search(r"1/4 units, .* \d+ s left", str(progress))
    for _ in range(3):
        progress.count(UnitDone("u", 0, videos=1, frames=99, expressions=3, crashes=0, waited=1.0, busy=3.0))
    assert ", 0 s left, " in str(progress)
