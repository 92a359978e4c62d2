"""Frames come one by one, and each is answered from those before it."""

import numpy as np
import pytest
import torch

from prepared_data import SENTENCES, pixels_of, tiny_model
from rounding import in_float64
from sgmg.model import SgMg
from sgmg.segmenter import Segmenter
from sgmg.streaming import SegmenterStream, StreamAnswer, mask_overlaps
from sgmg.tokenizer import Tokenizer

MAN, DOG, BALL = SENTENCES
SIDE = 130


@pytest.fixture(scope="module")
def model() -> SgMg:
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(SENTENCES)


@pytest.fixture(scope="module")
def segmenter(model: SgMg, tokenizer: Tokenizer) -> Segmenter:
    return Segmenter(model, tokenizer, device="cpu", short_side=SIDE)


def pushed(stream: SegmenterStream, frames: np.ndarray) -> list[StreamAnswer]:
    return [stream.push(frame) for frame in frames]


def assert_identical(one: StreamAnswer, other: StreamAnswer, rows: slice = slice(None)) -> None:
    for part, of_other in zip(one[:3], other[:3], strict=True):
        np.testing.assert_array_equal(part[rows], of_other)


def test_later_frames_change_nothing(segmenter: Segmenter) -> None:
    frames = pixels_of(0, 4)
    other = np.concatenate([frames[:3], pixels_of(1, 1)])
    found, of_other = (pushed(segmenter.stream([MAN, DOG], context=3), some) for some in (frames, other))
    for one, same in zip(found[:3], of_other[:3], strict=True):
        assert one.masks.shape == (2, 40, 56)
        assert_identical(one, same)
    assert (found[3].scores != of_other[3].scores).all()


