"""What is said beside figures: whose data they are of, and whether the paper's may stand beside them."""

from dataclasses import replace

import pytest

from pipelines.scoring.attributes import Attributes
from pipelines.scoring.distributed import RunScores
from pipelines.scoring.paper import OFFICIAL, PAPER, SPLIT, is_official, summary_text, with_paper_figures
from pipelines.scoring.rows import TrackRow
from pipelines.scoring.summary import attribute_lines, summary_of, title_of


def rows_of(dataset: str, videos: int, sentences: int, split: str = "valid") -> tuple[TrackRow, ...]:
    names = [(f"v{number % videos}", str(number)) for number in range(sentences)]
    return tuple(
        TrackRow(dataset, split, video, id, "a", "expression", 9, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0) for video, id in names
    )


def test_the_paper_s_figures_stand_beside_those_of_its_whole_split_only() -> None:
    whole = rows_of("ref-youtube-vos", 202, 834)
    for rows, official in ((whole, True), (whole[1:], False), (rows_of("ref-youtube-vos", 202, 834, "train"), False)):
        summary = summary_of("ref-youtube-vos", RunScores(rows, 0, ()))
        assert summary["official"] is official
        assert summary["paper"] == ({"J&F": [0.62, 0.657]} if official else {})
        lines = with_paper_figures("ref-youtube-vos", summary["figures"], official=official)
        text = summary_text("title", "ref-youtube-vos", lines, official=official)
        assert ("65.7" in text) is official
        assert ("not of these data" in text) is not official


def test_scores_are_broken_down_by_what_is_asked() -> None:
    (row,) = rows_of("own", 1, 1)
    about = Attributes(words=3, area=0.05, visible=1.0, alike=0, motion=False)
    rows = [
        replace(row, expression=str(number), j=j, f=j, attributes=replace(about, motion=motion))
        for number, (j, motion) in enumerate(((1.0, False), (0.5, False), (0.25, True)))
    ]
    summary = summary_of("own", RunScores(tuple(rows), 0, ()))
    assert summary["by_attribute"] == {"motion": {"no word of motion": (0.75, 2), "words of motion": (0.25, 1)}}
    assert attribute_lines(summary) == ["by motion: no word of motion 75.0 (2); words of motion 25.0 (1)"]


def test_sentences_of_a_kind_that_its_benchmark_does_not_report_are_in_no_mean_of_an_attribute() -> None:
    (row,) = rows_of("revos", 1, 1)
    about = Attributes(words=3, area=0.05, visible=1.0, alike=0, motion=False)
    rows = tuple(
        replace(row, expression=str(number), kind=kind, j=j, f=j, attributes=replace(about, motion=motion))
        for number, (kind, j, motion) in enumerate(
            (("referring", 1.0, False), ("reasoning", 0.5, True), ("other", 0.0, False), ("other", 0.0, True))
        )
    )
    summary = summary_of("revos", RunScores(rows, 0, ()))
    assert summary["by_attribute"] == {"motion": {"no word of motion": (1.0, 1), "words of motion": (0.5, 1)}}
    assert summary["figures"]["J&F"] == 0.75
    one_kind = summary_of("revos", RunScores(rows[1:], 0, ()))
    assert one_kind["figures"] == {"J&F other": 0.0, "J&F reasoning": 0.5}


def test_the_title_counts_what_was_scored_as_empty_or_not_at_all() -> None:
    scores = RunScores(rows_of("own", 2, 3), 4, ("video a", "b, expression 1"), ("c",))
    assert title_of(summary_of("own", scores)) == (
        "own valid: 3 scores of 2 videos; 2 missing, scored as empty; 1 videos predicted that the truth does not know; "
        "4 expressions without truth left out"
    )


def test_drawn_data_are_never_called_like_the_dataset_of_their_layout() -> None:
    summary = summary_of("ref-youtube-vos", RunScores(rows_of("ref-youtube-vos", 202, 834), 0, (), synthetic=True))
    assert not summary["official"]
    assert title_of(summary).startswith("synthetic (layout of ref-youtube-vos) valid: 834 scores of 202 videos")


def test_objects_of_davis_count_once_for_each_annotator() -> None:
    (row,) = rows_of("ref-davis17", 1, 1)
    videos = [f"v{number}" for number in range(30)]
    objects = [(video, one) for video in videos for one in (1, 2)] + [("v0", 3)]
    rows = [
        replace(row, video=video, truth_id=one, annotator=who, protocol=protocol)
        for video, one in objects
        for who in range(4)
        for protocol in ("unsupervised", "strict-id")
    ]
    assert is_official("ref-davis17", ["valid"], rows)
    assert not is_official("ref-davis17", ["valid"], rows[8:])


@pytest.mark.parametrize("dataset", PAPER)
def test_every_dataset_of_the_paper_has_counts(dataset: str) -> None:
    assert dataset in OFFICIAL
    assert SPLIT.get(dataset, "val") in ("valid", "val", "test")
