"""One set of validation data: what it scores, when it has no score, and the pictures of its cases."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from labelled_data import cut_short, labelled, spoiled
from pipelines.inference.predictor import Predictor
from pipelines.inference.protocols import inference_protocol
from pipelines.records import Record
from pipelines.scoring.rows import TrackRow
from pipelines.training.recipes import FINETUNE
from pipelines.training.validation import validation_of
from pipelines.training.validation_set import SetResult, ValidSet, result_of, score_rows
from prepared_data import SENTENCES, prepared_folder, tiny_model
from sgmg.masks import mask_to_rle
from sgmg.tokenizer import Tokenizer

SIDE = 64


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(tiny_model(), Tokenizer.train(SENTENCES), inference_protocol("own", SIDE), device="cpu")


def set_of(folder: Path) -> ValidSet:
    validation = validation_of(replace(FINETUNE["tiny"], data=("d",), valid=(str(folder),)))
    assert validation is not None
    return validation.sets[0]


def result(one: ValidSet, predictor: Predictor) -> SetResult:
    """Of two ranks, one after the other."""
    return result_of(one, [score_rows(one.rows[:1], predictor), score_rows(one.rows[1:], predictor)], predictor)


def test_a_set_has_the_figures_of_its_dataset_and_pictures_of_its_worst_and_best_cases(
    predictor: Predictor, tmp_path: Path
) -> None:
    records = [labelled("a", 2), labelled("b"), labelled("c")]
    found = result(set_of(prepared_folder(tmp_path / "own", records)), predictor)
    assert (found.name, found.main, found.videos_lost, found.no_score) == ("own-val", "J_and_F", 0, "")
    assert 0 <= found.figures["J_and_F"] <= 1
    assert set(found.pictures) == {f"{kind}-{video}-0" for kind, video in zip_names(found)}
    assert all(png.startswith(b"\x89PNG") for png in found.pictures.values())


def zip_names(found: SetResult) -> list[tuple[str, str]]:
    """Rank and video of each picture; every video has one, as there are three cases."""
    named = [name.rsplit("-", 2) for name in found.pictures]
    assert sorted(video for _, video, _ in named) == ["a", "b", "c"]
    assert sorted(kind for kind, _, _ in named) == ["best-01", "worst-01", "worst-02"]
    return [(kind, video) for kind, video, _ in named]


def test_a_video_without_an_answer_is_left_out_and_said(
    predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = prepared_folder(tmp_path / "own", [labelled("a"), spoiled(labelled("b"))])
    alone = prepared_folder(tmp_path / "alone", [labelled("a")])
    found = result(set_of(folder), predictor)
    assert found.figures == result(set_of(alone), predictor).figures
    assert found.videos_lost == 1
    assert "not scored: b: frame 00000: 8 bytes that begin with b'no image'" in caplog.text


def test_lost_truth_gives_no_score_and_says_how_much_is_lost_and_why(predictor: Predictor, tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path / "own", [labelled(name) for name in "abcde"], 2, 1)
    one = set_of(folder)
    damaged = cut_short(folder, 1)
    found = result(one, predictor)
    assert (found.figures, found.main, found.pictures, found.videos_lost) == ({}, "", {}, 2)
    assert found.no_score.startswith(f"the truth of 2 of 5 videos is lost (2 x {damaged}, row group 0 cannot be read: ")


def test_a_truth_that_does_not_fit_its_video_gives_no_score(predictor: Predictor, tmp_path: Path) -> None:
    small = replace(labelled("b"), original_height=80, original_width=112)
    found = result(set_of(prepared_folder(tmp_path / "own", [labelled("a"), small])), predictor)
    assert found.no_score.startswith("the truth of 1 of 2 videos is lost (1 x b: predictions are of height, width")


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([spoiled(labelled("a")), spoiled(labelled("b"))], "2 x frame 00000: 8 bytes that begin with b'no image'"),
        ([labelled("a", sentences=(" ",))], "1 x expression 0: The expression ' ' is empty"),
    ],
)
def test_videos_none_of_which_can_be_scored_give_no_score(
    predictor: Predictor, tmp_path: Path, records: list[Record], reason: str
) -> None:
    found = result(set_of(prepared_folder(tmp_path / "own", records)), predictor)
    assert (found.figures, found.videos_lost) == ({}, len(records))
    assert found.no_score.startswith(f"none of {len(records)} videos is scored ({reason}")


def test_a_model_that_gives_no_numbers_gives_no_score(tmp_path: Path) -> None:
    broken = tiny_model()
    with torch.no_grad():
        broken.query_positions.fill_(float("nan"))
    predictor = Predictor(broken, Tokenizer.train(SENTENCES), inference_protocol("own", SIDE), device="cpu")
    found = result(set_of(prepared_folder(tmp_path / "own", [labelled("a"), labelled("b")])), predictor)
    assert found.no_score.startswith("none of 2 videos is scored (2 x ")
    assert "not finite" in found.no_score


def test_many_reasons_are_counted_and_not_all_listed(predictor: Predictor, tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path / "own", [labelled(f"v{number}") for number in range(6)], 1, 1)
    one = set_of(folder)
    for file in folder.glob("*.parquet"):
        file.unlink()
    found = result(one, predictor)
    assert found.no_score.startswith("the truth of 6 of 6 videos is lost (1 x ")
    assert found.no_score.endswith("; and 3 other reasons)")


def test_a_case_that_cannot_be_drawn_costs_its_picture_alone(
    predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = prepared_folder(tmp_path / "own", [labelled(name) for name in "abc"], 1, 1)
    one = set_of(folder)
    parts = [score_rows(one.rows, predictor)]
    cut_short(folder, 2)  # since it was scored
    caplog.set_level(logging.WARNING)
    found = result_of(one, parts, predictor)
    assert found.figures
    assert len(found.pictures) == 2
    assert "no picture of c: " in caplog.text


def test_videos_of_one_name_in_two_folders_of_a_set_are_drawn_each_from_its_own(
    predictor: Predictor, tmp_path: Path
) -> None:
    other = replace(labelled("a", 2), frames=labelled("other", 2).frames)
    folders = [
        str(prepared_folder(tmp_path / name, [record])) for name, record in (("one", labelled("a")), ("two", other))
    ]
    validation = validation_of(replace(FINETUNE["tiny"], data=("d",), valid=tuple(folders)))
    assert validation is not None
    (one,) = validation.sets
    part = score_rows(one.rows, predictor)
    assert [(ref.folder.name, row.frames) for ref, row in part.rows if isinstance(row, TrackRow)] == [
        ("one", 1),
        ("two", 2),
    ]
    assert len(result_of(one, [part], predictor).pictures) == 2


def test_objects_without_pixels_still_count(predictor: Predictor, tmp_path: Path) -> None:
    nothing = labelled("a")
    empty = mask_to_rle(torch.zeros(40, 56, dtype=torch.bool).numpy())
    nothing = replace(nothing, objects=(replace(nothing.objects[0], rle=(empty,)),))
    found = result(set_of(prepared_folder(tmp_path / "own", [nothing])), predictor)
    assert not found.no_score
