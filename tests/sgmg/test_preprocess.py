import numpy as np
import pytest
import torch

from sgmg.preprocess import MEAN, STD, normalize, pad_clips, pad_to_minimum, resize_padding


def test_normalized_channels_are_red_green_blue() -> None:
    frames = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    frames[0, 0, 1] = (255, 51, 0)
    pixels = normalize(frames)
    expected = [(value - mean) / std for value, mean, std in zip((1, 0.2, 0), MEAN, STD, strict=True)]
    assert pixels.shape == (1, 3, 2, 2)
    torch.testing.assert_close(pixels[0, :, 0, 1], torch.tensor(expected))


def test_a_mirrored_view_of_frames_is_normalized_like_a_copy() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 4, 6, 3), dtype=np.uint8)
    mirrored = frames[:, :, ::-1]
    torch.testing.assert_close(normalize(mirrored), normalize(frames).flip(-1))


def test_clips_are_padded_below_and_to_the_right_to_a_multiple() -> None:
    clips = [torch.randn(2, 3, 130, 150), torch.randn(2, 3, 140, 131)]
    frames, padding, sizes = pad_clips(clips, multiple=32)
    assert frames.shape == (2, 2, 3, 160, 160)
    assert sizes.tolist() == [[130, 150], [140, 131]]
    for clip, padded, mask in zip(clips, frames, padding, strict=True):
        h, w = clip.shape[-2:]
        torch.testing.assert_close(padded[..., :h, :w], clip)
        assert padded.count_nonzero() == clip.count_nonzero()
        assert not mask[:h, :w].any()
        assert mask.sum() == mask.numel() - h * w


@pytest.mark.parametrize(("multiple", "side"), [(16, 144), (32, 160)])
def test_small_clips_are_padded_up_to_what_the_model_takes(multiple: int, side: int) -> None:
    frames, _, sizes = pad_clips([torch.randn(1, 3, 20, 30)], multiple)
    assert frames.shape[-2:] == (side, side)
    assert sizes.tolist() == [[20, 30]]


def test_a_clip_of_a_whole_multiple_is_not_padded() -> None:
    frames, padding, _ = pad_clips([torch.randn(1, 3, 160, 192)], 32)
    assert frames.shape[-2:] == (160, 192)
    assert not padding.any()


def test_clips_of_different_length_are_refused_with_their_lengths() -> None:
    with pytest.raises(ValueError, match=r"these have \[1, 3\]"):
        pad_clips([torch.randn(3, 3, 8, 8), torch.randn(1, 3, 8, 8)], 32)


def test_no_clip_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="No clip was given"):
        pad_clips([], 32)


def test_a_batch_grows_to_the_minimum_and_what_is_added_is_padding() -> None:
    frames, padding = torch.randn(1, 2, 3, 100, 202), torch.zeros(1, 100, 202, dtype=torch.bool)
    padding[:, :, 190:] = True
    grown, mask = pad_to_minimum(frames, padding, multiple=4)
    assert grown.shape == (1, 2, 3, 132, 204)
    torch.testing.assert_close(grown[..., :100, :202], frames)
    assert grown.count_nonzero() == frames.count_nonzero()
    assert not mask[:, :100, :190].any()
    assert mask.sum() == 132 * 204 - 100 * 190


@pytest.mark.parametrize(("height", "width"), [(20, 26), (7, 5), (3, 13), (11, 1)])
def test_a_cell_of_a_coarser_level_takes_the_padding_of_its_first_pixel(height: int, width: int) -> None:
    padding = torch.rand(2, 40, 52) > 0.5
    coarse = resize_padding(padding, height, width)
    # PyTorch's nearest multiplies by the ratio of the sides, rounded to float32.
    rows = [int(i * np.float32(40 / height)) for i in range(height)]
    columns = [int(j * np.float32(52 / width)) for j in range(width)]
    torch.testing.assert_close(coarse, padding[:, rows][:, :, columns])


def test_read_only_frames_are_normalized_without_a_warning() -> None:
    frames = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    frames.setflags(write=False)
    assert normalize(frames).shape == (1, 3, 4, 4)
