"""The process that decodes, and its parent's side of the pipe between them.

A process of its own, not a thread that watches: a decoder that hangs in C cannot be interrupted, and one that crashes
takes its process along. Here both are one bad video; and the child decodes on while the parent works, no further than
the pipe holds. They speak JSON and raw pixels, so nothing is unpickled.
"""

import ctypes
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
from pipelines.video.frame_reader import Alive, Frame, file_frames, file_timeline
from pipelines.video.image_folder import images_frames, images_timeline
from pipelines.video.listing import Video
from pipelines.video.probe import VideoInfo, probe_file

_HEAD = struct.Struct("<II")  # bytes of JSON, bytes of pixels
_START = "import sys; sys.path.insert(0, sys.argv[1]); from pipelines.video.decoder_process import serve; serve()"
_ROOT = str(Path(__file__).parents[1])
_NONE = memoryview(b"")
_SETTLE = 5  # seconds that a killed process gets to be gone
_SIGNS = 10  # of life, at most, within the time limit

Answer = dict[str, Any]


class Child:
    """A decoding process, started when it is first asked and again after it was lost."""

    def __init__(self, time_limit: float) -> None:
        self._limit = time_limit
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: str | None = None
        self._waited = 0.0
        self._pixels = 0

    def ask(self, video: Video, question: Answer, data: bytes = b"") -> Iterator[Answer]:
        """The answers, one by one; where one comes with `bytes`, call `fill` before going on.

        The limit is on the time the parent waits for an answer or a sign of life: a long video may take long, and what
        the parent does between answers is its own affair.

        Raises:
            BadItem: what the child says is wrong with the video; nothing was heard of it for too long; it crashed.
            RuntimeError: it is still answering another question.
        """
        if self._asked is not None:
            raise RuntimeError(
                f"The windows of {self._asked} are still being read. Read them to their end, close them, or use "
                f"another VideoDecoder."
            )
        self._asked = video.path
        whole = False
        process = self._running()
        about = {"path": video.path, "images": video.images, "limit": self._limit, "bytes": len(data)}
        text = json.dumps({**question, **about})
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
                answer = {**json.loads(body), "bytes": self._pixels}
                if "alive" in answer:
                    continue
                if whole := "bad" in answer or "end" in answer:
                    self._asked = None
                if "bad" in answer:
                    raise BadItem(video.path, *answer["bad"])
                yield answer
                if whole:
                    return
        finally:
            if not whole:  # It is still talking about this video.
                self._asked = None
                self.close()

    def fill(self, video: Video, pixels: memoryview) -> None:
        """Reads the bytes of the last answer to where they belong.

        Raises:
            BadItem: as `ask`.
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
            with suppress(BrokenPipeError):  # a question it will not hear
                pipe.close()
        try:
            process.wait(_SETTLE)
        except subprocess.TimeoutExpired:  # waiting for a disk or network that does not answer
            logging.getLogger(__name__).warning("the decoding process %d does not end", process.pid)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:  # Not multiprocessing: it would import the main module, Ray's worker, once more.
            words = [sys.executable, "-c", _START, _ROOT]
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
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
            answered = ready.poll(max(0.0, self._limit - self._waited) * 1000)
            self._waited += time.monotonic() - began
            if not answered:
                raise BadItem(
                    video.path,
                    "decode",
                    f"the decoder gave no sign of life for longer than {self._limit:g} s, which is the limit "
                    f"(--time-limit of jobs/annotate.py)",
                )
            count = os.readv(pipe, [into])
            if not count:
                raise BadItem(video.path, "decode", f"the decoder crashed on it ({_ending(process)})")
            into = into[count:]


def serve() -> None:
    """The child: answers the questions on its standard input until that ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # What libraries print must not end up among the pixels.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; when that ends, so does the pipe.
    for line in sys.stdin.buffer:
        question = json.loads(line)
        data = sys.stdin.buffer.read(question["bytes"])
        video = Video(question["path"], question["images"])
        # A parent that was killed cannot end a child that hangs: then the clock does, without Python's help.
        alone = question["limit"] + _SETTLE
        signal.setitimer(signal.ITIMER_REAL, alone)
        alive = _Alive(answers, question["limit"] / _SIGNS, alone)
        try:
            for answer, pixels in _answers(video, question, data, alive):
                signal.setitimer(signal.ITIMER_REAL, 0)
                _send(answers, answer, pixels)
                signal.setitimer(signal.ITIMER_REAL, alone)
        except BadItem as error:
            _send(answers, {"bad": [error.stage, error.reason]})
        except BrokenPipeError:
            return
        except (ValueError, OSError, MemoryError, ArithmeticError) as error:  # what libraries raise at odd files
            _send(answers, {"bad": ["decode", f"it cannot be decoded ({type(error).__name__}: {error})"]})
        signal.setitimer(signal.ITIMER_REAL, 0)
        _trim()


class _Alive:
    """Tells the parent, now and then, that the child is at work although no answer comes yet."""

    def __init__(self, answers: Any, every: float, alone: float) -> None:
        self._answers, self._every, self._alone = answers, every, alone
        self._said = time.monotonic()

    def __call__(self) -> None:
        """To be called after every frame."""
        if time.monotonic() - self._said < self._every:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            _send(self._answers, {"alive": True})
        except BrokenPipeError:
            sys.exit()  # Not as the error it is: whoever has the file open would take it for one of the file's.
        signal.setitimer(signal.ITIMER_REAL, self._alone)
        self._said = time.monotonic()


def _answers(video: Video, question: Answer, data: bytes, alive: Alive) -> Iterator[tuple[Answer, memoryview]]:
    if question["ask"] == "probe":
        info = images_timeline(video).info if video.images else probe_file(video)
        yield {"info": asdict(info)}, _NONE
        yield {"end": ""}, _NONE
        return
    if question["ask"] == "timeline":
        timeline = images_timeline(video) if video.images else file_timeline(video, question["shots"], alive)
        keys, times = timeline.keys, timeline.times
        names = keys if isinstance(keys, tuple) else None
        numbers = np.empty(0, np.int64) if isinstance(keys, tuple) else keys
        rest = {"counted": timeline.counted, "cuts": timeline.cuts, "note": timeline.note}
        yield (
            {"info": asdict(timeline.info), "names": names, "frames": len(times), **rest},
            memoryview(numbers.astype(np.int64).tobytes() + times.astype(np.float64).tobytes()),
        )
        yield {"end": ""}, _NONE
        return
    info = VideoInfo(**question["info"])
    if video.images:
        found = images_frames(video, info, question["names"])
    else:
        found = file_frames(video, info, np.frombuffer(data, np.int64), question["counted"], question["seek"], alive)
    damage = ""
    for frame in found:
        if isinstance(frame, Frame):
            yield {"key": frame.key, "damage": frame.damage}, frame.image.data.cast("B")
        else:
            damage = frame.reason
    yield {"end": damage}, _NONE


def _send(pipe: Any, answer: Answer, pixels: memoryview = _NONE) -> None:
    text = json.dumps(answer).encode()
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


def _trim() -> None:
    """Gives freed memory back: opening a long file many times leaves its index in holes of the heap (glibc only)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
