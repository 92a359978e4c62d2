"""Runs side by side: by sentence, by video, by attribute, and how sure a difference is."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.files import Folder
from pipelines.records import ObjectTrack
from pipelines.scoring.attributes import MOTION_WORDS, Attributes, attributes_of, groups_of
from pipelines.scoring.breakdown import groups, paired_interval
from pipelines.scoring.comparison import compare, table_of
from pipelines.scoring.comparison_page import PAGE, write_page
from pipelines.scoring.distributed import RunScores
from pipelines.scoring.rows import TrackRow, rows_table
from pipelines.scoring.truth import VideoTruth
from sgmg.masks import mask_to_rle

SIZE = (10, 20)


def row(video: str, expression: str, j: float, **attributes: object) -> TrackRow:
    about = replace(Attributes(words=3, area=0.05, visible=1.0, alike=0, motion=False), **attributes)  # pyright: ignore[reportArgumentType]
    names = ("own", "train", video, expression, f"text {expression}", "expression", 4)
    return TrackRow(*names, j, 1.0, 0.0, j, 1.0, 0.0, attributes=about)  # pyright: ignore[reportArgumentType]


def run(*rows: TrackRow) -> RunScores:
    return RunScores(rows, 0, ())


def rectangle(rows: int, columns: int) -> str:
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[:rows, :columns] = True
    return mask_to_rle(mask)


def test_attributes_are_those_of_the_target_in_the_frames_that_count() -> None:
    nothing = rectangle(0, 0)
    objects = {
        1: ObjectTrack(1, (rectangle(10, 2), rectangle(10, 6), nothing, None), category="dog"),
        2: ObjectTrack(2, (nothing, rectangle(1, 1), nothing, None), category="dog"),
        3: ObjectTrack(3, (rectangle(2, 2),) * 4, category="cat"),
        4: ObjectTrack(4, (nothing, nothing, nothing, rectangle(3, 3)), category="dog"),  # not where it is scored
    }
    truth = VideoTruth("own", "train", "v", SIZE, ("0", "1", "2", "3"), objects, ())
    found = attributes_of(truth, "the dog that's running away", (1,), [0, 1, 2])
    assert found == Attributes(words=5, area=(20 + 60) / 2 / 200, visible=2 / 3, alike=1, motion=True)
    assert attributes_of(truth, "it", (), [0, 1]) == Attributes(words=1, area=0.0, visible=0.0, alike=3, motion=False)


def test_words_of_motion_are_forms_of_verbs_and_not_of_places() -> None:
    assert {"running", "ran", "hurries", "swimming", "carrying", "turned", "away"} - MOTION_WORDS == {"carrying"}
    assert not {"left", "right", "standing", "wearing", "back", "white"} & MOTION_WORDS


@pytest.mark.parametrize(
    ("attributes", "attribute", "group"),
    [
        ({"words": 5}, "sentence", "up to 5 words"),
        ({"words": 6}, "sentence", "6 to 10 words"),
        ({"words": 11}, "sentence", "more than 10 words"),
        ({"area": 0.009}, "target", "small (under 1 % of the picture)"),
        ({"area": 0.05}, "target", "medium"),
        ({"area": 0.1}, "target", "large (from 10 % of the picture)"),
        ({"visible": 0.0, "area": 0.0}, "target", "none"),
        ({"visible": 0.5}, "presence", "in some frames"),
        ({"visible": 0.0}, "presence", "in no frame"),
        ({"alike": 1}, "look-alikes", "one"),
        ({"alike": 2}, "look-alikes", "several"),
        ({"motion": True}, "motion", "words of motion"),
    ],
)
def test_groups_have_names(attributes: dict[str, object], attribute: str, group: str) -> None:
    about = row("v", "0", 0, **attributes).attributes
    assert about is not None
    assert groups_of(about)[attribute] == group


def test_rows_are_grouped_by_attributes_that_differ() -> None:
    rows = [row("a", "0", 1.0), row("a", "1", 0.5, motion=True), row("b", "0", 0.0)]
    strict = replace(rows[0], protocol="strict-id")
    assert [(one.attribute, one.name, one.places) for one in groups([*rows, strict])] == [
        ("motion", "no word of motion", (0, 2)),
        ("motion", "words of motion", (1,)),
    ]
    assert rows_table(rows)["motion"].to_pylist() == [False, True, False]


def test_an_interval_draws_whole_videos() -> None:
    rng = np.random.default_rng(3)
    differences = rng.normal(0.1, 0.2, 40)
    low, high = paired_interval(differences.tolist(), [str(n) for n in range(40)])
    error = differences.std() / np.sqrt(40)
    assert low == pytest.approx(differences.mean() - 1.96 * error, abs=0.01)
    assert high == pytest.approx(differences.mean() + 1.96 * error, abs=0.01)
    # Ten sentences a video that all do alike say no more than one.
    tenfold = np.repeat(differences, 10).tolist()
    assert paired_interval(tenfold, [str(n // 10) for n in range(400)]) == pytest.approx((low, high))
    assert paired_interval(differences.tolist(), ["v"] * 40) == pytest.approx((differences.mean(),) * 2)
    with pytest.raises(ValueError, match="0 differences of 0 videos"):
        paired_interval([], [])


def test_runs_are_compared_row_by_row_in_any_order() -> None:
    first = [row("a", "0", 0.5), row("a", "1", 0.5, motion=True), row("b", "0", 0.5)]
    second = [row("b", "0", 0.9), row("a", "0", 0.5), row("a", "1", 0.2, motion=True)]
    found = compare({"old": run(*first), "new": run(*second)})
    assert found.names == ("old", "new")
    assert found.figure == "J&F"
    assert found.total.scores == pytest.approx((0.5, 1.6 / 3))
    assert found.total.differences == pytest.approx((0.1 / 3,))
    assert [(one.name, one.differences) for one in found.videos] == [
        ("a", pytest.approx((-0.15,))),
        ("b", pytest.approx((0.4,))),
    ]
    still, moving = found.by_attribute["motion"]
    assert (still.rows, still.differences) == (2, pytest.approx((0.2,)))
    assert moving.differences == pytest.approx((-0.3,))
    assert (found.total.videos, found.total.intervals) == (2, ()), "two videos are too few"
    assert [(one[0].video, one[0].expression) for one in found.disagreements(9)] == [("b", "0"), ("a", "1")]
    assert [line["new over old"] for line in table_of(found)] == pytest.approx([0.0, -0.3, 0.4])


def test_objects_of_davis_are_paired_by_the_truth_s_id() -> None:
    names = {"protocol": "unsupervised", "annotator": 0}
    first = [replace(row("a", id, j), **names, truth_id=n) for n, (id, j) in enumerate((("0", 0.1), ("4", 0.9)), 1)]
    second = [replace(row("a", id, j), **names, truth_id=n) for n, (id, j) in enumerate((("4", 0.2), ("0", 0.9)), 1)]
    assert compare({"x": run(*first), "y": run(*second)}).total.differences == pytest.approx((0.05,))


def test_runs_of_other_sentences_are_refused() -> None:
    with pytest.raises(ValueError, match=r"y and x have scores of different expressions; .* \('b', '0', ''\)"):
        compare({"x": run(row("a", "0", 1)), "y": run(row("a", "0", 1), row("b", "0", 1))})
    with pytest.raises(ValueError, match="There are 1 runs to compare"):
        compare({"x": run(row("a", "0", 1))})


def test_the_page_says_who_is_better_where_and_loads_nothing(tmp_path: Path) -> None:
    first = [row(str(n), "0", 0.5, motion=n % 2 == 0) for n in range(20)]
    second = [row(str(n), "0", 0.7, motion=n % 2 == 0) for n in range(20)]
    found = compare({"<old>": run(*first), "new": run(*second)})
    write_page(Folder(str(tmp_path)), found, "own & train", [("pictures/a b.png", first[0])])
    page = (tmp_path / PAGE).read_text()
    assert "&lt;old&gt; and new" in page
    assert "own &amp; train: mean J&amp;F of the sentences, in per cent." in page
    assert page.count('<td class="better">+20.0 <small>[+20.0, +20.0]') == 3
    assert '<img src="pictures/a b.png"' in page
    assert not re.search(r"<script|https?://", page)
    assert "<old>" not in page


def test_sentences_of_a_kind_that_its_benchmark_does_not_report_are_not_compared() -> None:
    kinds = ("referring", "reasoning", "reasoning", "other")

    def of(*scores: float) -> list[TrackRow]:
        return [
            replace(row(f"v{number}", "0", j), dataset="revos", kind=kind)
            for number, (kind, j) in enumerate(zip(kinds, scores, strict=True))
        ]

    first, second = of(1.0, 0.5, 0.25, 0.0), of(1.0, 0.5, 0.25, 1.0)
    found = compare({"x": run(*first), "y": run(*second)})
    assert found.mean == "mean J&F of the sentences"
    assert found.total.scores == pytest.approx((1.75 / 3, 1.75 / 3))
    assert [one.name for one in found.videos] == ["v0", "v1", "v2"]
    assert found.disagreements(9) == []
    assert found.notes == ("1 sentences left out: neither referring nor reasoning",)
    # The benchmark's is the mean of 1 and 0.375.
    assert [one["J&F"] for one in found.figures] == pytest.approx([0.6875, 0.6875])
    assert "J&F" not in compare({"x": run(*first[1:]), "y": run(*second[1:])}).figures[0]
    with pytest.raises(ValueError, match=r"1 sentences left out: .*\. There are no others to compare"):
        compare({"x": run(*first[3:]), "y": run(*second[3:])})


def test_what_was_scored_as_empty_or_not_at_all_is_said_of_each_run(tmp_path: Path) -> None:
    rows = (row("a", "0", 0.5),)
    runs = {
        "whole": RunScores(rows, 0, ()),
        "<half>": RunScores(rows, 0, ("video a", "video b"), ("c",)),
        "other": RunScores(rows, 3, ()),
    }
    found = compare(runs)
    assert found.notes == (
        "<half>: 2 missing, scored as empty; 1 videos predicted that the truth does not know",
        "other: 3 expressions without truth left out",
    )
    write_page(Folder(str(tmp_path)), found, "own train", [])
    page = (tmp_path / PAGE).read_text()
    assert "<p>&lt;half&gt;: 2 missing, scored as empty; 1 videos predicted that the truth does not know.</p>" in page
    assert "<p>other: 3 expressions without truth left out.</p>" in page
