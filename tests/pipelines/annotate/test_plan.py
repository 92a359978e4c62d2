"""What is left to do of a video: all of it, what a killed run left, or a new expression alone."""

import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines.annotate.decode import DecodeStage, WindowContext
from pipelines.annotate.events import Decoded, Failed, Planned
from pipelines.annotate.join import JoinResult, Marker
from pipelines.annotate.layout import GROUP_FILE, ExpressionGroup, markers_of
from pipelines.annotate.plan import AnnotationRequest, PlanStage
from pipelines.annotate.settings import WINDOWS_EACH, Settings
from pipelines.files import Folder
from pipelines.inference.messages import (
    FramesHeader,
    SegmentHeader,
    decode,
    decode_frames,
    decode_segment,
    encode_item,
)
from pipelines.inference.model_frames import ModelFrames
from pipelines.records import Expression
from pipelines.video.listing import Video
from pipelines.video.segments import DecodeUnit

DOG, CAT, MAN = Expression("d", "the dog"), Expression("c", "the cat"), Expression("m", "a man")
SETTINGS = Settings(window=4, overlap=1)
FRAMES = 3 * (WINDOWS_EACH * 2 + 1) + 1
"""Two segments and a window."""

T = TypeVar("T")
Messages = list[pa.Table]


def images(count: int) -> list[np.ndarray]:
    base = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    return [np.roll(base, i, axis=1) for i in range(count)]


@pytest.fixture
def video(make_video: Callable[..., Path]) -> Video:
    return Video(str(make_video("clip.mp4", images(FRAMES))))


@pytest.fixture
def out(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "out"))


def plan(
    out: Folder, video: Video, *expressions: Expression, settings: Settings = SETTINGS, run: str | None = None
) -> Messages:
    request = AnnotationRequest(video, expressions, tuple(markers_of(out).get(video.id, ())))
    stage = PlanStage(out, settings, "settings", 100, run or uuid.uuid4().hex)
    return list(stage(pa.Table.from_pylist([encode_item(request)])))


def decode_all(out: Folder, messages: Messages, settings: Settings = SETTINGS) -> Messages:
    stage = DecodeStage(out, settings, settings.protocol(64), 100)
    return [decoded for message in messages for decoded in stage(message)]


def events(messages: Messages, event_type: type[T]) -> list[T]:
    headers = [decode(message, 0, event_type)[0] for message in messages]
    return [header for header in headers if header is not None]


def planned(messages: Messages) -> Planned:
    (event,) = events(messages[:1], Planned)
    return event


def segments(messages: Messages) -> list[DecodeUnit]:
    parts = [decode(message, 0, SegmentHeader) for message in messages]
    return [decode_segment(header, payload) for header, payload in parts if header is not None]


def windows(messages: Messages) -> list[tuple[WindowContext, ModelFrames]]:
    found = []
    for message in messages:
        header, payload = decode(message, 0, FramesHeader)
        if header is not None:
            (frames,) = decode_frames(header, payload)
            found.append((msgspec.json.decode(header.context, type=WindowContext), frames))
    return found


def window_numbers(messages: Messages) -> list[int]:
    return [context.window for context, _ in windows(messages)]


def texts(groups: Iterable[ExpressionGroup]) -> list[Sequence[Expression]]:
    return [group.expressions for group in groups]


def test_a_video_becomes_segments_that_hold_all_its_windows(out: Folder, video: Video) -> None:
    first, *rest = plan(out, video, DOG, CAT)
    event = planned([first])
    assert (event.segments, event.windows, event.kept) == (3, (), 0)
    assert event.video == video.id
    assert event.seconds == pytest.approx(FRAMES / 25)
    assert texts(event.groups) == [(CAT, DOG)]
    parts = segments(rest)
    assert len(parts) == len(rest)
    assert [(part.number, part.first_window, len(part.windows)) for part in parts] == [(0, 0, 8), (1, 8, 8), (2, 16, 1)]
    assert {int(index) for part in parts for index in part.indices} == set(range(FRAMES))


