"""Which frames make a clip (spec data.md §3)."""

from collections import Counter

import numpy as np
import pytest

from pipelines.clips.sampling import anchors, clip_rng, draw_sentences, training_frames
from pipelines.inference.protocols import evaluation_window


def many_clips(anchor: int, frames: int, length: int, draws: int = 300) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(0)
    return [training_frames(anchor, frames, length, rng) for _ in range(draws)]


def test_a_sample_draws_the_same_wherever_it_is_drawn() -> None:
    def draw(seed: int, epoch: int, sample: str) -> float:
        return clip_rng(seed, epoch, sample).random()

    assert draw(1, 2, "a/0/5") == draw(1, 2, "a/0/5") == 0.9019724450966804
    assert len({draw(1, 2, "a/0/5"), draw(2, 2, "a/0/5"), draw(1, 3, "a/0/5"), draw(1, 2, "a/0/10")}) == 4


def test_anchors_stand_a_clip_apart() -> None:
    assert list(anchors(11, 5)) == [0, 5, 10]
    assert list(anchors(3, 1)) == [0, 1, 2]
    with pytest.raises(ValueError, match="0 frames"):
        anchors(0, 5)


def test_the_anchor_has_a_frame_on_either_side_one_to_three_away() -> None:
    clips = many_clips(10, 40, 3)
    assert {clip[1] for clip in clips} == {10}
    assert {(10 - first, last - 10) for first, _, last in clips} == {(r1, r2) for r1 in (1, 2, 3) for r2 in (1, 2, 3)}


@pytest.mark.parametrize(("anchor", "place"), [(0, 0), (39, 1)])
def test_at_the_edge_of_the_video_a_neighbour_coincides_with_the_anchor_and_both_are_kept(
    anchor: int, place: int
) -> None:
    for clip in many_clips(anchor, 40, 3):
        assert clip[place] == clip[place + 1] == anchor


def test_the_rest_comes_from_outside_of_the_first_three_the_largest_included() -> None:
    seen: set[int] = set()
    repeated = 0
    for clip in many_clips(10, 40, 8, draws=2000):
        assert len(clip) == 8
        assert list(clip) == sorted(clip)
        assert 10 in clip
        counts = Counter(clip)
        repeated += any(count > 1 for count in counts.values())
        # Only the largest of the first three can come twice, and it is 1 to 3 after the anchor.
        assert all(count == 1 or (count == 2 and 11 <= frame <= 13) for frame, count in counts.items())
        seen.update(clip)
    assert 0 < repeated < 2000
    assert seen == set(range(40))


def test_no_frame_between_the_first_three_is_drawn() -> None:
    # The anchor is 1, so 0 is in, and of 2, 3, 4 only the largest of the first three and those above it.
    for clip in many_clips(1, 12, 5):
        largest = next(frame for frame in clip if frame > 1)
        assert set(clip) - {0, 1} == set(range(largest, 12)) & set(clip)
        assert clip.count(0) == clip.count(1) == 1


def test_members_exactly_as_many_as_wanted_are_not_enough() -> None:
    # n = 2, anchor 0: first = 0, 0, 1; outside = {1}, m = 1. So one of all frames is drawn, not frame 1 always.
    assert set(many_clips(0, 2, 4)) == {(0, 0, 0, 1), (0, 0, 1, 1)}


def test_a_video_shorter_than_the_rest_is_taken_whole_and_some_of_it_again() -> None:
    # n = 2, anchor 0: first = 0, 0, 1; m = 3 > n: both once, and one more.
    assert set(many_clips(0, 2, 6)) == {(0, 0, 0, 0, 1, 1), (0, 0, 0, 1, 1, 1)}
    assert set(many_clips(0, 1, 5)) == {(0, 0, 0, 0, 0)}


def test_a_clip_of_many_times_the_video_repeats_all_of_it() -> None:
    counts = Counter(many_clips(1, 3, 36, draws=1)[0])
    assert sum(counts.values()) == 36
    assert set(counts) == {0, 1, 2}
    assert max(counts.values()) - min(counts.values()) <= 2


def test_a_clip_of_one_frame_is_the_anchor() -> None:
    assert set(many_clips(7, 9, 1)) == {(7,)}


def test_a_clip_of_two_frames_is_refused() -> None:
    with pytest.raises(ValueError, match=r"clip of 2 frames .* Take 1 frame, or 3"):
        training_frames(0, 9, 2, np.random.default_rng(0))


@pytest.mark.parametrize("anchor", [-1, 9])
def test_an_anchor_outside_of_the_video_is_refused(anchor: int) -> None:
    with pytest.raises(ValueError, match=f"Frame {anchor} is not in a video of 9 frames"):
        training_frames(anchor, 9, 5, np.random.default_rng(0))
    with pytest.raises(ValueError, match=f"Frame {anchor} is not in"):
        evaluation_window(anchor, 9, 5)


@pytest.mark.parametrize(
    ("anchor", "length", "clip", "place"),
    [
        pytest.param(4, 5, (2, 3, 4, 5, 6), 2, id="two before, two after"),
        pytest.param(4, 6, (1, 2, 3, 4, 5, 6), 3, id="an even length has one more before"),
        pytest.param(0, 5, (0, 0, 0, 1, 2), 0, id="the first frame stands at the first of its copies"),
        pytest.param(1, 5, (0, 0, 1, 2, 3), 2, id="clamped to the first frame"),
        pytest.param(8, 5, (6, 7, 8, 8, 8), 2, id="clamped to the last frame"),
        pytest.param(8, 1, (8,), 0, id="one frame"),
    ],
)
def test_the_window_round_an_annotated_frame(anchor: int, length: int, clip: tuple[int, ...], place: int) -> None:
    assert evaluation_window(anchor, 9, length) == (clip, place)


def test_a_clip_is_asked_between_one_and_the_most_sentences_and_often_one() -> None:
    rng = np.random.default_rng(0)
    drawn = Counter(draw_sentences(8, rng) for _ in range(4000))
    assert sorted(drawn) == list(range(1, 9))
    assert drawn[1] == pytest.approx(4000 * (1 / 4 + 3 / 32), rel=0.1)
    assert all(drawn[k] == pytest.approx(4000 * 3 / 32, rel=0.2) for k in range(2, 9))
    assert {draw_sentences(1, rng) for _ in range(20)} == {1}
