"""Validation during training: its sets, the figure that checkpoints are compared by, and its ranks, who agree."""

import json
import logging
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from labelled_data import cut_short, labelled, spoiled
from patience import PATIENCE
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.manifest import MANIFEST, read_manifest
from pipelines.records import Record
from pipelines.training.config import TrainConfig
from pipelines.training.recipes import FINETUNE
from pipelines.training.validation import Validation, ValidationResult, read_scores, validation_of, write_score
from pipelines.training.validation_set import SetResult
from prepared_data import SENTENCES, a_record, prepared_folder, tiny_model
from sgmg.model import SgMg
from sgmg.tokenizer import Tokenizer

ONE = ValidationResult((SetResult("own-val", 1, "J_and_F", {"J_and_F": 0.5, "J": 0.4}, {"worst-01-a": b"png"}),))
TWO = ValidationResult((*ONE.sets, SetResult("refcoco-val", 0, "overall_iou", {"mAP": 0.1, "overall_iou": 0.25}, {})))
LOST = ValidationResult((*ONE.sets, SetResult("refcoco-val", 3, no_score="the truth of 3 of 4 videos is lost (…)")))


def config_of(*folders: Path) -> TrainConfig:
    return replace(FINETUNE["tiny"], data=("d",), valid=tuple(map(str, folders)), valid_short_side=64)


def validation(*folders: Path) -> Validation:
    found = validation_of(config_of(*folders))
    assert found is not None
    return found


def scored(one: Validation, model: SgMg | None = None, rank: int = 0, world: int = 1) -> ValidationResult | None:
    tokenizer = Tokenizer.train(SENTENCES)
    return one.score(model or tiny_model(), tokenizer, torch.device("cpu"), "float32", rank, world)


def test_folders_of_one_dataset_and_split_are_one_set_and_others_are_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = prepared_folder(tmp_path / "first", [labelled("a"), labelled("b", 3)])
    second = prepared_folder(tmp_path / "second", [labelled("c")])
    (together,) = validation(first, second).sets
    assert (together.name, together.dataset) == ("own-val", "own")
    assert [(ref.video, ref.work) for ref in together.rows] == [("a", 1), ("b", 3), ("c", 1)]
    assert not caplog.text
    other = prepared_folder(tmp_path / "other", [labelled("c", split="test")])
    images = prepared_folder(tmp_path / "images", [labelled("d", dataset="refcoco+")])
    sets = validation(first, other, images, second).sets
    assert [one.name for one in sets] == ["own-val", "own-test", "refcoco_plus-val"]
    assert [len(one.rows) for one in sets] == [3, 1, 1]
    assert (
        "the best checkpoint is the one with the highest mean of the main figures of own-val (3 videos), own-test "
        "(1 videos), refcoco_plus-val (1 videos)" in caplog.text
    )


def drawn(folder: Path) -> Path:
    """The folder, whose manifest says that its data were drawn."""
    manifest = replace(read_manifest(Folder(str(folder))), synthetic=True)
    (folder / MANIFEST).write_text(manifest.to_json())
    return folder


def test_drawn_data_are_a_set_of_their_own_that_is_not_called_like_the_dataset_of_their_layout(tmp_path: Path) -> None:
    first, second, third = (
        prepared_folder(tmp_path / name, [labelled(name, dataset="ref-youtube-vos", split="valid")])
        for name in ("first", "second", "third")
    )
    sets = validation(drawn(first), second, drawn(third)).sets
    assert [(one.name, one.dataset) for one in sets] == [
        ("synthetic-ref-youtube-vos-valid", "ref-youtube-vos"),
        ("ref-youtube-vos-valid", "ref-youtube-vos"),
    ]
    assert [[ref.video for ref in one.rows] for one in sets] == [["first", "third"], ["second"]]
    alone = validation(second)
    assert alone.scored_on.startswith("ref-youtube-vos-valid (1 videos, ")
    assert alone.scored_on != validation(drawn(second)).scored_on


def test_a_set_without_truth_is_refused_though_another_has_some(tmp_path: Path) -> None:
    good = prepared_folder(tmp_path / "good", [labelled("a")])
    withheld = prepared_folder(tmp_path / "withheld", [a_record("a", dataset="ref-youtube-vos")])
    with pytest.raises(JobError, match=f"{withheld}: no video has a truth to score by"):
        validation(good, withheld)
    unknown = prepared_folder(tmp_path / "unknown", [labelled("a", dataset="synthetic")])
    with pytest.raises(ValueError, match="There are no scores for dataset 'synthetic'"):
        validation(good, unknown)
    assert validation_of(config_of()) is None


def test_one_set_has_plain_names_and_several_have_their_own() -> None:
    assert ONE.metrics == {"valid/J_and_F": 0.5, "valid/J": 0.4, "valid/videos_lost": 1.0}
    assert ONE.pictures(3) == {"valid/step_00000003/worst-01-a.png": b"png"}
    assert (ONE.score, ONE.text) == (0.5, "J_and_F 0.5000")
    assert TWO.metrics == {
        "valid/own-val/J_and_F": 0.5,
        "valid/own-val/J": 0.4,
        "valid/own-val/videos_lost": 1.0,
        "valid/refcoco-val/mAP": 0.1,
        "valid/refcoco-val/overall_iou": 0.25,
        "valid/refcoco-val/videos_lost": 0.0,
        "valid/mean": 0.375,
    }
    assert TWO.pictures(3) == {"valid/own-val/step_00000003/worst-01-a.png": b"png"}
    assert TWO.score == 0.375
    assert TWO.text == "0.3750, the mean of own-val J_and_F 0.5000, refcoco-val overall_iou 0.2500"