def test_windows_carry_what_predictions_need(out: Folder, video: Video) -> None:
    messages = decode_all(out, plan(out, video, DOG, CAT))
    assert window_numbers(messages) == list(range(17))
    _, first = windows(messages)[0]
    record = first.record
    assert (record.dataset, record.video, record.source) == ("videos", video.id, video.path)
    assert (record.width, record.height, record.fps) == (48, 32, 25)
    assert record.frame_names == ("00000", "00001", "00002", "00003")
    assert record.timestamps == pytest.approx([0, 0.04, 0.08, 0.12])
    assert {(one.id, one.text) for one in record.expressions} == {("d", "the dog"), ("c", "the cat")}
    assert first.frames.shape == (4, 64, 96, 3)


def test_the_event_of_a_segment_comes_behind_its_windows_and_is_kept(out: Folder, video: Video) -> None:
    messages = decode_all(out, plan(out, video, DOG))
    kinds = [message["kind"][0].as_py() for message in messages]
    assert kinds == [
        "Planned", *["FramesHeader"] * 8, "Decoded", *["FramesHeader"] * 8, "Decoded", "FramesHeader", "Decoded",
    ]  # fmt: skip
    decoded = events(messages, Decoded)
    assert [event.segment for event in decoded] == [0, 1, 2]
    assert decoded[1].windows == decoded[1].emitted == tuple(range(8, 16))
    (folder,) = out.names(f"windows/{video.id}")
    assert out.names(f"windows/{video.id}/{folder}") == [GROUP_FILE, *(f"segment-00000{n}.json" for n in range(3))]


def finish(out: Folder, messages: Messages, windows: set[int]) -> None:
    """Writes what the later stages would write for some windows."""
    for group in planned(messages).groups:
        for number in windows:
            out.write(group.window(number), b"")


def test_a_killed_run_goes_on_inside_a_video(out: Folder, video: Video) -> None:
    first = plan(out, video, DOG)
    decode_all(out, first)
    finish(out, first, {*range(8), 9})
    again = plan(out, video, DOG)
    assert planned(again).windows == tuple(range(8))
    assert [segment.number for segment in segments(again)] == [1, 2]
    messages = decode_all(out, again)
    assert window_numbers(messages) == [8, *range(10, 17)]
    event = events(messages, Decoded)[0]
    assert event.windows == tuple(range(8, 16))
    assert event.emitted == (8, *range(10, 16))


def test_a_plan_holds_for_all_of_a_run_whatever_is_done_by_then(out: Folder, video: Video) -> None:
    first = plan(out, video, DOG, run="run")
    decode_all(out, first)
    finish(out, first, set(range(17)))
    Path(video.path).unlink()
    assert pa.concat_tables(plan(out, video, DOG, run="run")).equals(pa.concat_tables(first))


def test_a_new_sentence_beside_an_unfinished_one_shares_the_decoding(out: Folder, video: Video) -> None:
    first = plan(out, video, DOG)
    decode_all(out, first)
    finish(out, first, set(range(16)))
    again = plan(out, video, DOG, CAT)
    assert texts(planned(again).groups) == [(DOG,), (CAT,)]
    both = windows(decode_all(out, again))
    assert [len(context.groups) for context, _ in both] == [1] * 16 + [2]
    assert {one.id for one in both[0][1].record.expressions} == {"c"}


def mark(out: Folder, event: Planned) -> None:
    """Finishes the groups of a plan."""
    for group in event.groups:
        stored = group.to_file()
        joined = JoinResult(FRAMES, len(group.expressions), 0, "")
        marker = Marker(stored.video, stored.name, stored.sentences, event.fingerprint, joined)
        out.write(group.marker, msgspec.json.encode(marker))
        out.write(group.result, b"")


