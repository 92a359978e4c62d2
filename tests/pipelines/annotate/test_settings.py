"""Settings of annotation are checked, and tell what they decide."""

import pytest

from pipelines.annotate.settings import Settings


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"fps": 0.0}, "--fps must be above 0 .got 0.0"),
        ({"fps": float("nan")}, "--fps must be above 0 .got nan"),
        ({"window": 0, "overlap": 0}, "--window must be 1 or more .got 0"),
        ({"window": 4, "overlap": 4}, "--overlap .4. must be smaller than --window .4."),
        ({"causal": True, "independent": True, "overlap": 7}, "--causal and --independent-windows exclude each other"),
        ({"causal": True}, "--causal answers each frame from 7 frames before it.*got --overlap 4"),
        ({"causal": True, "window": 4, "overlap": 7}, "--window must be 8 or more with --causal .got 4"),
        ({"min_score": 1.5}, "--min-score must be between 0 and 1 .got 1.5"),
    ],
)
def test_numbers_out_of_range_are_said(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(**wrong)  # pyright: ignore[reportArgumentType]


def test_windows_choose_by_score_alone_if_independent_or_without_shared_frames() -> None:
    assert Settings().follows
    assert not Settings(independent=True).follows
    assert not Settings(overlap=0).follows


def test_a_strip_is_shrunk_and_a_common_video_is_not() -> None:
    protocol = Settings().protocol(360)
    assert (protocol.short_side, protocol.long_side) == (360, 1440)


def test_what_decides_the_result_is_told() -> None:
    assert Settings(fps=6).provenance() == {
        "fps": 6, "window": 36, "overlap": 4, "shots": False, "independent": False, "min_score": 0.3,
    }  # fmt: skip
    assert Settings(causal=True, overlap=7).provenance()["causal"]


def test_causal_frames_are_answered_from_those_before_with_all_queries() -> None:
    protocol = Settings(causal=True, overlap=7).protocol(360)
    assert (protocol.causal, protocol.context, protocol.keep, protocol.long_side) == (True, 8, "all", 1440)
