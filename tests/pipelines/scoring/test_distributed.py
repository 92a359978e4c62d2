"""What a run says when predictions and truth do not fit together; all of it on real files."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.predictions import Prediction
from pipelines.scoring.distributed import check_same_data, score_parts, score_run
from pipelines.scoring.prediction_source import open_predictions
from pipelines.scoring.score import MissingPredictions
from pipelines.scoring.truth_parts import SentencesPart, read_truths, truth_parts


@pytest.fixture
def truth_folder(data_kit: Path) -> str:
    return str(data_kit / "refytvos_gt/valid")


@pytest.fixture
def known(truth_folder: str, perfect: Any) -> list[Prediction]:
    return [one for truth in read_truths(truth_folder) for one in perfect(truth)]


def problem(truth_folder: str, run: str) -> str:
    return score_parts(truth_parts(truth_folder), open_predictions(run)).problem


def test_all_that_is_missing_is_told(truth_folder: str, known: list[Prediction], written: Any) -> None:
    videos = sorted({one.video for one in known})
    kept = [one for one in known if one.video != videos[0] and (one.video, one.expression) != (videos[1], "1")]
    run = written(kept)
    scored = score_parts(truth_parts(truth_folder), open_predictions(run))
    assert scored.missing == (f"video {videos[0]}", f"video {videos[1]}, expression 1")
    assert not {row.video for row in scored.rows} & set(videos[:1])


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_a_run_with_something_missing_fails_or_counts_it_as_empty(
    truth_folder: str, known: list[Prediction], written: Any
) -> None:
    run = written([one for one in known if one.expression != "1"])
    parts, found = truth_parts(truth_folder), open_predictions(run)
    with pytest.raises(MissingPredictions, match="3 things"):
        score_run(parts, found)
    scores = score_run(parts, found, missing_as_empty=True)
    assert [row.figure for row in scores.rows] == [1.0, 0.0, 1.0] * 3
    assert len(scores.missing) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_rows_come_in_the_order_of_the_truth_and_strangers_are_told(
    truth_folder: str, known: list[Prediction], written: Any
) -> None:
    stranger = replace(known[0], video="stranger")
    scores = score_run(truth_parts(truth_folder), open_predictions(written([stranger, *reversed(known)])))
    assert [(row.video, row.expression) for row in scores.rows] == [(one.video, one.expression) for one in known]
    assert scores.extra_videos == ("stranger",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "mevis"}, "predictions are of mevis, the truth is of ref-youtube-vos"),
        ({"split": "train"}, "predictions are of split train, the truth is of valid"),
        ({"video": "elsewhere"}, "None of the 3 videos of the truth is predicted"),
    ],
)
def test_predictions_of_other_data_are_refused(
    truth_folder: str, known: list[Prediction], written: Any, change: dict[str, str], message: str
) -> None:
    run = written([replace(known[0], **change)])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=message):
        check_same_data(truth_parts(truth_folder), open_predictions(run))


def test_a_corrupt_file_is_named(truth_folder: str, known: list[Prediction], written: Any) -> None:
    run = written(known)
    file = sorted(Path(run, "predictions").iterdir())[1]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=file.name):
        open_predictions(run)
    file.write_bytes(whole)
    found = open_predictions(run)
    file.write_bytes(whole[:100] + b"\0" * 2000 + whole[2100:])  # the index is whole, masks are not
    told = score_parts(truth_parts(truth_folder), found).problem
    assert file.name in told
    assert "predict" in told


def test_a_truth_mask_of_another_size_is_named(
    truth_folder: str, known: list[Prediction], written: Any, tmp_path: Path
) -> None:
    run = written(known)
    broken = tmp_path / "valid"
    _copy(Path(truth_folder), broken)
    mask = sorted(broken.glob("Annotations/*/*.png"))[3]
    with Image.open(mask) as image:
        image.resize((30, 20), Image.Resampling.NEAREST).save(mask)
    told = problem(str(broken), run)
    assert str(mask) in told
    assert "(20, 30)" in told


def test_predictions_of_another_size_are_named(truth_folder: str, known: list[Prediction], written: Any) -> None:
    other = replace(known[0], width=known[0].width + 1)
    assert "Score by data prepared at the original size" in problem(truth_folder, written([other, *known[1:]]))


def test_a_list_without_objects_is_no_truth(truth_folder: str) -> None:
    (part, *_) = truth_parts(truth_folder)
    assert isinstance(part, SentencesPart)
    untold = {name: {"exp": one["exp"]} for name, one in part.listed["expressions"].items()}
    with pytest.raises(ValueError, match="obj_id"):
        replace(part, listed={**part.listed, "expressions": untold}).read()


def test_a_list_without_objects_is_told_before_it_is_read(
    truth_folder: str, tmp_path: Path, known: list[Prediction], written: Any
) -> None:
    _copy(Path(truth_folder), tmp_path / "valid")
    (listed,) = (tmp_path / "valid").glob("meta_expressions*.json")
    listed.write_text(listed.read_text().replace('"obj_id"', '"of"'))
    found = open_predictions(written(known))
    with pytest.raises(ValueError, match="The truth of ref-youtube-vos valid is not in these data"):
        check_same_data(truth_parts(str(tmp_path / "valid")), found)


def test_videos_without_masks_and_sentences_without_words_are_not_scored(
    truth_folder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _copy(Path(truth_folder), tmp_path / "valid")
    (listed,) = (tmp_path / "valid").glob("meta_expressions*.json")
    content = json.loads(listed.read_text())
    first, *_, last = sorted(content["videos"])
    shutil.rmtree(tmp_path / "valid/Annotations" / first)
    content["videos"][last]["expressions"]["0"]["exp"] = " "
    listed.write_text(json.dumps(content))
    truths = {one.video: one for one in read_truths(str(tmp_path / "valid"))}
    assert sorted(truths) == sorted(content["videos"])[1:]
    assert f"1 of {len(content['videos'])} videos of" in caplog.text
    assert first in caplog.text
    assert "0" not in [one.id for one in truths[last].labelled_expressions]


def test_data_that_are_published_without_truth_are_told_apart(
    prepare: Any, known: list[Prediction], written: Any
) -> None:
    parts = truth_parts(str(prepare("refytvos", "ref-youtube-vos", "valid")))
    with pytest.raises(ValueError, match="The truth of ref-youtube-vos valid is not in these data: it is published"):
        score_run(parts, open_predictions(written(known)))


def test_a_folder_of_something_else_is_no_truth(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json.*Annotations_unsupervised"):
        truth_parts(str(tmp_path))


@pytest.mark.parametrize("folder", ["refdavis", "refdavis_raw"])
def test_davis_folders_and_prepared_data_hold_the_same_truth(data_kit: Path, prepare: Any, folder: str) -> None:
    prepared = {one.video: one for one in read_truths(str(prepare(folder, "ref-davis17", "valid")))}
    raw = list(read_truths(str(data_kit / folder)))
    assert {one.video for one in raw} == set(prepared)
    for one in raw:
        assert one.objects.keys() == prepared[one.video].objects.keys()
        assert {n: track.rle for n, track in one.objects.items()} == {
            n: track.rle for n, track in prepared[one.video].objects.items()
        }
        assert _about(one.expressions) == _about(prepared[one.video].expressions)


def _about(expressions: Sequence[Any]) -> dict[str, tuple[Any, Any]]:
    return {one.id: (one.object_ids, one.annotator) for one in expressions}


def _copy(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file():
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
