"""Clips of plain arrays to what the model eats."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.clips.clip import Clip, Target
from pipelines.clips.collate import collate
from sgmg.batch import ClipBatch, ClipTargets
from sgmg.preprocess import normalize, normalize_clips, pad_clips
from sgmg.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the dog on the left", "a ball", "nothing"])


def clip_of(t: int = 2, height: int = 150, width: int = 200, **changes: Any) -> Clip:
    """Noise, in which a rectangle is the object."""
    k = 1 if changes.get("target_frame") is not None else t
    masks = np.zeros((k, height, width), dtype=np.bool_)
    masks[:, 30:60, 40:100] = True
    values: dict[str, Any] = {
        "frames": np.random.default_rng(height).integers(0, 256, (t, height, width, 3), dtype=np.uint8),
        "masks": masks,
        "boxes": np.tile(np.array([40, 30, 99, 59], dtype=np.float32), (k, 1)),
        "valid": np.ones(k, dtype=np.bool_),
        "text": "the dog",
        "target_frame": None,
    }
    return Clip(**values | changes)


def made(*clips: Clip | None, length: int = 2) -> tuple[ClipBatch, ClipTargets]:
    return collate(clips, TOKENIZER, length)


@pytest.mark.parametrize("clips", [[clip_of()], [clip_of(), clip_of(height=170, width=129), clip_of(height=20)]])
def test_frames_are_those_of_inference_to_the_bit(clips: Sequence[Clip]) -> None:
    batch, _ = made(*clips)
    frames, padding, sizes = pad_clips([normalize(clip.frames) for clip in clips], 32)
    assert torch.equal(normalize_clips(batch.frames, batch.padding), frames)
    assert torch.equal(batch.padding, padding)
    assert torch.equal(batch.sizes, sizes)


def test_a_batch_is_padded_to_a_multiple_of_32_below_and_to_the_right() -> None:
    clips = [clip_of(height=150, width=200), clip_of(height=170, width=180)]
    batch, targets = made(*clips)
    assert batch.frames.shape == (2, 2, 3, 192, 224)
    assert batch.sizes.tolist() == [[150, 200], [170, 180]]
    for place, clip in enumerate(clips):
        height, width = clip.frames.shape[1:3]
        assert not batch.padding[place, :height, :width].any()
        assert batch.padding[place].sum() == 192 * 224 - height * width
        assert not batch.frames[place, :, :, batch.padding[place]].any()
        assert torch.equal(targets.masks[place, :, :height, :width], torch.from_numpy(clip.masks))
        assert targets.masks[place].sum() == clip.masks.sum()


def test_a_clip_smaller_than_the_model_takes_grows_to_the_smallest_that_fits() -> None:
    batch, targets = made(clip_of(height=64, width=110))
    assert batch.frames.shape[-2:] == targets.masks.shape[-2:] == (160, 160)
    assert batch.sizes.tolist() == [[64, 110]]


def test_boxes_are_middles_and_sides_in_units_of_the_frame_without_its_padding() -> None:
    _, targets = made(clip_of(height=150, width=200))
    expected = torch.tensor([(40 + 99) / 2 / 200, (30 + 59) / 2 / 150, 59 / 200, 29 / 150])
    torch.testing.assert_close(targets.boxes, expected.expand(1, 2, 4))


def test_the_box_of_an_invalid_frame_is_zero_and_its_mask_stays() -> None:
    clip = clip_of(valid=np.array([True, False]))
    _, targets = made(clip)
    assert targets.valid.tolist() == [[True, False]]
    assert not targets.boxes[0, 1].any()
    assert targets.masks[0, 1].sum() == clip.masks[1].sum()


def test_every_clip_has_its_sentence() -> None:
    texts = ["the dog on the left", "a ball"]
    batch, targets = made(*(clip_of(text=text) for text in texts))
    token_ids, padding = TOKENIZER(texts)
    assert torch.equal(batch.token_ids, token_ids)
    assert torch.equal(batch.token_padding, padding)
    assert batch.clip_of.tolist() == [0, 1]
    assert batch.target_frame is None
    assert targets.weight.tolist() == [1, 1]


def test_further_sentences_of_a_clip_are_about_its_frames() -> None:
    first, second = clip_of(text="a ball"), clip_of(height=170)
    other = Target("the left", ~first.masks, first.boxes + 1, np.array([False, True]))
    batch, targets = made(replace(first, sibling_samples=(other,)), second)
    assert batch.frames.shape[0] == 2
    assert batch.clip_of.tolist() == [0, 0, 1]
    assert torch.equal(batch.token_ids, TOKENIZER(["a ball", "the left", "the dog"])[0])
    assert targets.weight.tolist() == [1, 1, 1]
    assert torch.equal(targets.masks[1, :, :150, :200], ~targets.masks[0, :, :150, :200])
    assert targets.valid.tolist() == [[True, True], [False, True], [True, True]]
    torch.testing.assert_close(targets.boxes[1, 1] - targets.boxes[0, 1], torch.tensor([1 / 200, 1 / 150, 0, 0]))


def test_a_dropped_clip_is_left_out_where_another_is_there() -> None:
    kept = clip_of()
    assert_equal(made(None, kept, None), made(kept))


def test_a_dropped_clip_alone_stands_as_a_placeholder_of_weight_zero() -> None:
    batch, targets = made(None, None, length=5)
    assert batch.frames.shape == (1, 5, 3, 160, 160)
    assert targets.weight.tolist() == [0]
    assert not targets.valid.any()
    assert not targets.masks.any()
    assert not targets.boxes.any()
    assert batch.token_ids.shape[0] == 1


def test_asked_frames_are_told_and_have_one_target_each() -> None:
    batch, targets = made(clip_of(t=5, target_frame=3), clip_of(t=5, target_frame=0), length=5)
    assert batch.target_frame is not None
    assert batch.target_frame.tolist() == [3, 0]
    assert targets.masks.shape[:2] == targets.valid.shape == (2, 1)
    assert targets.boxes.shape == (2, 1, 4)


def assert_equal(one: tuple[ClipBatch, ClipTargets], other: tuple[ClipBatch, ClipTargets]) -> None:
    for left, right in zip(one, other, strict=True):
        for name in left.__slots__:
            values = getattr(left, name), getattr(right, name)
            assert values == (None, None) or torch.equal(*values), name
