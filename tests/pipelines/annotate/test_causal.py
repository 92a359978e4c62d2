"""In causal mode a corpus is answered as a stream is: frame by frame, from the frames before."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from annotate_data import moving
from patience import PATIENCE
from pipelines.annotate import plan as plan_module
from pipelines.annotate.causal import TrackFollower, asked_after, with_known_frames
from pipelines.annotate.decode import DecodeStage
from pipelines.annotate.events import ShardDone
from pipelines.annotate.join import join_group
from pipelines.annotate.plan import AnnotationRequest, Chunk, PlanStage
from pipelines.annotate.settings import Settings
from pipelines.annotate.tracks import JoinSettings, join_windows
from pipelines.annotate.window_rows import WindowRow, window_row_of, windows_table
from pipelines.annotate.write import WriteStage
from pipelines.files import Folder
from pipelines.inference.messages import AnswersHeader, FramesHeader, decode, decode_frames, encode_answers, encode_item
from pipelines.inference.predictor import Predictor
from pipelines.ledger import Entry
from pipelines.prediction_reader import iter_predictions
from pipelines.predictions import Prediction, QueryTrack
from pipelines.records import Expression
from pipelines.video.decoder import Window
from pipelines.video.listing import Video
from prepared_data import SENTENCES, png, tiny_model
from rounding import in_float64
from sgmg.following import CONTEXT
from sgmg.masks import mask_to_rle, rles_to_masks
from sgmg.segmenter import Segmenter
from sgmg.streaming import StreamAnswer
from sgmg.tokenizer import Tokenizer

H, W = 12, 40
SIDE, FRAMES = 130, 10
SETTINGS = Settings(causal=True, window=CONTEXT, overlap=CONTEXT - 1, min_score=0.0045)
"""One new frame in each window after the first."""
ASKED = tuple(Expression(str(number), text) for number, text in enumerate(SENTENCES[:2]))


@pytest.fixture(scope="module", autouse=True)
def _in_float64() -> Iterator[None]:
    with in_float64():
        yield


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(tiny_model(), Tokenizer.train(SENTENCES), SETTINGS.protocol(SIDE), device="cpu")


@pytest.fixture(scope="module")
def streamed(predictor: Predictor) -> list[StreamAnswer]:
    segmenter = Segmenter(predictor.model, predictor.tokenizer, device="cpu", short_side=SIDE)
    stream = segmenter.stream([one.text for one in ASKED], min_score=SETTINGS.min_score)
    return [stream.push(frame) for frame in moving(0, FRAMES)]


@pytest.fixture
def video(tmp_path: Path) -> Video:
    """A folder of images, which are resized for the model as a stream's frames are."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, frame in enumerate(moving(0, FRAMES)):
        (folder / f"{number:05d}.png").write_bytes(png(frame))
    return Video(str(folder), images=True)


def annotated(video: Video, predictor: Predictor, out: Folder) -> tuple[ShardDone, ...]:
    """The news of all stages, which run one after the other, without Ray."""
    protocol = predictor.protocol
    chunk = encode_item(Chunk(0, (AnnotationRequest(video, ASKED),)))
    plan = PlanStage(out, SETTINGS, protocol, "settings", PATIENCE, "run")(pa.Table.from_pylist([chunk]))
    decoded = (found for units in plan for found in DecodeStage(SETTINGS, protocol, PATIENCE)(units))
    write = WriteStage(out, RULES)
    events = [decode(done, 0, ShardDone)[0] for frames in decoded for done in write(predicted(frames, predictor))]
    return tuple(event for event in events if event)


RULES = JoinSettings(SETTINGS.min_score, "f", CONTEXT)


def predicted(message: pa.Table, predictor: Predictor) -> pa.Table:
    header, payload = decode(message, 0, FramesHeader)
    assert header is not None
    frames = decode_frames(header, payload) if header.frames else []
    records = tuple(one.record for one in frames)
    done = AnswersHeader(header.unit, header.failures, records, {}, "f", 0, 0.0, 0.0, header.context)
    return encode_answers(done, [predictor.answer(one) for one in frames])


