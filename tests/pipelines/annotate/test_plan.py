"""What is left to do of a video: all of it, what a killed run left, or a new sentence alone."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines.annotate.decode import DecodeStage
from pipelines.annotate.expressions_file import Expression
from pipelines.annotate.layout import BATCH, ExpressionGroup
from pipelines.annotate.plan import AnnotationRequest, PlanStage, markers_of
from pipelines.annotate.settings import WINDOWS_EACH, Settings
from pipelines.files import Folder
from pipelines.inference.messages import NEWS, SEGMENT, WINDOW, open_parcel, segment_of, window_of
from pipelines.video.listing import Video

DOG, CAT, MAN = Expression("d", "the dog"), Expression("c", "the cat"), Expression("m", "a man")
SETTINGS = Settings(window=4, overlap=1)
FRAMES = 3 * (WINDOWS_EACH * 2 + 1) + 1
"""Two segments and a window."""

Told = list[tuple[str, dict[str, Any], memoryview]]


def images(count: int) -> list[np.ndarray]:
    base = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    return [np.roll(base, place, axis=1) for place in range(count)]


@pytest.fixture
def video(make_video: Callable[..., Path]) -> Video:
    return Video(str(make_video("clip.mp4", images(FRAMES))))


@pytest.fixture
def out(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "out"))


def told(tables: Any) -> Told:
    return [open_parcel(table, 0) for table in tables]


def planned(
    out: Folder, video: Video, *sentences: Expression, settings: Settings = SETTINGS, run: str | None = None
) -> Told:
    asked = AnnotationRequest(video, sentences, tuple(markers_of(out).get(video.id, ())))
    plan = PlanStage(out, settings, "settings", 100, run or uuid.uuid4().hex)
    return told(plan(pa.table({"asked": [asked.to_json()]})))


def decoded(out: Folder, parcels: Told, settings: Settings = SETTINGS) -> Told:
    stage = DecodeStage(out, settings, settings.protocol(64), 100)
    tables = [pa.table({"kind": [k], "about": [json.dumps(a)], "data": pa.array([d.tobytes()], pa.large_binary())})
              for k, a, d in parcels]  # fmt: skip
    return [parcel for table in tables for parcel in told(stage(table))]


def windows_left(parcels: Told) -> list[int]:
    return [window_of(about, data).record.segment for kind, about, data in parcels if kind == WINDOW]


def test_a_video_becomes_segments_that_hold_all_its_windows(out: Folder, video: Video) -> None:
    (kind, news, _), *rest = planned(out, video, DOG, CAT)
    assert kind == NEWS
    assert (news["news"], news["segments"], news["windows"], news["kept"]) == ("planned", 3, [], 0)
    assert news["video"] == video.id
    assert news["seconds"] == pytest.approx(FRAMES / 25)
    (batch,) = (ExpressionGroup.from_plain(plain) for plain in news["batches"])
    assert batch.sentences == (CAT, DOG)
    parts = [segment_of(about, data) for _, about, data in rest]
    assert [(part.number, part.first_window, len(part.windows)) for part in parts] == [(0, 0, 8), (1, 8, 8), (2, 16, 1)]
    assert {int(index) for part in parts for index in part.indices} == set(range(FRAMES))


def test_windows_carry_what_predictions_need(out: Folder, video: Video) -> None:
    parcels = decoded(out, planned(out, video, DOG, CAT))
    assert windows_left(parcels) == list(range(17))
    first = next(window_of(about, data) for kind, about, data in parcels if kind == WINDOW)
    record = first.record
    assert (record.dataset, record.video, record.source) == ("videos", video.id, video.path)
    assert (record.width, record.height, record.fps) == (48, 32, 25)
    assert record.frame_names == ("00000", "00001", "00002", "00003")
    assert record.timestamps == pytest.approx([0, 0.04, 0.08, 0.12])
    assert {(one.id, one.text) for one in record.expressions} == {("d", "the dog"), ("c", "the cat")}
    assert first.frames.shape == (4, 64, 96, 3)


def test_news_of_a_segment_comes_behind_its_windows_and_is_kept(out: Folder, video: Video) -> None:
    parcels = decoded(out, planned(out, video, DOG))
    news = [about for kind, about, _ in parcels if kind == NEWS]
    assert [(one["news"], one.get("segment")) for one in news] == [
        ("planned", None), ("decoded", 0), ("decoded", 1), ("decoded", 2),
    ]  # fmt: skip
    assert news[2]["windows"] == news[2]["asked"] == list(range(8, 16))
    (folder,) = out.names(f"windows/{video.id}")
    assert out.names(f"windows/{video.id}/{folder}") == [BATCH, *(f"segment-00000{n}.json" for n in range(3))]


def finish(out: Folder, parcels: Told, windows: set[int]) -> None:
    """What the stages behind would leave of some windows."""
    for plain in parcels[0][1]["batches"]:
        for number in windows:
            out.write(ExpressionGroup.from_plain(plain).window(number), b"")


def test_a_killed_run_goes_on_inside_a_video(out: Folder, video: Video) -> None:
    first = planned(out, video, DOG)
    decoded(out, first)
    finish(out, first, {*range(8), 9})
    again = planned(out, video, DOG)
    assert again[0][1]["windows"] == list(range(8))
    assert [segment_of(about, data).number for kind, about, data in again if kind == SEGMENT] == [1, 2]
    parcels = decoded(out, again)
    assert windows_left(parcels) == [8, *range(10, 17)]
    news = [about for kind, about, _ in parcels if kind == NEWS]
    assert news[1]["windows"] == list(range(8, 16))
    assert news[1]["asked"] == [8, *range(10, 16)]


def test_a_plan_holds_for_all_of_a_run_whatever_is_done_by_then(out: Folder, video: Video) -> None:
    first = planned(out, video, DOG, run="run")
    decoded(out, first)
    finish(out, first, set(range(17)))
    Path(video.path).unlink()
    again = planned(out, video, DOG, run="run")
    assert [(kind, about, data.tobytes()) for kind, about, data in again] == [
        (kind, about, data.tobytes()) for kind, about, data in first
    ]


def test_a_new_sentence_beside_an_unfinished_one_shares_the_decoding(out: Folder, video: Video) -> None:
    first = planned(out, video, DOG)
    decoded(out, first)
    finish(out, first, set(range(16)))
    again = planned(out, video, DOG, CAT)
    batches = [ExpressionGroup.from_plain(plain) for plain in again[0][1]["batches"]]
    assert [batch.sentences for batch in batches] == [(DOG,), (CAT,)]
    parcels = [(about, data) for kind, about, data in decoded(out, again) if kind == WINDOW]
    assert [len(about["batches"]) for about, _ in parcels] == [1] * 16 + [2]
    assert {one.id for one in window_of(*parcels[0]).record.expressions} == {"c"}


def mark(out: Folder, news: dict[str, Any]) -> None:
    """Finishes the batches of a plan."""
    for plain in news["batches"]:
        batch = ExpressionGroup.from_plain(plain)
        out.write(batch.marker, json.dumps({**plain, "fingerprint": news["fingerprint"]}).encode())
        out.write(batch.result, b"")


def test_what_is_answered_is_not_asked_again(out: Folder, video: Video) -> None:
    mark(out, planned(out, video, DOG)[0][1])
    ((_, news, _),) = planned(out, video, DOG)
    assert (news["segments"], news["batches"], news["kept"]) == (0, [], 1)
    (_, news, _), *_ = planned(out, video, DOG, CAT)
    assert [plain["sentences"] for plain in news["batches"]] == [[["c", "the cat"]]]
    assert news["kept"] == 1


def test_windows_that_a_killed_join_left_take_no_answer_along(out: Folder, video: Video) -> None:
    news = planned(out, video, DOG)[0][1]
    mark(out, news)
    (batch,) = map(ExpressionGroup.from_plain, news["batches"])
    assert out.has(f"{batch.folder}/{BATCH}")
    (_, news, _), *_ = planned(out, video, DOG, CAT)
    assert news["kept"] == 1
    assert out.has(batch.result)
    assert not out.has(f"{batch.folder}/{BATCH}")


def test_a_result_that_somebody_deleted_is_made_again(out: Folder, video: Video) -> None:
    news = planned(out, video, DOG)[0][1]
    mark(out, news)
    (batch,) = map(ExpressionGroup.from_plain, news["batches"])
    out.remove(batch.result)
    (_, again, _), *_ = planned(out, video, DOG)
    assert (again["batches"], again["kept"]) == (news["batches"], 0)
    assert not out.has(batch.marker)


def test_another_sentence_under_the_same_id_is_said_and_not_asked(out: Folder, video: Video) -> None:
    mark(out, planned(out, video, DOG)[0][1])
    ((_, news, _),) = planned(out, video, Expression("d", "the bird"))
    assert news["batches"] == []
    assert "'d' was 'the dog' and is now 'the bird'" in news["problems"][0]


def test_a_video_that_changed_is_done_anew(out: Folder, video: Video, make_video: Callable[..., Path]) -> None:
    news = planned(out, video, DOG)[0][1]
    mark(out, news)
    make_video("clip.mp4", images(5))
    (_, again, _), *rest = planned(out, video, DOG)
    assert again["fingerprint"] != news["fingerprint"]
    assert len(rest) == again["segments"] == 1
    assert out.names("predictions") == []
    assert out.names("done") == []


def test_a_sentence_that_is_no_longer_asked_takes_its_windows_along(out: Folder, video: Video) -> None:
    first = planned(out, video, DOG, CAT)
    finish(out, first, {0})
    (_, news, _), *_ = planned(out, video, MAN, DOG)
    assert [plain["sentences"] for plain in news["batches"]] == [[["d", "the dog"], ["m", "a man"]]]
    assert len(out.names(f"windows/{video.id}")) == 1


def test_what_is_no_video_is_news_of_a_failure(out: Folder, tmp_path: Path) -> None:
    path = tmp_path / "poem.mp4"
    path.write_text("Whose woods these are I think I know")
    for video, stage in ((Video(str(path)), "decode"), (Video(str(tmp_path / "gone.mp4")), "read")):
        ((kind, news, _),) = planned(out, video, DOG)
        assert (kind, news["news"], news["path"], news["stage"]) == (NEWS, "failed", video.path, stage)


def test_images_are_called_as_they_are_unless_two_are_called_alike(out: Folder, tmp_path: Path) -> None:
    for folder, names in (("a", ("x1.png", "x2.png")), ("b", ("x1.png", "x1.jpg"))):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(images(1)[0]).save(tmp_path / folder / name)
    called = {}
    for folder in "ab":
        parcels = decoded(out, planned(out, Video(str(tmp_path / folder), images=True), DOG))
        (window,) = (window_of(about, data) for kind, about, data in parcels if kind == WINDOW)
        called[folder] = window.record.frame_names
    assert called == {"a": ("x1", "x2"), "b": ("00000", "00001")}


def test_a_segment_that_cannot_be_decoded_is_news_and_not_kept(out: Folder, video: Video) -> None:
    parcels = planned(out, video, DOG)
    Path(video.path).unlink()
    news = [about for kind, about, _ in decoded(out, parcels) if kind == NEWS][1:]
    assert [(one["segment"], one["failure"]["stage"]) for one in news] == [(0, "read"), (1, "read"), (2, "read")]
    assert news[1]["failure"]["reason"].startswith("0.96 to 1.92 s: the file is gone")
    (folder,) = out.names(f"windows/{video.id}")
    assert out.names(f"windows/{video.id}/{folder}") == [BATCH]
