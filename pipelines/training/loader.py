"""Batches of optimiser steps, loaded ahead by threads, epoch after epoch."""

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from pipelines.clips.collate import collate
from pipelines.clips.slots import Slot
from pipelines.clips.stream import Streaming, TrainData, train
from pipelines.sources.sentences import MAX_TOKENS, too_long
from sgmg.tokenizer import Tokenizer
from sgmg.train_step import MicroBatch

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StepBatch:
    """Batch of one optimiser step of this rank."""

    step: int  # of the run
    micro_batches: tuple[MicroBatch, ...]
    slots: tuple[Slot, ...]  # without their clips, for logs
    sentences: tuple[tuple[str, ...], ...]  # of each micro-batch

    @property
    def clips(self) -> int:
        """Number of clips that are learned from."""
        return sum(not slot.dropped and bool(slot.sample) for slot in self.slots)


@dataclass(frozen=True, slots=True)
class StepLoader:
    """Loader of the batches of one rank, from one step to another."""

    data: TrainData
    tokenizer: Tokenizer
    rank: int
    world: int
    start: int  # first optimiser step of the run
    end: int  # one past the last step
    ahead: int  # steps that are loaded ahead
    streaming: Streaming
    pin: bool = False

    def steps(self) -> Iterator[StepBatch]:
        """Yields the batch of every step from `start` to `end`. The next epoch's pipeline starts before this one ends.

        Until then it loads one step ahead, so that two pipelines hold little more than one.

        Raises:
            Exception: the error of the pipeline, at the step that could not be made.
        """
        per_epoch = self.data.plan(0).steps
        current: Prefetcher[StepBatch] | None = None
        step = self.start
        while step < self.end:
            epoch, first = divmod(step, per_epoch)
            current = current or Prefetcher(self._epoch(epoch, first), 1)
            current.allow(self.ahead - 1)
            upcoming: Prefetcher[StepBatch] | None = None
            last = min((epoch + 1) * per_epoch, self.end)
            # Starting a pipeline takes seconds: the next one starts while some of this one's steps are left.
            soon = max(step, last - max(4 * self.ahead, per_epoch // 10))
            try:
                while step < last:
                    if upcoming is None and step >= soon and last < self.end:
                        upcoming = Prefetcher(self._epoch(epoch + 1, 0), 1)
                    yield next(current)
                    step += 1
            except BaseException:
                if upcoming is not None:
                    upcoming.close()
                raise
            finally:
                current.close()
            current = upcoming

    def _epoch(self, epoch: int, first: int) -> Iterator[StepBatch]:
        before = epoch * self.data.plan(epoch).steps
        for slots in train(self.data, epoch, self.rank, self.world, first, self.streaming):
            step = before + slots[0].step
            slots = tuple(with_fitting_sentences(slot, self.tokenizer) for slot in slots)
            passes = [
                slots[first : first + self.data.clips_per_pass]
                for first in range(0, len(slots), self.data.clips_per_pass)
            ]
            micro_batches = tuple(self._micro_batch(step, one) for one in passes)
            sentences = tuple(tuple(_sentences(one)) for one in passes)
            # Without the clips: batches in the queue would hold every frame twice.
            bare = tuple(replace(slot, clip=None) for slot in slots)
            yield StepBatch(step, micro_batches, bare, sentences)

    def _micro_batch(self, step: int, slots: tuple[Slot, ...]) -> MicroBatch:
        length = self.data.parts[0].recipe.length
        batch, targets = collate([slot.clip for slot in slots], self.tokenizer, length, pin=self.pin)
        seed = np.random.SeedSequence([self.data.seed, step, slots[0].lane]).generate_state(1)[0]
        return MicroBatch(batch, targets, int(seed))


def with_fitting_sentences(slot: Slot, tokenizer: Tokenizer) -> Slot:
    """Returns a slot without the sentences that the text encoder cannot take, or dropped if its own is one."""
    clip = slot.clip
    if clip is None or not (long := {target.text for target in clip.targets if too_long(target.text, tokenizer.count)}):
        return slot
    if clip.text in long:
        return replace(slot, clip=None, dropped=f"sentence of more than {MAX_TOKENS} tokens")
    others = tuple(target for target in clip.sibling_samples if target.text not in long)
    return replace(slot, clip=replace(clip, sibling_samples=others))


def _sentences(slots: tuple[Slot, ...]) -> Iterator[str]:
    """Yields the expressions of one micro-batch, in order."""
    for slot in slots:
        if slot.clip is not None:
            yield from (target.text for target in slot.clip.targets)


class Prefetcher(Generic[T]):
    """An iterator whose items are made by a thread, at most `ahead` items before they are taken."""

    def __init__(self, items: Iterator[T], ahead: int) -> None:
        self._items = items
        self._ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()
        self._free = threading.Semaphore(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __next__(self) -> T:
        item, error = self._ready.get()
        self._free.release()
        if error is not None:
            raise error
        assert item is not None
        return item

    def allow(self, more: int) -> None:
        """Allows so many more items ahead."""
        if more:
            self._free.release(more)

    def close(self) -> None:
        """Ends the thread; items that were not taken are lost."""
        self._closed.set()

    def _work(self) -> None:
        try:
            for item in self._items:
                if not self._put(item, None):
                    return
            self._put(None, StopIteration())
        except BaseException as error:
            self._put(None, error)
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()

    def _put(self, item: T | None, error: BaseException | None) -> bool:
        while not self._closed.is_set():
            if self._free.acquire(timeout=0.2):
                self._ready.put((item, error))
                return True
        return False


class Stopwatch:
    """A clock of laps, and of the time in each that was spent waiting for data."""

    def __init__(self) -> None:
        self.waited, self.since = 0.0, time.perf_counter()

    def wait_for(self, steps: Iterator[StepBatch]) -> StepBatch | None:
        """Returns the next batch, None after the last one; counts the time it took."""
        started = time.perf_counter()
        batch = next(steps, None)
        self.waited += time.perf_counter() - started
        return batch

    def exclude(self, since: float) -> None:
        """Excludes the time from `since`, a `time.perf_counter()`, until now."""
        self.since += time.perf_counter() - since

    def lap(self) -> tuple[float, float]:
        """Starts a new lap. Returns the seconds of the last one, and those of them spent waiting."""
        now = time.perf_counter()
        passed, waited = now - self.since, self.waited
        self.since, self.waited = now, 0.0
        return passed, waited