def assert_as_streamed(out: Folder, streamed: Sequence[StreamAnswer]) -> None:
    rows = sorted(iter_predictions(out), key=lambda row: row.expression)
    assert [row.text for row in rows] == [one.text for one in ASKED]
    for number, row in enumerate(rows):
        assert row.frame_names == tuple(f"{place:05d}" for place in range(FRAMES))
        (track,) = row.queries
        shown = [answer.scores[number] >= SETTINGS.min_score for answer in streamed]
        masks = [answer.masks[number] & seen for answer, seen in zip(streamed, shown, strict=True)]
        assert track.rle == tuple(map(mask_to_rle, masks))
        np.testing.assert_allclose(track.scores, [answer.scores[number] for answer in streamed], rtol=1e-6)
        boxes = [answer.boxes[number] * seen for answer, seen in zip(streamed, shown, strict=True)]
        np.testing.assert_allclose(track.boxes, boxes, rtol=1e-5)
        assert 0.01 < rles_to_masks(track.rle, (40, 56)).mean() < 0.99


def test_a_short_video_is_answered_as_its_stream_is(
    video: Video, predictor: Predictor, streamed: list[StreamAnswer], tmp_path: Path
) -> None:
    out = Folder(str(tmp_path / "out"))
    (event,) = annotated(video, predictor, out)
    assert event.windows == 1 + FRAMES - CONTEXT
    (entry,) = event.entries
    assert (entry.frames, len(entry.agreements)) == (FRAMES, 2)
    assert_as_streamed(out, streamed)


