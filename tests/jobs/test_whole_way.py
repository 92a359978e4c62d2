"""The whole way through the real jobs on real data: prepare, learn, predict, hand in, score; every benchmark."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from jobs import finetune_a2d, finetune_ytvos, predict, prepare, pretrain_refcoco, submit
from jobs.evaluate import EvaluateConfig
from jobs.impl.evaluate import evaluate as scored_by
from jobs.predict import PredictConfig
from jobs.prepare import PrepareConfig
from jobs.submit import FormatName, SubmitConfig
from pipelines.errors import Exit
from pipelines.files import Folder
from pipelines.manifest import read_manifest
from pipelines.prediction_reader import read_predictions
from pipelines.training.config import TrainConfig
from pipelines.training.recipes import A2D, FINETUNE, PRETRAIN

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_local")]

SIDE = 130
"""Pixels of the shorter side: next to the fewest that the model takes."""
QUERIES = 5
"""That are kept of every expression and frame where COCO's results are asked for."""


@dataclass(frozen=True)
class Learning:
    """One way to learn: the job, its recipe, and a folder of the data kit."""

    main: Callable[[TrainConfig], Exit]
    recipe: TrainConfig
    dataset: str
    raw: str


@dataclass(frozen=True)
class Benchmark:
    """What is asked, by whom it was learned, and what is handed in; folders and files of the data kit."""

    dataset: str
    raw: str
    split: str
    learning: str
    form: FormatName
    file: str  # that is handed in
    truth: str = ""  # to score predictions by, where prepared data hold none or no void pixels
    file_truth: str = ""  # to score the file by; where it is not said, the same


LEARNING = {
    "videos": Learning(finetune_ytvos.main, FINETUNE["tiny"], "ref-youtube-vos", "refytvos"),
    "annotated frames": Learning(finetune_a2d.main, A2D["tiny"], "a2d-sentences", "a2d"),
    "images": Learning(pretrain_refcoco.main, PRETRAIN["tiny"], "refcoco", "refcoco"),
}
BENCHMARKS = (
    Benchmark("ref-youtube-vos", "refytvos", "valid", "videos", "ref-youtube-vos", "a.zip", "refytvos_gt/valid"),
    Benchmark("ref-davis17", "refdavis", "valid", "videos", "ref-davis17", "a.zip", "refdavis"),
    Benchmark(
        "a2d-sentences", "a2d", "test", "annotated frames", "coco", "a.json",
        file_truth="a2d/a2d_sentences_test_annotations_in_coco_format.json",
    ),
    Benchmark(
        "jhmdb-sentences", "jhmdb", "test", "annotated frames", "coco", "a.json",
        file_truth="jhmdb/jhmdb_sentences_gt_annotations_in_coco_format.json",
    ),
    Benchmark(
        "refcoco", "refcoco", "val", "images", "coco", "a.json",
        file_truth="refcoco/refcoco/instances_refcoco_val.json",
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def learned(data_kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The storage of a run of two steps, by what it learned from; benchmarks share them."""
    storages: dict[str, Path] = {}

    def learned(name: str) -> Path:
        if name not in storages:
            one, storages[name] = LEARNING[name], tmp_path_factory.mktemp("storage")
            data = storages[name] / "data"
            assert prepare.main(PrepareConfig(one.dataset, "train", str(data), str(data_kit / one.raw))) == Exit.CLEAN
            config = replace(
                one.recipe, data=(str(data),), storage=str(storages[name]), cpus_per_worker=0.5, cpus_per_decode=0.5,
                threads=1, short_sides=(96,), sentences_per_clip=1, global_batch=2, clips_per_pass=1, max_steps=2,
            )  # fmt: skip
            assert one.main(config) == Exit.CLEAN
        return storages[name]

    return learned


@pytest.mark.parametrize("asked", BENCHMARKS, ids=lambda asked: asked.dataset)
def test_raw_data_become_a_file_for_the_server_and_its_scores(
    asked: Benchmark, learned: Callable[[str], Path], data_kit: Path, tmp_path: Path
) -> None:
    storage = str(learned(asked.learning))
    raw, data, out, file = data_kit / asked.raw, tmp_path / "data", tmp_path / "out", tmp_path / asked.file
    assert prepare.main(PrepareConfig(asked.dataset, asked.split, str(data), str(raw))) == Exit.CLEAN
    config = PredictConfig(str(data), "models:/sgmg/1", str(out), storage, actors="1:1", short_side=SIDE)
    assert predict.main(config) == Exit.CLEAN
    predictions = read_predictions(Folder(str(out)))
    assert len(predictions.entries) == read_manifest(Folder(str(data))).counts["expressions"]

    assert submit.main(SubmitConfig(str(out), asked.form, str(file), meta=str(raw))) == Exit.CLEAN
    file_truth = data_kit / (asked.file_truth or asked.truth)
    assert_holds_exactly_what_is_asked_for(asked, file, raw, file_truth)

    truth = str(data_kit / asked.truth) if asked.truth else str(data)
    scored = scored_by(EvaluateConfig((truth,), str(tmp_path / "scores"), str(out)))
    assert scored["missing"] == scored["extra_videos"] == []
    assert 0 < scored["figures"]["J&F" if asked.truth else "mean_iou"] < 1
    config = EvaluateConfig((str(file_truth),), str(tmp_path / "again"), submission=str(file))
    again = scored_by(config)
    assert again["rows"] == scored["rows"]
    assert again["figures"] == scored["figures"]


def assert_holds_exactly_what_is_asked_for(asked: Benchmark, file: Path, raw: Path, file_truth: Path) -> None:
    """Nothing more and nothing less than the benchmark's own files list."""
    if asked.form == "coco":
        found = [result["image_id"] for result in json.loads(file.read_text())]
        images = [image["id"] for image in json.loads(file_truth.read_text())["images"]]
        assert sorted(found) == sorted(images * QUERIES)
        return
    videos = videos_of(raw, "valid")
    if asked.form == "ref-youtube-vos":
        of_test = videos_of(raw, "test")
        wanted = {
            f"Annotations/{video}/{expression}/{frame}.png"
            for video in videos.keys() - of_test.keys()
            for expression in videos[video]["expressions"]
            for frame in videos[video]["frames"]
        }
    else:
        wanted = {
            f"anno_{annotator}/{video}/{number:05d}.png"
            for annotator in range(4)
            for video in videos
            for number in range(len(videos[video]["frames"]))
        }
        assert any(number.endswith("/00072.png") for number in wanted)  # a video of three windows
    assert sorted(zipfile.ZipFile(file).namelist()) == sorted(wanted)


def videos_of(raw: Path, split: str) -> dict[str, Any]:
    """What the expression file of a split lists."""
    return json.loads((raw / "meta_expressions" / split / "meta_expressions.json").read_text())["videos"]
