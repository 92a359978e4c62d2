"""What is left to do of some videos: all of it, what a killed run left, or a new expression alone."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines.annotate import plan as plan_module
from pipelines.annotate.decode import DecodeStage, PartContext, PartsContext, ShardContext
from pipelines.annotate.events import LongVideo, News
from pipelines.annotate.layout import GROUP_FILE, ExpressionGroup
from pipelines.annotate.plan import AnnotationRequest, Chunk, PlanStage
from pipelines.annotate.settings import WINDOWS_EACH, Settings
from pipelines.files import Folder
from pipelines.inference.messages import (
    FramesHeader,
    UnitsHeader,
    decode,
    decode_frames,
    decode_units,
    encode_item,
)
from pipelines.inference.model_frames import ModelFrames
from pipelines.records import Expression
from pipelines.video.listing import Video
from pipelines.video.segments import DecodeUnit

DOG, CAT, MAN = Expression("d", "the dog"), Expression("c", "the cat"), Expression("m", "a man")
SETTINGS = Settings(window=4, overlap=1)
FRAMES = 3 * (WINDOWS_EACH * 2 + 1) + 1
"""Two stretches and a window."""
SHORT = 3 * WINDOWS_EACH + 1
"""As many windows as a short video has at most."""

Messages = list[pa.Table]


def images(count: int, seed: int = 0) -> list[np.ndarray]:
    base = np.random.default_rng(seed).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    return [np.roll(base, i, axis=1) for i in range(count)]


@pytest.fixture
def long(make_video: Callable[..., Path]) -> Video:
    return Video(str(make_video("long.mp4", images(FRAMES))), stamp="listed")


@pytest.fixture
def short(make_video: Callable[..., Path]) -> Video:
    return Video(str(make_video("short.mp4", images(SHORT, 1))), stamp="listed")


@pytest.fixture
def out(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "out"))


def plan(out: Folder, *requests: AnnotationRequest, run: str | None = None, settings: Settings = SETTINGS) -> Messages:
    stage = PlanStage(out, settings, settings.protocol(64), "settings", 100, run or uuid.uuid4().hex)
    return list(stage(pa.Table.from_pylist([encode_item(Chunk(0, requests))])))


def ask(video: Video, *expressions: Expression, **answered: tuple[str, ...]) -> AnnotationRequest:
    return AnnotationRequest(video, expressions, answered)


def decode_all(messages: Messages) -> Messages:
    stage = DecodeStage(SETTINGS, SETTINGS.protocol(64), 100)
    return [decoded for message in messages for decoded in stage(message)]


def shards(messages: Messages) -> list[tuple[ShardContext, list[DecodeUnit]]]:
    found = []
    for message in messages:
        header, payload = decode(message, 0, UnitsHeader)
        assert header is not None
        units = [unit for unit, _ in decode_units(header, payload)]
        found.append((msgspec.json.decode(header.context, type=ShardContext), units))
    return found


def news(messages: Messages) -> News:
    """All news of a plan."""
    each = [context.news for context, _ in shards(messages)]
    return News(tuple(seen for one in each for seen in one.seen), tuple(plan for one in each for plan in one.long))


def planned(messages: Messages) -> LongVideo:
    (plan,) = news(messages).long
    return plan


def parts(messages: Messages) -> Iterator[tuple[PartContext, list[ModelFrames]]]:
    """What is decoded: of each video and group, its windows."""
    for message in messages:
        header, payload = decode(message, 0, FramesHeader)
        assert header is not None
        frames = iter(decode_frames(header, payload))
        for part in msgspec.json.decode(header.context, type=PartsContext).parts:
            yield part, [next(frames) for _ in part.windows]


def late_news(messages: Messages) -> News:
    """The news of the last message of a decoding."""
    header, _ = decode(messages[-1], 0, FramesHeader)
    assert header is not None
    return msgspec.json.decode(header.context, type=PartsContext).news


def window_numbers(messages: Messages) -> list[int]:
    return [window.number for part, _ in parts(messages) for window in part.windows]


def texts(groups: Iterable[ExpressionGroup]) -> list[tuple[Expression, ...]]:
    return [group.expressions for group in groups]


def test_short_videos_share_a_shard(out: Folder, short: Video, make_video: Callable[..., Path]) -> None:
    other = Video(str(make_video("other.mp4", images(3, 2))))
    ((context, units),) = shards(messages := plan(out, ask(short, DOG, CAT), ask(other, MAN)))
    assert [(unit.video, len(unit.windows)) for unit in units] == [(short, WINDOWS_EACH), (other, 1)]
    assert [(seen.video, seen.stamp, seen.kept) for seen in context.news.seen] == [
        (short.id, "listed", 0), (other.id, "", 0),
    ]  # fmt: skip
    (message,) = decode_all(messages)
    (first, frames), (second, (only,)) = parts([message])
    assert (first.video, first.stretch, first.failures) == (short, None, ())
    assert first.seconds == pytest.approx(SHORT / 25)
    assert [window.number for window in first.windows] == list(range(WINDOWS_EACH))
    assert texts([first.group, second.group]) == [(CAT, DOG), (MAN,)]
    record = frames[0].record
    assert (record.dataset, record.video, record.source) == ("videos", short.id, short.path)
    assert (record.width, record.height, record.fps) == (48, 32, pytest.approx(25))
    assert record.frame_names == ("00000", "00001", "00002", "00003")
    assert record.timestamps == pytest.approx([0, 0.04, 0.08, 0.12])
    assert {(one.id, one.text) for one in record.expressions} == {("d", "the dog"), ("c", "the cat")}
    assert (frames[0].frames.shape, only.frames.shape) == ((4, 64, 96, 3), (3, 64, 96, 3))


@pytest.mark.parametrize(("limit", "value"), [("SHARD_VIDEOS", 2), ("SHARD_BYTES", 2 * 3 * 64 * 96 * 3)])
def test_a_shard_holds_so_many_videos_and_bytes(
    out: Folder, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    videos = [Video(str(make_video(f"{number}.mp4", images(3, number)))) for number in range(5)]
    monkeypatch.setattr(plan_module, limit, value)
    found = shards(plan(out, *(ask(video, DOG) for video in videos)))
    assert [[unit.video for unit in units] for _, units in found] == [videos[:2], videos[2:4], videos[4:]]
    assert [len(context.news.seen) for context, _ in found] == [2, 2, 1]


def test_shards_that_a_killed_run_left_are_those_of_an_undisturbed_one(
    out: Folder, make_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = [Video(str(make_video(f"{number}.mp4", images(3, number)))) for number in range(4)]
    monkeypatch.setattr(plan_module, "SHARD_VIDEOS", 2)
    (tmp_path / "poem.mp4").write_text("Whose woods these are I think I know")
    bad = ask(Video(str(tmp_path / "poem.mp4")), DOG)
    first, second = shards(plan(out, ask(videos[0], DOG), bad, *(ask(video, DOG) for video in videos[1:])))
    (again,) = shards(plan(out, bad, *(ask(video, DOG) for video in videos[2:])))
    assert again[0].name == second[0].name != first[0].name
    assert [seen.failure and seen.failure.stage for seen in again[0].news.seen] == ["decode", None, None]


def test_a_long_video_becomes_stretches_that_hold_all_its_windows(out: Folder, long: Video) -> None:
    messages = plan(out, ask(long, DOG, CAT))
    plan_ = planned(messages)
    assert (plan_.seen.video, plan_.seen.kept, plan_.stretches, plan_.todo) == (long.id, 0, 3, 3)
    assert plan_.seconds == pytest.approx(FRAMES / 25)
    assert texts(plan_.groups) == [(CAT, DOG)]
    units = [unit for _, (unit,) in shards(messages)]
    assert [(unit.number, unit.first_window, len(unit.windows)) for unit in units] == [(0, 0, 8), (1, 8, 8), (2, 16, 1)]
    assert {int(index) for unit in units for index in unit.indices} == set(range(FRAMES))
    decoded = list(parts(decode_all(messages)))
    assert [part.stretch for part, _ in decoded] == [0, 1, 2]
    assert [len(frames) for _, frames in decoded] == [8, 8, 1]
    assert window_numbers(decode_all(messages)) == list(range(17))
    assert out.names(f"windows/{long.id}/{plan_.groups[0].name}") == [GROUP_FILE]


def test_a_message_carries_only_its_own_stretch(out: Folder, long: Video, make_video: Callable[..., Path]) -> None:
    longer = Video(str(make_video("longer.mp4", images(4 * FRAMES, 3))))
    sizes = [[message.nbytes for message in plan(out, ask(video, DOG))][1] for video in (long, longer)]
    assert sizes[1] < 1.1 * sizes[0]


def finish(out: Folder, group: ExpressionGroup, *stretches: int, whole: bool = True) -> None:
    """Writes what the later stages would write for some stretches."""
    for number in stretches:
        out.write(group.stretch(number, whole), b"")


def test_a_killed_run_goes_on_inside_a_video(out: Folder, long: Video) -> None:
    (group,) = planned(plan(out, ask(long, DOG))).groups
    finish(out, group, 1)
    finish(out, group, 2, whole=False)
    again = plan(out, ask(long, DOG))
    assert (planned(again).todo, planned(again).groups) == (2, (group,))
    assert [unit.number for _, (unit,) in shards(again)] == [0, 2]
    assert window_numbers(decode_all(again)) == [*range(8), 16]


def test_a_video_of_which_all_stretches_are_done_is_news_alone(out: Folder, long: Video) -> None:
    (group,) = planned(plan(out, ask(long, DOG))).groups
    finish(out, group, 0, 1, 2)
    ((context, units),) = shards(messages := plan(out, ask(long, DOG)))
    assert (units, context.news.long[0].todo) == ([], 0)
    (message,) = decode_all(messages)
    assert late_news([message]) == context.news


def test_a_plan_holds_for_all_of_a_run_whatever_is_done_by_then(out: Folder, long: Video) -> None:
    first = plan(out, ask(long, DOG), run="run")
    finish(out, planned(first).groups[0], 0, 1, 2)
    Path(long.path).unlink()
    assert pa.concat_tables(plan(out, ask(long, DOG), run="run")).equals(pa.concat_tables(first))


def test_a_new_sentence_beside_an_unfinished_one_shares_the_decoding(out: Folder, long: Video) -> None:
    (group,) = planned(plan(out, ask(long, DOG))).groups
    finish(out, group, 0, 1)
    again = plan(out, ask(long, DOG, CAT))
    assert texts(planned(again).groups) == [(DOG,), (CAT,)]
    assert planned(again).todo == 1 + 3
    found = [(part.stretch, part.group.expressions) for part, _ in parts(decode_all(again))]
    assert found == [(0, (CAT,)), (1, (CAT,)), (2, (DOG,)), (2, (CAT,))]


def test_what_is_answered_is_not_asked_again(out: Folder, short: Video) -> None:
    ((context, _),) = shards(plan(out, ask(short, DOG)))
    (seen,) = context.news.seen
    ((context, units),) = shards(plan(out, ask(short, DOG, **{seen.fingerprint: ("d",)})))
    assert (units, context.news.seen[0].kept) == ([], 1)
    messages = plan(out, ask(short, DOG, CAT, **{seen.fingerprint: ("d",)}))
    ((part, _),) = parts(decode_all(messages))
    assert part.group.expressions == (CAT,)
    assert news(messages).seen[0].kept == 1
    messages = plan(out, ask(short, DOG, **{"of another version": ("d",)}))
    assert news(messages).seen[0].kept == 0
    assert len(shards(messages)[0][1]) == 1


def test_a_sentence_that_is_no_longer_asked_takes_its_windows_along(out: Folder, long: Video) -> None:
    (group,) = planned(plan(out, ask(long, DOG, CAT))).groups
    finish(out, group, 0)
    assert texts(planned(plan(out, ask(long, MAN, DOG))).groups) == [(DOG, MAN)]
    assert len(out.names(f"windows/{long.id}")) == 1


def test_what_is_no_video_failed_and_the_others_are_done(out: Folder, short: Video, tmp_path: Path) -> None:
    path = tmp_path / "poem.mp4"
    path.write_text("Whose woods these are I think I know")
    bad = [Video(str(path)), Video(str(tmp_path / "gone.mp4"))]
    ((context, units),) = shards(plan(out, *(ask(video, DOG) for video in (*bad, short))))
    assert [unit.video for unit in units] == [short]
    failures = [(seen.video, seen.failure) for seen in context.news.seen]
    assert failures[2] == (short.id, None)
    for video, stage, (id, failure) in zip(bad, ("decode", "read"), failures, strict=False):
        assert failure is not None
        assert (id, failure.video, failure.stage) == (video.id, video.path, stage)


def test_images_are_called_as_they_are_unless_two_are_called_alike(out: Folder, tmp_path: Path) -> None:
    for folder, names in (("a", ("x1.png", "x2.png")), ("b", ("x1.png", "x1.jpg"))):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(images(1)[0]).save(tmp_path / folder / name)
    called = {}
    for folder in "ab":
        video = Video(str(tmp_path / folder), images=True)
        ((_, (frames,)),) = parts(decode_all(plan(out, ask(video, DOG))))
        called[folder] = frames.record.frame_names
    assert called == {"a": ("x1", "x2"), "b": ("00000", "00001")}


def rates(messages: Messages) -> set[float | None]:
    return {one.record.fps for _, frames in parts(decode_all(messages)) for one in frames}


def test_the_rate_of_rows_is_that_of_the_frames_taken_of_the_whole_video(
    out: Folder, make_video: Callable[..., Path]
) -> None:
    video = Video(str(make_video("a.mp4", images(3 * FRAMES))))
    wished = replace(SETTINGS, fps=9)  # of 25: the 1st, 4th, 7th, 10th, 13th, 15th and so on
    messages = plan(out, ask(video, DOG), settings=wished)
    assert planned(messages).stretches > 1
    times = np.concatenate([unit.times for _, (unit,) in shards(messages)])
    whole = np.unique(times)
    (rate,) = rates(messages)
    assert rate == pytest.approx((len(whole) - 1) / (whole[-1] - whole[0]))
    assert rate not in (9.0, 25.0)
    (rate,) = rates(plan(out, ask(video, CAT), settings=replace(SETTINGS, fps=100)))
    assert rate == pytest.approx(25)


def test_images_without_times_have_no_rate_whatever_is_wished(out: Folder, tmp_path: Path) -> None:
    for name in ("cat", "cat_5fps"):
        (tmp_path / name).mkdir()
        for place in range(4):
            Image.fromarray(images(1)[0]).save(tmp_path / name / f"{place}.png")
    untimed, timed = (Video(str(tmp_path / name), images=True) for name in ("cat", "cat_5fps"))
    assert rates(plan(out, ask(untimed, DOG), settings=replace(SETTINGS, fps=2))) == {None}
    (rate,) = rates(plan(out, ask(timed, DOG)))
    assert rate == pytest.approx(5)


def test_a_short_video_that_cannot_be_decoded_is_a_failure_beside_the_others(
    out: Folder, short: Video, make_video: Callable[..., Path]
) -> None:
    other = Video(str(make_video("other.mp4", images(3, 2))))
    messages = plan(out, ask(short, DOG), ask(other, DOG))
    Path(short.path).unlink()
    (lost, none), (good, frames) = parts(decode_all(messages))
    assert (lost.windows, none, good.failures, len(frames)) == ((), [], (), 1)
    (failure,) = lost.failures
    assert failure.stage == "read"
    assert failure.reason.startswith("0.00 to 0.96 s: the file is gone")


def test_a_stretch_that_cannot_be_decoded_is_a_failure(out: Folder, long: Video) -> None:
    messages = plan(out, ask(long, DOG))
    Path(long.path).unlink()
    lost = [one for message in decode_all(messages) for one in late_news([message]).failed]
    assert [(one.number, [failure.stage for failure in one.failures]) for one in lost] == [
        (0, ["read"]), (1, ["read"]), (2, ["read"]),
    ]  # fmt: skip
    assert lost[1].failures[0].reason.startswith("0.96 to 1.92 s: the file is gone")


def test_a_long_video_that_is_read_from_its_start_is_decoded_once(out: Folder, make_video: Callable[..., Path]) -> None:
    video = Video(str(make_video("a.avi", images(FRAMES))))
    ((_, (unit,)),) = shards(messages := plan(out, ask(video, DOG)))
    assert len(unit.windows) == 17
    decoded = decode_all(messages)
    assert [(part.stretch, len(frames)) for part, frames in parts(decoded)] == [(0, 8), (1, 8), (2, 1)]