@pytest.mark.parametrize(
    ("context", "stride", "seen"),
    [(3, 1, [[0], [0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]), (2, 3, [[0], [1], [2], [0, 3], [1, 4]])],
)
def test_the_backbone_sees_so_many_frames_before(
    segmenter: Segmenter, context: int, stride: int, seen: list[list[int]]
) -> None:
    frames = np.stack([np.full((40, 56, 3), 50 * number, np.uint8) for number in range(5)])
    shown: list[list[int]] = []

    def note(_: object, given: tuple[torch.Tensor]) -> None:
        values = given[0][0, :, 0, 0, 0] * 0.229 + 0.485
        shown.append((values * 255 / 50).round().int().tolist())

    with segmenter.model.backbone.register_forward_pre_hook(note):
        pushed(segmenter.stream([MAN], context=context, stride=stride), frames)
    assert shown == seen


def test_the_last_frame_is_what_the_segmenter_says_of_the_clip(tokenizer: Tokenizer) -> None:
    with in_float64():
        segmenter = Segmenter(tiny_model(), tokenizer, device="cpu", short_side=SIDE)
        frames = pixels_of(0, 3)
        wanted = segmenter(frames, [DOG])
        found = pushed(segmenter.stream([DOG], context=3), frames)[-1]
        np.testing.assert_allclose(found.scores, wanted.scores[:, -1])
        np.testing.assert_allclose(found.boxes, wanted.boxes[:, -1])
        np.testing.assert_array_equal(found.masks, wanted.masks[:, -1])
        assert 0.01 < found.masks.mean() < 0.99


def test_sentences_that_come_and_go_do_not_change_the_others(segmenter: Segmenter) -> None:
    frames = pixels_of(0, 4)
    alone = pushed(segmenter.stream([DOG], context=2), frames)
    stream = segmenter.stream([DOG], context=2)
    assert_identical(stream.push(frames[0]), alone[0])
    stream.add(MAN)
    assert_identical(stream.push(frames[1]), alone[1], slice(0, 1))
    stream.ask([BALL, DOG])
    answer = stream.push(frames[2])
    assert answer.sentences == stream.sentences == (BALL, DOG)
    assert_identical(answer, alone[2], slice(1, 2))
    stream.remove(BALL)
    assert_identical(stream.push(frames[3]), alone[3])


def test_a_sentence_that_comes_later_sees_the_frames_before_it(segmenter: Segmenter) -> None:
    frames = pixels_of(0, 3)
    late = segmenter.stream(context=3)
    for frame in frames[:2]:
        assert late.push(frame).masks.shape == (0, 40, 56)
    late.add(MAN)
    assert late.push(frames[2]).scores.shape == (1,)
    blind = segmenter.stream([MAN], context=3)
    assert (late.push(frames[2]).scores != blind.push(frames[2]).scores).all()


def test_a_multi_object_model_is_asked_in_groups(tokenizer: Tokenizer) -> None:
    with in_float64():
        multi = tiny_model(multi_object=True)
        frame = pixels_of(0, 1)[0]
        for together, groups in ((2, [[MAN, DOG], [BALL]]), (3, [[MAN, DOG, BALL]])):
            segmenter = Segmenter(multi, tokenizer, device="cpu", short_side=SIDE, sentences_together=together)
            found = segmenter.stream(SENTENCES).push(frame)
            wanted = np.concatenate([segmenter(frame[None], group).scores[:, 0] for group in groups])
            np.testing.assert_allclose(found.scores, wanted)


def test_state_does_not_grow(segmenter: Segmenter) -> None:
    stream = segmenter.stream([MAN], context=2, stride=2)
    frames = pixels_of(0, 6)
    pushed(stream, frames)
    full = stream.bytes
    pushed(stream, frames)
    assert stream.bytes == full
    stream.remove(MAN)  # frames alone cost little
    kept = stream.bytes
    for number in range(200):
        stream.push(frames[number % len(frames)])
    assert stream.bytes == kept == 3 * 3 * 4 * 144 * 192


def test_a_frame_of_another_size_begins_anew(segmenter: Segmenter) -> None:
    small, large = pixels_of(0, 2), pixels_of(1, 2, height=48, width=72)
    stream = segmenter.stream([MAN], context=3)
    pushed(stream, small)
    for one, wanted in zip(pushed(stream, large), pushed(segmenter.stream([MAN], context=3), large), strict=True):
        assert one.masks.shape == (1, 48, 72)
        assert_identical(one, wanted)


def test_streams_of_one_segmenter_do_not_mix(segmenter: Segmenter) -> None:
    one, other = segmenter.stream([MAN], 2), segmenter.stream([MAN], 2)
    mixed = []
    for mine, yours in zip(pixels_of(0, 3), pixels_of(1, 3), strict=True):
        mixed.append(one.push(mine))
        other.push(yours)
    for found, wanted in zip(mixed, pushed(segmenter.stream([MAN], 2), pixels_of(0, 3)), strict=True):
        assert_identical(found, wanted)


def test_an_object_that_is_not_seen_leaves_no_mask_behind(segmenter: Segmenter) -> None:
    kept = []
    for min_score in (0.0, 1.0):
        stream = segmenter.stream([MAN], min_score=min_score)
        empty = stream.bytes
        stream.push(pixels_of(0, 1)[0])
        kept.append(stream.bytes - empty - 3 * 4 * 144 * 192)
    assert kept == [130 * 182, 0]


def test_overlap_is_intersection_over_union_and_zero_without_a_mask() -> None:
    masks = torch.zeros(2, 2, 2, 2, dtype=torch.bool)
    masks[:, 0, 0] = True
    before = torch.zeros(2, 2, 2, dtype=torch.bool)
    before[0, :, 0] = True
    assert mask_overlaps(masks, before) == pytest.approx(np.array([[1 / 3, 0], [0, 0]]))


@pytest.mark.parametrize(("given", "said"), [({"context": 0}, "context=0"), ({"stride": 0}, "stride=0")])
def test_context_and_stride_must_be_positive(segmenter: Segmenter, given: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=f"{said} must be at least 1"):
        segmenter.stream([MAN], **given)


def test_a_score_above_one_is_said(segmenter: Segmenter) -> None:
    with pytest.raises(ValueError, match=r"min_score=30.0 must be between 0 and 1"):
        segmenter.stream([MAN], min_score=30.0)


def test_what_cannot_be_asked_is_said_and_changes_nothing(segmenter: Segmenter) -> None:
    stream = segmenter.stream([MAN])
    with pytest.raises(ValueError, match="'a man in a red shirt' is asked twice"):
        stream.add(MAN)
    with pytest.raises(ValueError, match="is empty"):
        stream.ask([DOG, "  "])
    with pytest.raises(ValueError, match=r"'the ball' is not asked. Remove one of \['a man"):
        stream.remove(BALL)
    assert stream.sentences == (MAN,)


@pytest.mark.usefixtures("as_users_run_it")
def test_what_is_no_frame_is_said(segmenter: Segmenter) -> None:
    with pytest.raises(ValueError, match="3 colours"):
        segmenter.stream([MAN]).push(np.zeros((40, 56, 4), np.uint8))
    with pytest.raises(ValueError, match=r"float64.*uint8"):
        segmenter.stream([MAN]).push(np.zeros((40, 56, 3)))