def test_what_is_answered_is_not_asked_again(out: Folder, video: Video) -> None:
    mark(out, planned(plan(out, video, DOG)))
    (message,) = plan(out, video, DOG)
    assert planned([message]) == Planned(video.id, segments=0, kept=1)
    event = planned(plan(out, video, DOG, CAT))
    assert texts(event.groups) == [(CAT,)]
    assert event.kept == 1


def test_windows_that_a_killed_join_left_take_no_answer_along(out: Folder, video: Video) -> None:
    event = planned(plan(out, video, DOG))
    mark(out, event)
    (group,) = event.groups
    assert out.has(f"{group.folder}/{GROUP_FILE}")
    assert planned(plan(out, video, DOG, CAT)).kept == 1
    assert out.has(group.result)
    assert not out.has(f"{group.folder}/{GROUP_FILE}")


def test_a_result_that_somebody_deleted_is_made_again(out: Folder, video: Video) -> None:
    event = planned(plan(out, video, DOG))
    mark(out, event)
    (group,) = event.groups
    out.remove(group.result)
    again = planned(plan(out, video, DOG))
    assert (again.groups, again.kept) == (event.groups, 0)
    assert not out.has(group.marker)


def test_another_sentence_under_the_same_id_is_said_and_not_asked(out: Folder, video: Video) -> None:
    mark(out, planned(plan(out, video, DOG)))
    (message,) = plan(out, video, Expression("d", "the bird"))
    event = planned([message])
    assert event.groups == ()
    assert "'d' was 'the dog' and is now 'the bird'" in event.problems[0]


def test_a_video_that_changed_is_done_anew(out: Folder, video: Video, make_video: Callable[..., Path]) -> None:
    event = planned(plan(out, video, DOG))
    mark(out, event)
    make_video("clip.mp4", images(5))
    first, *rest = plan(out, video, DOG)
    again = planned([first])
    assert again.fingerprint != event.fingerprint
    assert len(rest) == again.segments == 1
    assert out.names("predictions") == []
    assert out.names("done") == []


def test_a_sentence_that_is_no_longer_asked_takes_its_windows_along(out: Folder, video: Video) -> None:
    first = plan(out, video, DOG, CAT)
    finish(out, first, {0})
    assert texts(planned(plan(out, video, MAN, DOG)).groups) == [(DOG, MAN)]
    assert len(out.names(f"windows/{video.id}")) == 1


def test_what_is_no_video_failed(out: Folder, tmp_path: Path) -> None:
    path = tmp_path / "poem.mp4"
    path.write_text("Whose woods these are I think I know")
    for video, stage in ((Video(str(path)), "decode"), (Video(str(tmp_path / "gone.mp4")), "read")):
        (message,) = plan(out, video, DOG)
        (event,) = events([message], Failed)
        assert (event.video, event.failure.video, event.failure.stage) == (video.id, video.path, stage)


def test_images_are_called_as_they_are_unless_two_are_called_alike(out: Folder, tmp_path: Path) -> None:
    for folder, names in (("a", ("x1.png", "x2.png")), ("b", ("x1.png", "x1.jpg"))):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(images(1)[0]).save(tmp_path / folder / name)
    called = {}
    for folder in "ab":
        ((_, frames),) = windows(decode_all(out, plan(out, Video(str(tmp_path / folder), images=True), DOG)))
        called[folder] = frames.record.frame_names
    assert called == {"a": ("x1", "x2"), "b": ("00000", "00001")}


def test_a_segment_that_cannot_be_decoded_is_a_failure_and_not_kept(out: Folder, video: Video) -> None:
    messages = plan(out, video, DOG)
    Path(video.path).unlink()
    decoded = events(decode_all(out, messages), Decoded)
    failures = [event.failure for event in decoded if event.failure]
    assert [(event.segment, event.failure and event.failure.stage) for event in decoded] == [
        (0, "read"), (1, "read"), (2, "read"),
    ]  # fmt: skip
    assert failures[1].reason.startswith("0.96 to 1.92 s: the file is gone")
    (folder,) = out.names(f"windows/{video.id}")
    assert out.names(f"windows/{video.id}/{folder}") == [GROUP_FILE]
