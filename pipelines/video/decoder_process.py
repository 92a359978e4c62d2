"""The decoder process, and the parent's side of the pipes to it.

Decoding has a process of its own because a decoder that hangs in C cannot be interrupted, and one that crashes takes
its process along: both then cost one video. The decoder process works ahead of the parent until the pipe is full.
Messages are JSON and raw pixels, so nothing is unpickled.
"""

import ctypes
import fcntl
import json
import logging
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import BadItem
from pipelines.video.frame_reader import Frame, Shots, file_frames, file_timeline
from pipelines.video.image_folder import images_frames, images_timeline
from pipelines.video.listing import Video
from pipelines.video.probe import OnFrame, VideoInfo, probe_file

_HEAD = struct.Struct("<II")  # bytes of JSON, bytes of pixels
_START = "import sys; sys.path.insert(0, sys.argv[1]); from pipelines.video.decoder_process import serve; serve()"
_ROOT = str(Path(__file__).parents[2])
_NO_PAYLOAD = memoryview(b"")
_PIPE = 2**20  # bytes that wait in the pipe, at most
_SETTLE = 5  # seconds to wait for a killed process to end
HEARTBEATS_PER_LIMIT = 10  # at most

Message = dict[str, Any]


class DecoderProcess:
    """A decoder process, started at the first request, and again after it was lost."""

    def __init__(self, time_limit: float) -> None:
        self._limit = time_limit
        self._process: subprocess.Popen[bytes] | None = None
        self._busy_with: str | None = None
        self._waited = 0.0
        self._pixels = 0

    def request(self, video: Video, request: Message, data: bytes = b"") -> Iterator[Message]:
        """Sends a request and yields its responses. If a response has `bytes`, call `read_payload` before the next.

        The limit applies to the time that the parent waits for a response or heartbeat: a long video may take long, and
        time that the parent spends between responses does not count.

        Raises:
            BadItem: the decoder process reports an error of the video, sent no heartbeat for too long, or crashed.
            RuntimeError: another request is not finished.
        """
        if self._busy_with is not None:
            raise RuntimeError(
                f"The windows of {self._busy_with} are still being read. Read them to their end, close them, or use "
                f"another VideoDecoder."
            )
        self._busy_with = video.path
        whole = False
        process = self._running()
        context = {"path": video.path, "images": video.images, "limit": self._limit, "bytes": len(data)}
        text = json.dumps({**request, **context})
        try:
            assert process.stdin
            process.stdin.write(text.encode() + b"\n" + data)
            process.stdin.flush()
            while True:
                self._waited = 0.0
                header = bytearray(_HEAD.size)
                self._read(video, memoryview(header))
                length, self._pixels = _HEAD.unpack(header)
                body = bytearray(length)
                self._read(video, memoryview(body))
                response = {**json.loads(body), "bytes": self._pixels}
                if "heartbeat" in response:
                    continue
                if whole := "bad" in response or "end" in response:
                    self._busy_with = None
                if "bad" in response:
                    raise BadItem(video.path, *response["bad"])
                yield response
                if whole:
                    return
        finally:
            if not whole:  # It is still busy with this video.
                self._busy_with = None
                self.close()

    def read_payload(self, video: Video, pixels: memoryview) -> None:
        """Reads the bytes of the last response into `pixels`.

        Raises:
            BadItem: see `request`.
        """
        assert pixels.nbytes == self._pixels
        self._read(video, pixels.cast("B"))

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            assert pipe
            with suppress(BrokenPipeError):  # a request that it will never read
                pipe.close()
        try:
            process.wait(_SETTLE)
        except subprocess.TimeoutExpired:  # waiting for a disk or network that does not answer
            logging.getLogger(__name__).warning("the decoding process %d does not end", process.pid)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:  # Not multiprocessing: it would import the main module, Ray's worker, again.
            words = [sys.executable, "-c", _START, _ROOT]
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            _widen(self._process.stdout)
        return self._process

    def _read(self, video: Video, into: memoryview) -> None:
        process = self._process
        assert process
        assert process.stdout
        pipe = process.stdout.fileno()
        ready = select.poll()
        ready.register(pipe, select.POLLIN)
        while into.nbytes:
            began = time.monotonic()
            readable = ready.poll(max(0.0, self._limit - self._waited) * 1000)
            self._waited += time.monotonic() - began
            if not readable:
                raise BadItem(
                    video.path,
                    "decode",
                    f"the decoder gave no heartbeat for longer than {self._limit:g} s, which is the limit "
                    f"(--time-limit of jobs/annotate.py)",
                )
            count = os.readv(pipe, [into])
            if not count:
                raise BadItem(video.path, "decode", f"the decoder crashed on it ({_ending(process)})")
            into = into[count:]


