"""The thread of a replica that runs the model: jobs of all requests, in turns."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from pipelines.errors import BadItem
from pipelines.inference.predictor import Predictor
from pipelines.inference.segment_clip import EncodedClip
from pipelines.serve.clip_cache import ClipCache
from pipelines.serve.fair_queue import FairQueue
from pipelines.serve.shared_forward import MOST_TOGETHER, SharedForward
from pipelines.serve.window_job import WindowJob, WindowReply


@dataclass(slots=True, eq=False)
class _Task:
    """Something to do on the thread: a window, or any other use of the model."""

    future: Future[Any] = field(default_factory=Future)
    job: WindowJob | None = None
    call: Callable[[], Any] | None = None


class ModelWorker:
    """Runs the model on a thread of its own, so that the replica goes on listening.

    Requests take turns, window by window. Small windows of one size that wait at the same time share a forward pass,
    where `SharedForward` finds that exact.

    Args:
        predictor: holds the model.
        cache: of encoded clips.
    """

    def __init__(self, predictor: Predictor, cache: ClipCache) -> None:
        self.predictor, self.cache = predictor, cache
        self._shared = SharedForward(predictor)
        self._queue: FairQueue[_Task] = FairQueue()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Number of jobs that wait."""
        return len(self._queue)

    def answer(self, job: WindowJob) -> Future[WindowReply]:
        """Adds a window; its future is cancelled by `cancel`."""
        return self._add(job.request, _Task(job=job))

    def call(self, request: str, function: Callable[[], Any]) -> Future[Any]:
        """Adds a call that uses the model; requests take turns with those of windows."""
        return self._add(request, _Task(call=function))

    def close(self) -> None:
        """Ends the thread after the job that it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _add(self, request: str, task: _Task) -> Future[Any]:
        with self._changed:
            self._queue.add(request, task)
            self._changed.notify()
        task.future.add_done_callback(lambda future: self._forget(task) if future.cancelled() else None)
        return task.future

    def _forget(self, task: _Task) -> None:
        with self._changed:
            self._queue.remove(task)

    def _run(self) -> None:
        while tasks := self._next():
            jobs = [task for task in tasks if task.job]
            if jobs:
                self._answer(jobs)
            for task in tasks:
                if task.call:
                    _settle(task.future, task.call)
            del tasks, jobs  # nothing of a request is held while the thread waits

    def _next(self) -> list[_Task]:
        """Returns the tasks to do next, which share a forward pass if there are several; none at the end."""
        started: list[_Task] = []
        while not started:
            with self._changed:
                self._changed.wait_for(lambda: len(self._queue) or self._closed)
                if self._closed:
                    return []
                taken = self._take()
            started = [task for task in taken if task.future.set_running_or_notify_cancel()]
        return started

    def _take(self) -> list[_Task]:
        """Takes the next task, and those that may share its forward pass."""
        first = self._queue.take()
        return [first, *self._queue.take_alike(lambda task: self._alike(first, task), MOST_TOGETHER - 1)]

    def _alike(self, first: _Task, other: _Task) -> bool:
        if not (first.job and other.job) or self._kept(first.job) or self._kept(other.job):
            return False
        return self._shared.fits(first.job.frames, other.job.frames)

    def _kept(self, job: WindowJob) -> EncodedClip | None:
        return self.cache.get(job.clip) if job.clip else None

    def _answer(self, tasks: Sequence[_Task]) -> None:
        jobs = [task.job for task in tasks if task.job]
        try:
            clips = self._clips(jobs)
        except Exception as error:
            for task in tasks:
                task.future.set_exception(error)
            return
        for task, job, clip in zip(tasks, jobs, clips, strict=True):
            _settle(task.future, lambda job=job, clip=clip: self._reply(job, clip))

    def _clips(self, jobs: Sequence[WindowJob]) -> list[EncodedClip | None]:
        """Returns the encoded clips; None where the GPU has no room to encode a clip as a whole."""
        if (kept := self._kept(jobs[0])) is not None:
            return [kept]
        try:
            clips = self._shared.encode([job.frames for job in jobs])
        except torch.OutOfMemoryError:
            return [None] * len(jobs)
        for job, clip in zip(jobs, clips, strict=True):
            if job.clip:
                self.cache.put(job.clip, clip)
        return list(clips)

    def _reply(self, job: WindowJob, clip: EncodedClip | None) -> WindowReply:
        if not job.frames.record.expressions:
            return WindowReply()
        try:
            return WindowReply(tuple(self.predictor.answer(job.frames, clip)))
        except BadItem as error:
            return WindowReply(problem=error.reason)


def _settle(future: Future[Any], call: Callable[[], Any]) -> None:
    try:
        future.set_result(call())
    except Exception as error:
        future.set_exception(error)
