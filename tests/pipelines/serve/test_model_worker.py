import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from pipelines.inference.model_frames import ModelFrames
from pipelines.inference.predictor import Predictor
from pipelines.serve.clip_cache import ClipCache
from pipelines.serve.model_worker import ModelWorker
from pipelines.serve.window_job import WindowJob
from prepared_data import SENTENCES

MakeWindow = Callable[..., ModelFrames]
PATIENCE = 60


@pytest.fixture
def worker(predictor: Predictor) -> Iterator[ModelWorker]:
    """A worker that keeps a megabyte of clips."""
    made = ModelWorker(predictor, ClipCache(2**20))
    yield made
    made.close()
    assert not made.alive


class Held:
    """Holds the thread of a worker until it is let go."""

    def __init__(self, worker: ModelWorker) -> None:
        self._go, begun = threading.Event(), threading.Event()
        worker.call("held", lambda: (begun.set(), self._go.wait(PATIENCE)))
        assert begun.wait(PATIENCE)

    def let_go(self) -> None:
        """Lets the thread go on."""
        self._go.set()


def test_answers_are_those_of_the_predictor(worker: ModelWorker, predictor: Predictor, window: MakeWindow) -> None:
    frames = window(1, *SENTENCES)
    reply = worker.answer(WindowJob("r", frames)).result(PATIENCE)
    assert reply.answers == tuple(predictor.answer(frames))
    assert reply.problem == ""


def test_windows_that_wait_together_get_the_answers_of_each_alone(
    worker: ModelWorker, predictor: Predictor, window: MakeWindow
) -> None:
    windows = [window(seed, SENTENCES[seed % 3]) for seed in range(6)]
    for _ in range(3):  # the first time is a trial
        held = Held(worker)
        futures = [worker.answer(WindowJob(str(seed), one)) for seed, one in enumerate(windows)]
        assert worker.waiting == 6
        held.let_go()
        for future, one in zip(futures, windows, strict=True):
            assert future.result(PATIENCE).answers == tuple(predictor.answer(one))


def test_a_kept_clip_is_encoded_once(
    worker: ModelWorker, predictor: Predictor, window: MakeWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = predictor.encode

    def counted(clips: Any) -> Any:
        encoded.append(len(clips))
        return encode(clips)

    monkeypatch.setattr(predictor, "encode", counted)
    assert worker.answer(WindowJob("r", window(1), "clip")).result(PATIENCE).answers == ()
    for sentence in SENTENCES:
        frames = window(1, sentence)
        reply = worker.answer(WindowJob("r", frames, "clip")).result(PATIENCE)
        assert reply.answers == tuple(predictor.answer(frames))
    assert encoded == [1]


def test_a_window_that_is_cancelled_before_its_turn_is_never_seen(worker: ModelWorker, window: MakeWindow) -> None:
    held = Held(worker)
    future = worker.answer(WindowJob("r", window(1, "a dog"), "clip"))
    assert future.cancel()
    assert worker.waiting == 0
    held.let_go()
    with pytest.raises(CancelledError):
        future.result(PATIENCE)
    assert worker.call("other", lambda: 5).result(PATIENCE) == 5
    assert len(worker.cache) == 0


def test_an_error_is_that_of_its_own_window(worker: ModelWorker, window: MakeWindow) -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        worker.call("r", fail).result(PATIENCE)
    assert len(worker.answer(WindowJob("r", window(1, "a dog"))).result(PATIENCE).answers) == 1