def test_a_long_video_is_answered_as_its_stream_is(
    video: Video,
    predictor: Predictor,
    streamed: list[StreamAnswer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan_module, "WINDOWS_EACH", 2)
    out = Folder(str(tmp_path / "out"))
    events = annotated(video, predictor, out)
    assert [one.number for event in events for one in event.stretches] == [0, 1]
    (plan,) = (long for event in events for long in event.news.long)
    (group,) = plan.groups
    join_group(group, Entry(video.id, video.path, "", "", group.sentences), out, RULES)
    assert_as_streamed(out, streamed)


def ball(x: int) -> str:
    mask = np.zeros((H, W), np.bool_)
    mask[2:6, x : x + 4] = True
    return mask_to_rle(mask)


def window(
    first: int, scores: Sequence[Sequence[float]], places: Sequence[Sequence[int]], after: str = ""
) -> WindowRow:
    """A window of two queries that score so much in each frame, and have a ball at these places."""
    names = tuple(f"{first + t:05d}" for t in range(len(scores)))
    queries = tuple(
        QueryTrack(
            tuple(ball(place[query]) for place in places),
            tuple((float(place[query]), 2.0, place[query] + 4.0, 6.0) for place in places),
            tuple(score[query] for score in scores),
        )
        for query in range(2)
    )
    row = Prediction(
        "videos", "", "v", "a", "the ball", W, H, names, queries, 0.5, "w", "/v.mp4", "x",
        timestamps=tuple(first / 10 + t / 10 for t in range(len(scores))),
    )  # fmt: skip
    return WindowRow(row, queries, (H, W), after=after)


def chosen(row: Prediction) -> list[float]:
    """The first column of the chosen ball in each frame."""
    return [box[0] for box in row.queries[0].boxes]


RULES_BY_HAND = JoinSettings(0.3, "f", context=2)


def test_each_frame_continues_the_one_before() -> None:
    scores = [(0.9, 0.5), (0.5, 0.8), (0.4, 0.9), (0.4, 0.9)]
    # The first ball moves by one column of four: IoU 3/5. Sums: 0.7 + 0.6 and 0.65; 0.45 + 0.6 and 0.85.
    # Then it jumps: 0.4 and 0.9.
    places = [(0, 20), (1, 20), (2, 20), (30, 20)]
    agreements: dict[str, float] = {}
    ((row,),) = join_windows([[window(0, scores, places)]], RULES_BY_HAND, agreements=agreements)
    assert chosen(row) == [0, 1, 2, 20]
    assert row.queries[0].scores == (0.9, 0.5, 0.4, 0.9)
    assert row.queries[0].rle == tuple(map(ball, (0, 1, 2, 20)))
    assert agreements == {"a": 0.0}


def test_the_object_keeps_its_identity_where_another_query_draws_it() -> None:
    ((row,),) = join_windows([[window(0, [(0.9, 0.5)] * 2, [(0, 20), (20, 1)])]], RULES_BY_HAND)
    assert chosen(row) == [0, 1]  # 0.9 and 0.5 + 0.6


def test_a_frame_that_is_not_seen_has_no_influence_on_the_next() -> None:
    scores = [(0.9, 0.1), (0.2, 0.1), (0.2, 0.4)]
    ((row,),) = join_windows([[window(0, scores, [(0, 20)] * 3)]], RULES_BY_HAND)
    assert row.queries[0].rle[0] == ball(0)
    assert row.queries[0].rle[1] == mask_to_rle(np.zeros((H, W), np.bool_))
    assert chosen(row)[2] == 20  # 0.2 and 0.25


@pytest.mark.parametrize(("after", "continued"), [("00001", True), ("", False), ("00000", False)])
def test_a_window_goes_on_only_where_it_follows_the_frame_before(after: str, continued: bool) -> None:
    windows = [window(0, [(0.9, 0.5)] * 2, [(0, 20)] * 2), window(2, [(0.4, 0.8)], [(0, 20)], after)]
    ((row,),) = join_windows([[one] for one in windows], RULES_BY_HAND)
    assert chosen(row) == [0, 0, 0 if continued else 20]


def test_what_the_window_before_answered_is_left_out_and_changes_nothing() -> None:
    one, two = window(0, [(0.9, 0.5)] * 2, [(0, 20)] * 2), window(2, [(0.4, 0.8)], [(0, 20)], "00001")
    repeated = window(1, [(0.0, 1.0)], [(0, 20)], "00000")
    noted = replace(repeated, row=replace(repeated.row, note="5 frames are damaged"))
    ((row,),) = join_windows([[one], [noted], [two]], RULES_BY_HAND)
    assert chosen(row) == [0, 0, 0]
    assert (row.status, row.note) == ("partial", "5 frames are damaged")


def test_a_follower_returns_coarse_masks_too() -> None:
    track, masks, agreed = TrackFollower(2, 0.3).follow(window(0, [(0.9, 0.5)] * 2, [(0, 20), (1, 20)]), ())
    assert track.rle == masks == (ball(0), ball(1))
    assert agreed == pytest.approx(0.6)


def test_where_a_window_goes_on_survives_parquet() -> None:
    row = window(2, [(0.4, 0.8)], [(0, 20)], "00001")
    (back,) = windows_table([row]).to_pylist()
    assert window_row_of(back).after == "00001"
    del back["after"]  # as an earlier version wrote it
    assert window_row_of(back).after == ""


def frames_of(shot: int, *indices: int) -> Window:
    names = tuple(f"{index:05d}" for index in indices)
    pixels = np.zeros((len(indices), 2, 2, 3), np.uint8)
    return Window(0, shot, pixels, np.array(indices) / 10, np.array(indices), names)


def known_of(windows: Sequence[Window], *shared: int) -> list[int]:
    return [known for _, known in with_known_frames(windows, np.array(shared, dtype=np.int64))]


def test_known_are_the_frames_of_the_window_before_in_the_same_shot() -> None:
    windows = [frames_of(0, 0, 1, 2, 3), frames_of(0, 2, 3, 4), frames_of(1, 5, 6, 7), frames_of(1, 7)]
    assert known_of(windows) == [0, 2, 0, 1]


def test_known_are_the_frames_that_the_stretch_before_has_also_where_some_are_damaged() -> None:
    assert known_of([frames_of(3, 10, 12, 13), frames_of(3, 12, 13, 14)], 10, 11, 12) == [2, 2]


def test_new_frames_are_asked_or_at_least_the_last() -> None:
    assert [one.frames for one in asked_after(ASKED, 2, 4)] == [(2, 3)] * 2
    assert asked_after(ASKED[:1], 0, 2)[0].frames == (0, 1)
    assert asked_after(ASKED[:1], 3, 3)[0].frames == (2,)
