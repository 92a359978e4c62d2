from pathlib import Path

import av
import numpy as np

from pipelines.exports.mp4 import mp4_file


def grey(value: int) -> np.ndarray:
    return np.full((32, 48, 3), value, dtype=np.uint8)


def test_pictures_are_shown_at_their_own_times_and_the_last_as_long_as_the_one_before(tmp_path: Path) -> None:
    times = [5.0, 5.04, 5.5, 7.25, 7.35]
    with mp4_file(tmp_path / "a.mp4", (32, 48)) as mp4:
        for place, time in enumerate(times):
            mp4.add(grey(40 * place), time)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.duration is not None
        assert float(stream.duration * stream.time_base) == 2.45  # pyright: ignore[reportOperatorIssue]
        np.testing.assert_allclose([frame.time for frame in frames], np.array(times) - 5.0, atol=1e-5)
        values = [int(frame.to_ndarray(format="rgb24").mean()) for frame in frames]
    np.testing.assert_allclose(values, [40 * place for place in range(5)], atol=4)


def test_the_index_comes_first_so_that_it_plays_while_it_loads(tmp_path: Path) -> None:
    with mp4_file(tmp_path / "a.mp4", (32, 48)) as mp4:
        mp4.add(grey(9), 0.0)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.duration == 1_000_000  # microseconds: a single picture is shown for a second


def test_times_that_do_not_rise_lose_no_picture(tmp_path: Path) -> None:
    with mp4_file(tmp_path / "a.mp4", (32, 48)) as mp4:
        for time in (0.0, 1.0, 1.0, 1.0):
            mp4.add(grey(90), time)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert len(list(container.decode(video=0))) == 4