def test_a_set_without_a_score_leaves_none_for_checkpoints_and_the_figures_of_the_others() -> None:
    assert LOST.score is None
    assert LOST.text == "refcoco-val: the truth of 3 of 4 videos is lost (…)"
    assert LOST.metrics == {
        "valid/own-val/J_and_F": 0.5,
        "valid/own-val/J": 0.4,
        "valid/own-val/videos_lost": 1.0,
        "valid/refcoco-val/videos_lost": 3.0,
    }


def test_scores_of_every_step_are_read_again_but_for_those_on_something_else(tmp_path: Path) -> None:
    run = Folder(str(tmp_path))
    assert read_scores(run, "these") == {}
    for step, result, scored_on in ((4, ONE, "these"), (8, TWO, "these"), (10, ONE, "others"), (12, LOST, "these")):
        write_score(run, step, result, scored_on)
    assert read_scores(run, "these") == {4: 0.5, 8: 0.375, 12: None}
    assert read_scores(run, "others") == {10: 0.5}
    kept = json.loads(run.read("scores/step_00000012.json"))["sets"]
    assert kept["own-val"] == {"main": "J_and_F", "figures": {"J_and_F": 0.5, "J": 0.4}, "videos_lost": 1}
    assert kept["refcoco-val"]["no_score"] == "the truth of 3 of 4 videos is lost (…)"


def test_what_a_run_is_scored_on_tells_videos_and_sizes_apart(tmp_path: Path) -> None:
    images, videos = two_sets(tmp_path)
    one = validation(images, videos)
    assert "short side 64" in one.scored_on
    assert one.scored_on == validation(images, videos).scored_on
    others = [validation(images), validation(videos), replace(one, short_side=96)]
    fewer = replace(one.sets[0], rows=one.sets[0].rows[1:])
    others.append(replace(one, sets=(fewer, *one.sets[1:])))
    assert len({one.scored_on, *(other.scored_on for other in others)}) == 5


def two_sets(folder: Path) -> tuple[Path, Path]:
    """Of videos, in groups of two, and of images; made once for both ranks."""
    videos: list[Record] = [labelled(name, t) for name, t in (("a", 1), ("b", 2), ("c", 1), ("d", 1))]
    images = [labelled(name, dataset="refcoco") for name in "efg"]
    return prepared_folder(folder / "videos", [*videos, spoiled(labelled("x"))]), prepared_folder(
        folder / "images", images, 3
    )


def test_two_ranks_come_to_what_one_comes_to_also_if_one_of_them_lost_its_truth(tmp_path: Path) -> None:
    videos, images = two_sets(tmp_path)
    alone = scored(validation(videos, images))
    assert alone is not None
    assert {name for name in alone.metrics if name.endswith(("J_and_F", "iou", "lost"))} == {
        "valid/own-val/J_and_F",
        "valid/own-val/videos_lost",
        "valid/refcoco-val/mean_iou",
        "valid/refcoco-val/overall_iou",
        "valid/refcoco-val/box_mean_iou",
        "valid/refcoco-val/box_overall_iou",
        "valid/refcoco-val/videos_lost",
    }
    assert alone.metrics["valid/own-val/videos_lost"] == 1
    assert {name.rsplit("/", 1)[0] for name in alone.pictures(1)} == {
        "valid/own-val/step_00000001",
        "valid/refcoco-val/step_00000001",
    }

    (tmp_path / "validation").write_bytes(pickle.dumps(validation(videos, images)))
    command = [sys.executable, __file__, str(tmp_path)]
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    other = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | paths
    )
    try:
        together, without_truth = scored_as_rank(0, tmp_path)
        output, _ = other.communicate(timeout=PATIENCE)
    finally:
        other.kill()
    assert other.returncode == 0, output
    assert together is not None
    assert together.metrics == pytest.approx(alone.metrics)
    assert together.pictures(1).keys() == alone.pictures(1).keys()
    assert without_truth is not None
    assert without_truth.score is None
    assert without_truth.metrics["valid/own-val/J_and_F"] == pytest.approx(alone.metrics["valid/own-val/J_and_F"])
    assert without_truth.text.startswith("refcoco-val: the truth of 3 of 3 videos is lost (3 x ")
    assert "valid/mean" not in without_truth.metrics


def scored_as_rank(rank: int, folder: Path) -> list[ValidationResult | None]:
    """What one of two processes has: with all truth, and then with a shard that was cut short."""
    one: Validation = pickle.loads((folder / "validation").read_bytes())
    wait = timedelta(seconds=PATIENCE)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", wait, world_size=2, rank=rank)
    try:
        found = [scored(one, rank=rank, world=2)]
        dist.barrier()
        if rank == 0:
            cut_short(folder / "images")
        dist.barrier()
        return [*found, scored(one, rank=rank, world=2)]
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":  # the other process of the test above
    torch.set_num_threads(1)
    assert scored_as_rank(1, Path(sys.argv[1])) == [None, None]