def serve() -> None:
    """Runs the decoder process: responds to the requests on standard input until that is closed."""
    pipe_out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # Output that libraries print must not mix with the pixels.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent handles Ctrl-C; when it ends, the pipe closes.
    for line in sys.stdin.buffer:
        request = json.loads(line)
        data = sys.stdin.buffer.read(request["bytes"])
        video = Video(request["path"], request["images"])
        # A killed parent cannot end a decoder that hangs in C: this timer does, without Python's help.
        watchdog_seconds = request["limit"] + _SETTLE
        signal.setitimer(signal.ITIMER_REAL, watchdog_seconds)
        heartbeat = Heartbeat(pipe_out, request["limit"] / HEARTBEATS_PER_LIMIT, watchdog_seconds)
        try:
            for response, pixels in _responses(video, request, data, heartbeat):
                signal.setitimer(signal.ITIMER_REAL, 0)
                _send(pipe_out, response, pixels)
                signal.setitimer(signal.ITIMER_REAL, watchdog_seconds)
        except BadItem as error:
            _send(pipe_out, {"bad": [error.stage, error.reason]})
        except BrokenPipeError:
            return
        except (ValueError, OSError, MemoryError, ArithmeticError) as error:  # what libraries raise for malformed files
            _send(pipe_out, {"bad": ["decode", f"it cannot be decoded ({type(error).__name__}: {error})"]})
        signal.setitimer(signal.ITIMER_REAL, 0)
        _trim()


class Heartbeat:
    """Tells the parent at intervals that the decoder process is working although no response comes yet."""

    def __init__(self, pipe_out: Any, every: float, watchdog_seconds: float) -> None:
        self._pipe_out, self._every, self._watchdog_seconds = pipe_out, every, watchdog_seconds
        self._last_sent = time.monotonic()

    def __call__(self) -> None:
        """Sends a heartbeat if the last one was long enough ago. Called after every frame."""
        if time.monotonic() - self._last_sent < self._every:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            _send(self._pipe_out, {"heartbeat": True})
        except BrokenPipeError:
            sys.exit()  # Not BrokenPipeError: the code that reads the file would take it for an error of the file.
        signal.setitimer(signal.ITIMER_REAL, self._watchdog_seconds)
        self._last_sent = time.monotonic()


def _responses(video: Video, request: Message, data: bytes, heartbeat: OnFrame) -> Iterator[tuple[Message, memoryview]]:
    if request["method"] == "probe":
        info = images_timeline(video).info if video.images else probe_file(video)
        yield {"info": asdict(info)}, _NO_PAYLOAD
        yield {"end": ""}, _NO_PAYLOAD
        return
    if request["method"] == "timeline":
        if video.images:
            timeline = images_timeline(video, request["image_fps"], request["exif_times"])
        else:
            timeline = file_timeline(video, request["shots"], heartbeat)
        keys, times = timeline.keys, timeline.times
        names = keys if isinstance(keys, tuple) else None
        numbers = np.empty(0, np.int64) if isinstance(keys, tuple) else keys
        rest = {"index_keys": timeline.index_keys, "cuts": timeline.cuts, "note": timeline.note}
        yield (
            {"info": asdict(timeline.info), "names": names, "frames": len(times), **rest},
            memoryview(numbers.astype(np.int64).tobytes() + times.astype(np.float64).tobytes()),
        )
        yield {"end": ""}, _NO_PAYLOAD
        return
    info, size = VideoInfo(**request["info"]), tuple(request["size"])
    if video.images:
        found = images_frames(video, info, request["names"], size)
    else:
        keys = np.frombuffer(data, np.int64)
        shots = Shots() if request["shots"] else None
        found = file_frames(video, info, keys, request["index_keys"], request["seek"], heartbeat, size, shots)
        if shots:  # of a short video: its frames wait here until its cuts are known
            found = list(found)
            yield {"cuts": shots.cuts}, _NO_PAYLOAD
    damage = ""
    for frame in found:
        if isinstance(frame, Frame):
            told = {"key": frame.key, "damage": frame.damage, "remark": frame.remark}
            yield told, frame.image.data.cast("B")
        else:
            damage = frame.reason
    yield {"end": damage}, _NO_PAYLOAD


def _send(pipe: Any, response: Message, pixels: memoryview = _NO_PAYLOAD) -> None:
    text = json.dumps(response).encode()
    for part in (_HEAD.pack(len(text), pixels.nbytes), text, pixels):
        rest = memoryview(part)
        while rest.nbytes:
            rest = rest[pipe.write(rest) :]


def _ending(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(_SETTLE)
    except subprocess.TimeoutExpired:
        return "it closed its pipe"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}, see the log"


def _widen(pipe: Any) -> None:
    """Makes room for a frame in a pipe, on Linux: in pieces of 64 kB each would cost ten changes of process."""
    with suppress(AttributeError, OSError):  # another system; more than this user may have
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)


def _trim() -> None:
    """Returns freed memory to the system (glibc only): indexes of files that were opened leave holes in the heap."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
