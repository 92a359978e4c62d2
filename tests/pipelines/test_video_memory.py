"""A video of hours takes the memory of one of minutes, in the parent and in the process that decodes."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from patience import PATIENCE

FPS = 5
MINUTES = 2
HOURS = 2

READ = """
    import json, os, sys
    import psutil
    from pipelines.video.decoder import VideoDecoder
    from pipelines.video.listing import Video
    from pipelines.video.segments import segments

    video = Video(sys.argv[1])
    with VideoDecoder() as decoder:
        timeline = decoder.timeline(video, shots=sys.argv[2] == "shots")
        frames = windows = 0
        for segment in segments(video, timeline, overlap=0, windows_each=None if sys.argv[2] == "whole" else 50):
            for window in decoder.windows(segment):
                frames, windows = frames + len(window.frames), windows + 1
        pids = [os.getpid(), *(child.pid for child in psutil.Process().children())]
        peaks = [line.split()[1] for pid in pids for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM")]
    print(json.dumps([frames, windows, *(int(peak) // 1024 for peak in peaks)]))
"""


def _moving(count: int) -> Iterator[np.ndarray]:
    base = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return (np.roll(base, place, axis=1) for place in range(count))


def _peaks(path: Path, how: str) -> tuple[int, int, int]:
    """Frames that were read, and the most MiB the reading process and its child ever held."""
    words = [sys.executable, "-c", textwrap.dedent(READ), str(path), how]
    frames, windows, parent, child = json.loads(
        subprocess.run(words, check=True, capture_output=True, timeout=PATIENCE).stdout
    )
    assert windows == -(-frames // 36)
    return frames, parent, child


@pytest.mark.slow
def test_two_hours_peak_like_two_minutes(make_video: Callable[..., Path]) -> None:
    short = make_video("short.mp4", _moving(MINUTES * 60 * FPS), codec="mpeg4")
    long = make_video("long.mp4", _moving(HOURS * 3600 * FPS), codec="mpeg4")
    for how in ("whole", "parts"):
        _, *few = _peaks(short, how)
        frames, *many = _peaks(long, how)
        assert frames == HOURS * 3600 * FPS
        assert all(grown - base < 25 for grown, base in zip(many, few, strict=True)), (few, many)


@pytest.mark.slow
def test_looking_for_cuts_peaks_no_higher(make_video: Callable[..., Path]) -> None:
    _, *few = _peaks(make_video("short.mp4", _moving(1000), codec="mpeg4"), "shots")
    _, *many = _peaks(make_video("long.mp4", _moving(20000), codec="mpeg4"), "shots")
    assert all(grown - base < 20 for grown, base in zip(many, few, strict=True)), (few, many)
