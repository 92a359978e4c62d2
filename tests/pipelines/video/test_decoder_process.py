"""A decoder that hangs, crashes or is left alone costs one video, never the run."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from patience import PATIENCE
from pipelines.errors import BadItem
from pipelines.video.decoder import VideoDecoder
from pipelines.video.listing import Video
from pipelines.video.segments import DecodeUnit, segments

RNG = np.random.default_rng(0)


@pytest.fixture
def video(make_video: Callable[..., Path]) -> Video:
    frames = RNG.integers(0, 256, (40, 240, 320, 3), dtype=np.uint8)  # more than the pipe between the two holds
    return Video(str(make_video("a.mp4", frames, options={"preset": "ultrafast"})))


@pytest.fixture
def hanging(tmp_path: Path) -> Video:
    """A pipe that nobody writes to: whoever opens it waits for ever, in C."""
    os.mkfifo(tmp_path / "hanging.mp4")
    return Video(str(tmp_path / "hanging.mp4"))


def _children() -> set[psutil.Process]:
    """Of this process; those that other tests' decoders left are among them."""
    return {process for process in psutil.Process().children() if "decoder_process" in " ".join(process.cmdline())}


def _segment(decoder: VideoDecoder, video: Video) -> DecodeUnit:
    return segments(video, decoder.timeline(video), length=10, overlap=0)[0]


@pytest.mark.slow
def test_a_decoder_that_hangs_is_ended_and_the_next_video_goes_on(
    video: Video, hanging: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VideoDecoder(time_limit=30) as decoder:
        decoder.probe(video)  # starting the process takes longer than 1 s on a busy machine
        began = time.monotonic()
        with monkeypatch.context() as patched:
            patched.setattr(decoder._process, "_limit", 1)
            with pytest.raises(BadItem, match="longer than 1 s") as caught:
                decoder.probe(hanging)
        assert time.monotonic() - began < 6
        assert caught.value.video == hanging.path
        assert len(list(decoder.windows(_segment(decoder, video)))) == 4


def test_a_decoder_that_crashes_is_one_bad_video(video: Video) -> None:
    others = _children()
    with VideoDecoder() as decoder:
        part = _segment(decoder, video)
        found = decoder.windows(part)
        next(found)
        (child,) = _children() - others
        child.send_signal(signal.SIGSEGV)
        with pytest.raises(BadItem, match="the decoder crashed on it \\(SIGSEGV\\)"):
            list(found)
        assert len(list(decoder.windows(part))) == 4


def test_windows_may_be_left_before_their_end(video: Video) -> None:
    with VideoDecoder() as decoder:
        part = _segment(decoder, video)
        found = decoder.windows(part)
        next(found)
        with pytest.raises(RuntimeError, match="still being read"):
            decoder.probe(video)
        found.close()  # pyright: ignore[reportAttributeAccessIssue] (a generator)
        assert [window.number for window in decoder.windows(part)] == [0, 1, 2, 3]


def test_closing_ends_the_process(video: Video) -> None:
    others = _children()
    with VideoDecoder() as decoder:
        decoder.probe(video)
        (child,) = _children() - others
    assert not child.is_running()


@pytest.mark.slow
def test_the_time_a_caller_takes_is_not_the_decoders(video: Video) -> None:
    with VideoDecoder(time_limit=3) as decoder:
        part = _segment(decoder, video)
        count = 0
        for _ in decoder.windows(part):
            time.sleep(1.2)
            count += 1
    assert count == 4


@pytest.mark.slow
@pytest.mark.parametrize(("stuck_at", "said"), [(None, ""), (8, "no heartbeat for longer than 3 s.*--time-limit")])
def test_a_long_search_for_cuts_is_given_time_as_long_as_it_goes_on(
    video: Video, monkeypatch: pytest.MonkeyPatch, stuck_at: int | None, said: str
) -> None:
    slow = f"""
        import itertools, sys, time
        sys.path.insert(0, sys.argv[1])
        from pipelines.video import shots
        from pipelines.video import decoder_process as decoder_process
        see, count = shots.CutDetector.see, itertools.count()
        def slowly(self, frame):
            time.sleep(99 if next(count) == {stuck_at} else 0.1)
            see(self, frame)
        shots.CutDetector.see = slowly
        decoder_process.serve()
    """
    monkeypatch.setattr("pipelines.video.decoder_process._START", textwrap.dedent(slow))
    with VideoDecoder(time_limit=3) as decoder:
        decoder.probe(video)
        began = time.monotonic()
        if said:
            with pytest.raises(BadItem, match=said):
                decoder.timeline(video, shots=True)
            return
        assert len(decoder.timeline(video, shots=True).times) == 40
        assert time.monotonic() - began > 3


@pytest.mark.slow
def test_a_child_that_hangs_ends_itself_when_its_parent_was_killed(hanging: Video) -> None:
    script = f"""
        from pipelines.video.decoder import VideoDecoder
        from pipelines.video.listing import Video
        VideoDecoder(time_limit=3).probe(Video({hanging.path!r}))
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    try:
        limit = time.monotonic() + PATIENCE
        while not (children := psutil.Process(parent.pid).children()) and time.monotonic() < limit:
            time.sleep(0.05)
        time.sleep(1.5)  # so that it has read its request
    finally:
        parent.kill()
        parent.wait()
    psutil.wait_procs(children, timeout=30)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
