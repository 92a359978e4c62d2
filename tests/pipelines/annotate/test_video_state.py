"""One video's standing, from news that come in any order."""

from itertools import permutations
from typing import Any

import pytest

from pipelines.annotate.expressions_file import Expression
from pipelines.annotate.join import JoinResult
from pipelines.annotate.layout import batch_of
from pipelines.annotate.video_state import VideoState
from pipelines.video.listing import Video

VIDEO = Video("/v.mp4")
BATCH = batch_of(VIDEO.id, "file", "settings", (Expression("1", "the dog"),))
PLANNED = {
    "news": "planned", "segments": 2, "windows": [0], "batches": [BATCH.to_plain()], "fingerprint": "file",
    "seconds": 2.0, "kept": 1, "problems": [],
}  # fmt: skip
DECODED = [
    {"news": "decoded", "segment": 1, "windows": [1, 2], "asked": [2], "failure": {}},
    {"news": "decoded", "segment": 2, "windows": [3], "asked": [3], "failure": {}},
]
WINDOWS = [{"news": "window", "window": 2}, {"news": "window", "window": 3}]
FAILURE = {"stage": "decode", "reason": "1 to 2 s: it took too long"}


def heard(*news: dict[str, Any]) -> VideoState:
    standing = VideoState(VIDEO)
    for one in news:
        standing.apply(one)
    return standing


@pytest.mark.parametrize("order", [*permutations([PLANNED, *DECODED, *WINDOWS])][::7])
def test_a_video_ends_with_its_last_news_whichever_that_is(order: tuple[dict[str, Any], ...]) -> None:
    standing = heard(*order[:-1])
    assert not standing.ended
    standing.apply(order[-1])
    assert standing.ended
    (task,) = standing.tasks()
    assert (task.batch, task.windows, task.fingerprint, task.missing) == (BATCH, (0, 1, 2, 3), "file", "")
    assert (standing.seconds, standing.kept, standing.failures) == (2.0, 1, [])


def test_what_was_all_done_before_ends_at_once_and_needs_no_join() -> None:
    standing = heard({"news": "planned", "segments": 0, "batches": [], "kept": 3, "problems": []})
    assert standing.ended
    assert standing.tasks() == []


def test_windows_that_are_there_are_joined_without_more_news() -> None:
    (task,) = heard({**PLANNED, "segments": 0, "windows": [0, 1]}).tasks()
    assert task.windows == (0, 1)


def test_a_video_that_cannot_be_planned_failed() -> None:
    standing = heard({"news": "failed", "stage": "read", "reason": "the file is gone"})
    assert standing.ended
    assert standing.tasks() == []
    assert [(one.video, one.stage, one.reason) for one in standing.failures] == [("/v.mp4", "read", "the file is gone")]


def test_a_segment_or_window_that_failed_is_missing_and_the_rest_is_joined() -> None:
    segment = {**DECODED[0], "windows": [1], "asked": [], "failure": FAILURE}
    window = {**WINDOWS[1], "failure": {"stage": "predict", "reason": "3 s: out of memory"}}
    standing = heard(PLANNED, segment, DECODED[1], window)
    assert standing.ended
    (task,) = standing.tasks()
    assert task.windows == (0, 1)
    assert task.missing == "1 to 2 s: it took too long; 3 s: out of memory"
    assert [one.stage for one in standing.failures] == ["decode", "predict"]


def test_nothing_is_joined_where_nothing_could_be_had() -> None:
    lost = {"segments": 1, "windows": []}
    standing = heard({**PLANNED, **lost}, {**DECODED[0], "windows": [], "asked": [], "failure": FAILURE})
    assert standing.ended
    assert standing.tasks() == []
    assert len(standing.failures) == 1


def test_the_same_news_twice_are_the_same_once() -> None:
    failed = {**DECODED[0], "failure": FAILURE}
    standing = heard(PLANNED, failed, failed, WINDOWS[0], WINDOWS[0])
    assert not standing.ended
    assert len(standing.failures) == 1


def test_a_sentence_that_cannot_be_asked_is_no_hole_in_the_video() -> None:
    standing = heard({**PLANNED, "segments": 0, "problems": ["the expression '1' was 'a' and is now 'b'"]})
    (task,) = standing.tasks()
    assert task.missing == ""
    assert [one.stage for one in standing.failures] == ["list"]


def test_it_is_partial_as_soon_as_one_of_its_batches_is() -> None:
    standing = heard(PLANNED)
    for note in ("2 of its frames are damaged", ""):
        standing.joined(JoinResult(frames=50, sentences=1, absent=0, note=note))
    assert (standing.answered, standing.partial, standing.frames) == (True, True, 50)
