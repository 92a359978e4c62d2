"""Figures of MeViS v2, Long-RVOS, ReVOS, Ref-SAV and VOTS: worked out by hand on masks of a few pixels."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.predictions import Prediction, QueryTrack
from pipelines.records import Expression, ObjectTrack
from pipelines.scoring.score import TrackRow, figures, score_video
from pipelines.scoring.truth import VideoTruth
from pipelines.sources.vots import IGNORED
from sgmg.masks import mask_to_rle, rle_to_mask, rle_union

SIZE = (4, 8)
EMPTY = rle_union([], SIZE)
NAMES = ("0", "1", "2", "3")


def columns(first: int, end: int) -> str:
    """A mask of some whole columns."""
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[:, first:end] = True
    return mask_to_rle(mask)


def truth_of(dataset: str, *expressions: Expression, video: str = "v", **objects: tuple[str | None, ...]) -> VideoTruth:
    tracks = {int(name[1:]): ObjectTrack(int(name[1:]), rle) for name, rle in objects.items()}
    return VideoTruth(dataset, "valid", video, SIZE, NAMES, tracks, expressions)


def said(truth: VideoTruth, expression: str, rle: tuple[str, ...]) -> Prediction:
    t = len(rle)
    return Prediction(
        dataset=truth.dataset,
        split=truth.split,
        video=truth.video,
        expression=expression,
        text="",
        width=SIZE[1],
        height=SIZE[0],
        frame_names=truth.frame_names[:t],
        queries=(QueryTrack(rle, ((0.0, 0.0, 0.0, 0.0),) * t, (0.5,) * t),),
        score=0.5,
        fingerprint="",
        source="",
        source_fingerprint="",
    )


def test_sentences_with_and_without_target_are_told_apart() -> None:
    cat = (columns(0, 4),) * 4
    truth = truth_of(
        "mevis-v2",
        Expression("0", "the cat", (1,)),
        Expression("1", "no such thing", ()),
        Expression("2", "nor this", (2,)),
        Expression("3", "the cat again", (1,)),
        Expression("4", "a third", ()),
        o1=cat,
        o2=(EMPTY,) * 4,
    )
    found = {
        "0": cat,
        "1": (EMPTY,) * 4,
        "2": (EMPTY, EMPTY, EMPTY, columns(0, 1)),  # a pixel in one frame of an object that is never there
        "3": (EMPTY,) * 4,
        "4": (EMPTY,) * 4,
    }
    result = figures(score_video(truth, [said(truth, id, rle) for id, rle in found.items()]))
    assert result["N-acc"] == pytest.approx(2 / 3)
    assert result["T-acc"] == pytest.approx(1 / 2)
    # 1, 1, 3 of 4 frames right, 0, 1
    assert result["J&F"] == pytest.approx((1 + 1 + 0.75 + 0 + 1) / 5)
    assert result["Final"] == pytest.approx((0.75 + 2 / 3 + 1 / 2) / 3)
    assert result["J&F with target"] == pytest.approx(0.5)
    assert result["J&F without target"] == pytest.approx((1 + 0.75 + 1) / 3)


def test_without_a_sentence_of_one_kind_there_is_no_accuracy_of_it() -> None:
    truth = truth_of("mevis-v2", Expression("0", "the cat", (1,)), o1=(columns(0, 4),) * 4)
    assert "N-acc" not in figures(score_video(truth, [said(truth, "0", (columns(0, 4),) * 4)]))


def test_a_sentence_of_which_nothing_is_predicted_scores_0_though_its_target_is_not_there() -> None:
    truth = truth_of("mevis-v2", Expression("0", "a", ()), Expression("1", "b", (1,)), o1=(columns(0, 1),) * 4)
    missing, there = score_video(truth, [said(truth, "1", (columns(0, 1),) * 4)], missing_as_empty=True)
    assert (missing.figure, there.figure) == (0.0, 1.0)
    assert figures([missing, there])["N-acc"] == 0.0
    own = replace(truth, dataset="own")
    assert score_video(own, [said(own, "1", (columns(0, 1),) * 4)], missing_as_empty=True)[0].figure == 1.0


@pytest.mark.parametrize(
    ("dataset", "figures_of"),
    [
        # nothing, all but the first, all but the last, all frames predicted
        ("own", (1.0, 1.0, 1.0, 1.0)),
        ("ref-sav", (0.0, 1.0, 1.0, 1.0)),
        ("mevis", (0.0, 0.0, 1.0, 1.0)),
        ("long-rvos", (0.0, 0.0, 1.0, 1.0)),
        ("revos", (0.0, 0.0, 0.0, 1.0)),
    ],
)
def test_frames_without_which_a_sentence_scores_0(dataset: str, figures_of: tuple[float, ...]) -> None:
    truth = truth_of(dataset, Expression("0", "a", (1,)), o1=(EMPTY,) * 4)
    whole = said(truth, "0", (EMPTY,) * 4)
    later = replace(
        whole, frame_names=NAMES[1:], queries=(QueryTrack((EMPTY,) * 3, ((0.0, 0.0, 0.0, 0.0),) * 3, (0.5,) * 3),)
    )
    given = ([], [later], [said(truth, "0", (EMPTY,) * 3)], [whole])
    rows = [score_video(truth, predictions, missing_as_empty=True)[0] for predictions in given]
    assert tuple(row.figure for row in rows) == figures_of


def plain_j(found: np.ndarray, true: np.ndarray) -> float:
    """J by its definition, pixel by pixel."""
    a, b = ({(y, x) for y, x in np.argwhere(mask)} for mask in (found, true))
    return len(a & b) / len(a | b) if a | b else 1.0


def plain_f(found: np.ndarray, true: np.ndarray) -> float:
    """F by its definition: outlines that agree up to 0.8 % of the diagonal."""
    height, width = true.shape
    reach = np.ceil(0.008 * np.hypot(height, width))

    def outline_of(mask: np.ndarray) -> list[tuple[int, int]]:
        def differs(y: int, x: int) -> bool:
            below, right = min(y + 1, height - 1), min(x + 1, width - 1)
            return len({mask[y, x], mask[below, x], mask[y, right], mask[below, right]}) > 1

        return [(y, x) for y in range(height) for x in range(width) if differs(y, x)]

    def share(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        near = [any(np.hypot(y - v, x - u) <= reach for v, u in others) for y, x in some]
        return sum(near) / len(near)

    a, b = outline_of(found), outline_of(true)
    if not a or not b:
        return float(not a and not b)
    precision, recall = share(a, b), share(b, a)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("dataset", ["ref-youtube-vos", "mevis", "mevis-v2", "long-rvos", "revos", "ref-sav", "own"])
def test_every_sentence_has_the_j_and_f_of_their_definitions_where_objects_are_not_there(dataset: str) -> None:
    rng = np.random.default_rng(0)

    def blob() -> str:
        (y, x), mask = rng.integers(0, (3, 6)), np.zeros(SIZE, dtype=np.bool_)
        mask[y : y + 3, x : x + 4] = True
        return mask_to_rle(mask)

    shares = {1: 1.0, 2: 0.5, 3: 0.0}  # of the frames that show each object
    objects = {
        id: ObjectTrack(id, tuple(blob() if rng.random() < share else EMPTY for _ in NAMES))
        for id, share in shares.items()
    }
    asked = [(1,), (2,), (3,), (1, 2), (), (3,), ()]
    truth = truth_of(dataset, *(Expression(str(n), "a", ids) for n, ids in enumerate(asked)))
    truth = replace(truth, objects=objects)
    found = [tuple(blob() if rng.random() < 0.7 else EMPTY for _ in NAMES) for _ in asked[:5]] + [(EMPTY,) * 4] * 2
    rows = score_video(truth, [said(truth, str(n), rles) for n, rles in enumerate(found)])
    for expression, row, rles in zip(truth.expressions, rows, found, strict=True):
        assert isinstance(row, TrackRow)
        masks = [
            (rle_to_mask(rle, SIZE), rle_to_mask(truth.rle(expression, t) or EMPTY, SIZE)) for t, rle in enumerate(rles)
        ]
        assert row.j == pytest.approx(np.mean([plain_j(*both) for both in masks]), abs=1e-12)
        assert row.f == pytest.approx(np.mean([plain_f(*both) for both in masks]), abs=1e-12)
    assert [row.figure for row in rows[5:]] == [1.0, 1.0], "nothing is right where nothing is there"


def test_long_rvos_measures_when_an_object_is_there() -> None:
    truth = truth_of(
        "long-rvos",
        Expression("0", "a", (1,), kind="static"),
        Expression("1", "b", (2,), kind="dynamic"),
        o1=(columns(0, 4), columns(0, 4), EMPTY, EMPTY),
        o2=(EMPTY,) * 4,
    )
    half = columns(0, 2)
    rows = score_video(truth, [said(truth, "0", (half, EMPTY, half, EMPTY)), said(truth, "1", (EMPTY,) * 4)])
    first, second = rows
    assert isinstance(first, TrackRow)
    assert isinstance(second, TrackRow)
    # In frames 0, 1, 2 one of both shows something, in frame 0 both do, with J = 1/2 there; frame 3 is right.
    assert (first.t_iou, first.v_iou) == (pytest.approx(1 / 3), pytest.approx(0.5 / 3))
    assert first.j == pytest.approx((0.5 + 0 + 0 + 1) / 4)
    assert (second.t_iou, second.v_iou) == (1.0, 1.0)
    result = figures(rows)
    assert result["tIoU"] == pytest.approx((1 / 3 + 1) / 2)
    assert result["vIoU"] == pytest.approx((0.5 / 3 + 1) / 2)
    assert result["vIoU static"] == pytest.approx(0.5 / 3)
    assert result["tIoU dynamic"] == result["J&F dynamic"] == 1.0


def test_revos_is_the_mean_of_two_kinds_and_counts_false_pixels() -> None:
    truth = truth_of(
        "revos",
        Expression("0", "a", (1,), kind="referring"),
        Expression("1", "b", (1,), kind="referring"),
        Expression("2", "c", (2,), kind="reasoning"),
        Expression("3", "d", (), kind="other"),
        o1=(columns(0, 3),) * 4,
        o2=(columns(4, 6),) * 4,
    )
    right, other = (columns(0, 3),) * 4, (columns(4, 6),) * 4
    found = {"0": right, "1": (columns(0, 4),) * 4, "2": right, "3": other}
    rows = score_video(truth, [said(truth, id, rle) for id, rle in found.items()])
    # The video's objects have 12 + 8 = 20 pixels a frame; false are 0, 4, 12, 8.
    assert [row.robustness for row in rows if isinstance(row, TrackRow)] == pytest.approx([1, 0.8, 0.4, 0.6])
    result = figures(rows)
    assert [row.j for row in rows if isinstance(row, TrackRow)] == pytest.approx([1, 0.75, 0, 0])
    assert result["J"] == pytest.approx((0.875 + 0) / 2)
    assert result["robustness"] == pytest.approx((0.9 + 0.4) / 2)
    assert result["robustness other"] == pytest.approx(0.6)
    assert result["J&F reasoning"] == pytest.approx(rows[2].figure, abs=1e-4)


def test_each_score_of_ref_sav_is_rounded_before_the_mean() -> None:
    truth = truth_of(
        "ref-sav",
        Expression("0", "a", (1,), kind="long"),
        Expression("1", "b", (2,), kind="short"),
        o1=(columns(0, 3),) * 4,
        o2=(columns(0, 7),) * 4,
    )
    rows = score_video(truth, [said(truth, id, (columns(0, 1),) * 4) for id in ("0", "1")])
    assert figures(rows)["J"] == pytest.approx((0.3333 + 0.1429) / 2, abs=1e-12)
    (alone,) = figures(rows[:1]).items()
    assert alone == ("J&F long", figures(rows)["J&F long"])


def test_without_sentences_of_one_kind_there_are_only_figures_of_each_kind() -> None:
    referring, other = (Expression(id, "a", (1,), kind=kind) for id, kind in (("0", "referring"), ("1", "other")))
    truth = truth_of("revos", referring, other, o1=(columns(0, 4),) * 4)
    rows = score_video(truth, [said(truth, "0", (columns(0, 2),) * 4), said(truth, "1", (EMPTY,) * 4)])
    assert rows[0].figure > rows[1].figure == 0
    # False pixels are 0 of 4 x 4 in both.
    assert figures(rows) == {
        "J&F other": 0.0,
        "J&F referring": pytest.approx(rows[0].figure, abs=1e-4),
        "robustness other": 1.0,
        "robustness referring": 1.0,
    }
    own = [replace(row, dataset="own") for row in rows if isinstance(row, TrackRow)]
    assert figures(own)["J&F"] == pytest.approx(rows[0].figure / 2)


def test_vots_weighs_sequences_by_their_length_and_ignores_pixels() -> None:
    two = (Expression("0", "a", (1,)), Expression("1", "b", (1,)))
    first = truth_of("vots", *two, video="first", o1=(columns(0, 2), None, None, EMPTY))
    first = replace(
        first, objects={**first.objects, 2: ObjectTrack(2, (columns(2, 4), None, None, None), category=IGNORED)}
    )
    second = truth_of("vots", two[0], video="second", o1=(columns(0, 2),))
    second = replace(second, frame_names=NAMES[:1])
    rows = [
        *score_video(first, [said(first, id, (columns(0, 4), EMPTY, EMPTY, last)) for id, last in
                             (("0", EMPTY), ("1", columns(0, 1)))]),
        *score_video(second, [said(second, "0", (columns(0, 8),))]),
    ]  # fmt: skip
    # first: 1, 1 and 1, 0 over four frames; second: 1/4 over one.
    assert [row.j for row in rows if isinstance(row, TrackRow)] == pytest.approx([1, 0.5, 0.25])
    assert figures(rows)["quality"] == pytest.approx((0.75 * 4 + 0.25 * 1) / 5)
    assert next(iter(figures(rows))) == "quality"
