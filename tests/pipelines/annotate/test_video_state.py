"""One video's state, from events that arrive in any order."""

from dataclasses import replace
from itertools import permutations

import pytest

from pipelines.annotate.events import Decoded, Event, Failed, Planned, WindowDone
from pipelines.annotate.join import JoinResult
from pipelines.annotate.layout import expression_group
from pipelines.annotate.video_state import VideoState
from pipelines.errors import Failure
from pipelines.records import Expression
from pipelines.video.listing import Video

VIDEO = Video("/v.mp4")
GROUP = expression_group(VIDEO.id, "file", "settings", (Expression("1", "the dog"),))
PLANNED = Planned(VIDEO.id, segments=2, groups=(GROUP,), kept=1, windows=(0,), fingerprint="file", seconds=2.0)
DECODED = [Decoded(VIDEO.id, 1, windows=(1, 2), emitted=(2,)), Decoded(VIDEO.id, 2, windows=(3,), emitted=(3,))]
WINDOWS = [WindowDone(VIDEO.id, 2), WindowDone(VIDEO.id, 3)]
FAILURE = Failure(VIDEO.path, "decode", "1 to 2 s: it took too long")


def state_after(*events: Event) -> VideoState:
    state = VideoState(VIDEO)
    for event in events:
        state.apply(event)
    return state


@pytest.mark.parametrize("order", [*permutations([PLANNED, *DECODED, *WINDOWS])][::7])
def test_a_video_ends_with_its_last_event_whichever_that_is(order: tuple[Event, ...]) -> None:
    state = state_after(*order[:-1])
    assert not state.ended
    state.apply(order[-1])
    assert state.ended
    (task,) = state.join_tasks()
    assert (task.group, task.windows, task.fingerprint, task.missing) == (GROUP, (0, 1, 2, 3), "file", "")
    assert (state.seconds, state.kept, state.failures) == (2.0, 1, [])


def test_what_was_all_done_before_ends_at_once_and_needs_no_join() -> None:
    state = state_after(Planned(VIDEO.id, segments=0, kept=3))
    assert state.ended
    assert state.join_tasks() == []


def test_windows_that_are_done_are_joined_without_more_events() -> None:
    (task,) = state_after(replace(PLANNED, segments=0, windows=(0, 1))).join_tasks()
    assert task.windows == (0, 1)


def test_a_video_that_cannot_be_planned_failed() -> None:
    state = state_after(Failed(VIDEO.id, Failure(VIDEO.path, "read", "the file is gone")))
    assert state.ended
    assert state.join_tasks() == []
    assert [(one.video, one.stage, one.reason) for one in state.failures] == [("/v.mp4", "read", "the file is gone")]


def test_a_segment_or_window_that_failed_is_missing_and_the_rest_is_joined() -> None:
    segment = replace(DECODED[0], windows=(1,), emitted=(), failure=FAILURE)
    window = replace(WINDOWS[1], failure=Failure(VIDEO.path, "predict", "3 s: out of memory"))
    state = state_after(PLANNED, segment, DECODED[1], window)
    assert state.ended
    (task,) = state.join_tasks()
    assert task.windows == (0, 1)
    assert task.missing == "1 to 2 s: it took too long; 3 s: out of memory"
    assert [one.stage for one in state.failures] == ["decode", "predict"]


def test_nothing_is_joined_where_nothing_could_be_had() -> None:
    planned = replace(PLANNED, segments=1, windows=())
    state = state_after(planned, replace(DECODED[0], windows=(), emitted=(), failure=FAILURE))
    assert state.ended
    assert state.join_tasks() == []
    assert len(state.failures) == 1


def test_an_event_that_arrives_twice_counts_once() -> None:
    failed = replace(DECODED[0], failure=FAILURE)
    state = state_after(PLANNED, failed, failed, WINDOWS[0], WINDOWS[0])
    assert not state.ended
    assert len(state.failures) == 1


def test_a_sentence_that_cannot_be_asked_is_no_hole_in_the_video() -> None:
    state = state_after(replace(PLANNED, segments=0, problems=("the expression '1' was 'a' and is now 'b'",)))
    (task,) = state.join_tasks()
    assert task.missing == ""
    assert [one.stage for one in state.failures] == ["list"]


def test_it_is_partial_as_soon_as_one_of_its_groups_is() -> None:
    state = state_after(PLANNED)
    for note in ("2 of its frames are damaged", ""):
        state.apply_join(JoinResult(frames=50, sentences=1, absent=0, note=note))
    assert (state.answered, state.partial, state.frames) == (True, True, 50)
