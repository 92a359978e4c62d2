"""Steps on their way to the training: read ahead, in order, from any step on, over the ends of epochs."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines.clips.clip import Clip, Target
from pipelines.clips.slots import Slot
from pipelines.clips.stream import Streaming, TrainData
from pipelines.training.data import own_tokenizer, train_data
from pipelines.training.loader import Prefetcher, StepBatch, StepLoader, Stopwatch, with_fitting_sentences
from pipelines.training.recipes import PRETRAIN
from pipelines.training.step_files import picture_of
from sgmg.tokenizer import Tokenizer
from training_runs import MadeUp, made_up

WINDOW, LANES, TOGETHER = 4, 4, 2


def counting(end: int, taken: list[int]) -> Iterator[int]:
    for number in range(end):
        taken.append(number)
        yield number


def settled(taken: list[int]) -> int:
    """How many were taken once nothing more is."""
    before = -1
    while len(taken) != before:
        before = len(taken)
        time.sleep(0.3)
    return before


def test_items_are_made_before_they_are_asked_for_but_only_so_many() -> None:
    taken: list[int] = []
    ahead = Prefetcher(counting(50, taken), 3)
    assert settled(taken) == 4  # three that are ready, and one in the hand
    assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert settled(taken) == 9
    ahead.allow(2)
    assert settled(taken) == 11
    ahead.close()


def test_the_end_and_what_went_wrong_come_in_their_place() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("the third video is damaged")

    ahead = Prefetcher(failing(), 3)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="the third video is damaged"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(Prefetcher(iter(()), 1))


def test_closing_ends_the_thread_and_its_iterator() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    ahead = Prefetcher(items(), 2)
    assert next(ahead) == 1
    ahead.close()
    assert closed.wait(5)


def test_a_sentence_that_is_too_long_is_left_out_alone() -> None:
    long = "the dog " * 400
    tokenizer = Tokenizer.train(["the dog", "a cat"], vocabulary=300)
    assert tokenizer.count(long) > 512
    frames, masks = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), np.bool_)
    boxes, valid = np.zeros((2, 4), np.float32), np.ones(2, np.bool_)
    others = tuple(Target(text, masks, boxes, valid) for text in ("a cat", long, "a dog"))
    clip = Clip(frames, masks, boxes, valid, "the dog", None, others)
    slot = Slot(0, 0, "v/0", clip)
    kept = with_fitting_sentences(slot, tokenizer)
    assert kept.clip is not None
    assert [target.text for target in kept.clip.targets] == ["the dog", "a cat", "a dog"]
    own = with_fitting_sentences(replace(slot, clip=replace(clip, text=long)), tokenizer)
    assert (own.clip, own.dropped, own.sample) == (None, "sentence of more than 512 tokens", "v/0")
    short = replace(slot, clip=replace(clip, sibling_samples=()))
    assert with_fitting_sentences(short, tokenizer) is short
    # Many bytes, but few tokens: what counts is the tokenizer.
    words = Tokenizer.train(["incomprehensibilities " * 9], vocabulary=300)
    many = replace(slot, clip=replace(clip, text="incomprehensibilities " * 30, sibling_samples=()))
    assert with_fitting_sentences(many, words) is many


def test_a_stoptimer_tells_the_share_of_waiting_and_leaves_out_what_is_no_training() -> None:
    def slow() -> Iterator[StepBatch]:
        time.sleep(0.2)
        yield StepBatch(0, (), (), ())

    timer = Stopwatch()
    steps = slow()
    assert timer.wait_for(steps) is not None
    started = time.perf_counter()
    time.sleep(0.4)
    timer.exclude(started)
    assert timer.wait_for(steps) is None
    passed, waited = timer.lap()
    assert 0.2 <= waited <= passed < 0.4
    assert timer.lap()[1] == 0


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainData, Tokenizer]:
    """Images, of which two lanes share a forward pass; 82 sentences are 21 steps an epoch."""
    data: MadeUp = made_up(tmp_path_factory.mktemp("made-up"))
    config = replace(
        PRETRAIN["tiny"], data=(str(data.images),), short_sides=(96,), shuffle_window=WINDOW,
        global_batch=LANES, clips_per_pass=TOGETHER, sentences_per_clip=2,
    )  # fmt: skip
    return train_data(config, "images"), own_tokenizer(config.data, 300)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # Ray's logs
def test_a_run_that_goes_on_sees_what_the_rest_of_the_whole_run_saw_by_any_number_of_ranks(
    found: tuple[TrainData, Tokenizer],
) -> None:
    data, tokenizer = found
    per_epoch = data.plan(0).steps
    assert data.plan(0).samples % LANES  # so that the last step of an epoch has an empty place
    end, start = per_epoch + 3, per_epoch - 2

    def steps(rank: int, world: int, first: int) -> list[StepBatch]:
        streaming = Streaming(0.5, world, 0.5 * world, window_samples=8 * LANES)  # several read tasks an epoch
        return list(StepLoader(data, tokenizer, rank, world, first, end, 2, streaming).steps())

    whole = steps(0, 1, 0)
    assert [one.step for one in whole] == list(range(end))
    assert all(len(one.micro_batches) == LANES // TOGETHER for one in whole)
    seen = [slot.sample for one in whole[:per_epoch] for slot in one.slots if slot.sample]
    assert len(seen) == len(set(seen)) == data.plan(0).samples
    assert [slot.sample for slot in whole[0].slots] != [slot.sample for slot in whole[per_epoch].slots]

    ranks = [steps(rank, 2, start) for rank in range(2)]
    for one, *both in zip(whole[start:], *ranks, strict=True):
        assert {one.step} == {other.step for other in both}
        for number, forward in enumerate(one.micro_batches):
            (other,) = both[number].micro_batches
            assert other.seed == forward.seed
            torch.testing.assert_close(other.batch.frames, forward.batch.frames, atol=0, rtol=0)
            torch.testing.assert_close(other.batch.token_ids, forward.batch.token_ids, atol=0, rtol=0)
            torch.testing.assert_close(other.targets.masks, forward.targets.masks, atol=0, rtol=0)
            assert both[number].sentences == (one.sentences[number],)
    seeds = [forward.seed for one in whole for forward in one.micro_batches]
    assert len(set(seeds)) == len(seeds)

    last = whole[per_epoch - 1]  # two of its four places are empty
    assert last.clips == data.plan(0).samples % LANES
    assert [forward.targets.weight.any().item() for forward in last.micro_batches].count(False) <= 1
    for one in (whole[0], last):
        for forward, said in zip(one.micro_batches, one.sentences, strict=True):
            assert len(said) == (len(forward.targets.weight) if forward.targets.weight.any() else 0)
        assert picture_of(one).startswith(b"\x89PNG")
