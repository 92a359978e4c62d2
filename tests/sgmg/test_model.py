from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from rounding import in_float64
from sgmg.batch import ClipBatch, ClipOutput, VideoFeatures
from sgmg.config import SgMgConfig, SwinConfig
from sgmg.decoding import best_query
from sgmg.model import SgMg
from sgmg.preprocess import pad_clips
from sgmg.spectrum import gaussian, resize_attenuation

SIDE = 132  # the fewest pixels whose levels need no padding
TINY = SgMgConfig.preset("tiny")
IMAGES = replace(TINY, backbone=SwinConfig(8, (2, 2, 2, 2), (1, 2, 4, 8), video=False, window=(1, 7, 7)))


def shaken(config: SgMgConfig) -> SgMg:
    """A model off its initial values, at which boxes and heads are mute; in eval mode."""
    torch.manual_seed(0)
    model = SgMg(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model.eval()


@pytest.fixture(scope="module", autouse=True)
def _inference_in_float64() -> Iterator[None]:
    with torch.no_grad(), in_float64():
        yield


@pytest.fixture(scope="module")
def model() -> SgMg:
    return shaken(TINY)


def clips(b: int = 1, t: int = 1, height: int = SIDE, width: int = SIDE) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, padding, sizes of b clips of equal size."""
    return (
        torch.randn(b, t, 3, height, width),
        torch.zeros(b, height, width, dtype=torch.bool),
        torch.tensor([[height, width]] * b),
    )


def sentences(e: int) -> tuple[Tensor, Tensor]:
    """Word ids and padding of e expressions, each a word shorter than the one before."""
    padding = torch.arange(e + 2) >= e + 2 - torch.arange(e)[:, None]
    return torch.randint(4, 2000, (e, e + 2)), padding


def calls_of(module: nn.Module) -> list[tuple[int, ...]]:
    """Grows by the shape of the first input whenever the module is called."""
    shapes = []
    module.register_forward_pre_hook(lambda _module, inputs: shapes.append(tuple(inputs[0].shape)))
    return shapes


def one_of(out: ClipOutput, expression: int) -> tuple[Tensor, ...]:
    return out.scores[:, expression], out.boxes[:, expression], out.patch_masks[:, expression]


def test_many_expressions_of_a_clip_are_as_good_as_many_runs_and_the_backbone_runs_once() -> None:
    model = shaken(TINY)
    frames, padding, sizes = clips()
    token_ids, token_padding = sentences(4)
    runs = calls_of(model.backbone)
    video = model.encode_video(frames, padding)
    clip_of = torch.zeros(4, dtype=torch.long)
    together = model.segment(video, model.encode_text(token_ids, token_padding), sizes, clip_of)
    query = best_query(together.scores[-1])
    masks = model.refine(video, together, query)
    assert runs == [(1, 1, 3, SIDE, SIDE)]
    for e in range(4):
        length = int((~token_padding[e]).sum())
        video = model.encode_video(frames, padding)
        text = model.encode_text(token_ids[e : e + 1, :length], token_padding[e : e + 1, :length])
        alone = model.segment(video, text, sizes, clip_of[:1])
        torch.testing.assert_close(one_of(alone, 0), one_of(together, e))
        torch.testing.assert_close(model.refine(video, alone, query[e : e + 1])[0], masks[e])
    assert len(runs) == 5


def test_expressions_of_several_clips_are_told_apart(model: SgMg) -> None:
    frames, padding, sizes = clips(b=2)
    text = model.encode_text(*sentences(3))
    video, clip_of, query = model.encode_video(frames, padding), torch.tensor([1, 0, 1]), torch.tensor([4, 0, 2])
    together = model.segment(video, text, sizes, clip_of)
    masks = model.refine(video, together, query)
    for e, clip in enumerate(clip_of.tolist()):
        one = slice(clip, clip + 1)
        video = model.encode_video(frames[one], padding[one])
        alone = model.segment(video, text.expressions(slice(e, e + 1)), sizes[one], torch.tensor([0]))
        torch.testing.assert_close(one_of(alone, 0), one_of(together, e))
        torch.testing.assert_close(model.refine(video, alone, query[e : e + 1])[0], masks[e])


def test_asking_one_frame_of_a_clip_is_asking_all_and_keeping_that_one(model: SgMg) -> None:
    frames, padding, sizes = clips(b=2, t=3)
    text, clip_of, asked = model.encode_text(*sentences(2)), torch.tensor([0, 1]), torch.tensor([2, 0])
    one = model.encode_video(frames, padding, asked)
    every = model.encode_video(frames, padding)
    for narrow, wide in zip((*one.levels, *one.details), (*every.levels, *every.details), strict=True):
        torch.testing.assert_close(narrow[:, 0], torch.stack((wide[0, 2], wide[1, 0])))
    out, whole = (model.segment(video, text, sizes, clip_of) for video in (one, every))
    torch.testing.assert_close(out.scores[:, :, 0], torch.stack((whole.scores[:, 0, 2], whole.scores[:, 1, 0]), dim=1))
    query = torch.tensor([1, 3])
    drawn = model.refine(every, whole, query)
    torch.testing.assert_close(model.refine(one, out, query)[:, 0], torch.stack((drawn[0, 2], drawn[1, 0])))


def test_a_backbone_of_images_sees_only_the_asked_frame() -> None:
    model = shaken(IMAGES)
    frames, padding, _ = clips(b=2, t=3)
    seen = calls_of(model.backbone)
    one = model.encode_video(frames, padding, torch.tensor([2, 0]))
    every = model.encode_video(frames, padding)
    assert seen == [(2, 1, 3, SIDE, SIDE), (2, 3, 3, SIDE, SIDE)]
    torch.testing.assert_close(one.levels[0][:, 0], torch.stack((every.levels[0][0, 2], every.levels[0][1, 0])))


def test_a_backbone_of_video_sees_the_whole_clip_of_an_asked_frame() -> None:
    model = shaken(TINY)
    seen, filtered = calls_of(model.backbone), calls_of(model.filters[0])
    model.encode_video(*clips(b=2, t=3)[:2], torch.tensor([2, 0]))
    assert seen == [(2, 3, 3, SIDE, SIDE)]
    assert filtered[0][0] == 2


def test_the_last_layer_alone_is_the_last_of_all_and_draws_with_its_kernels_only() -> None:
    model = shaken(TINY)
    frames, padding, sizes = clips()
    video, text, clip_of = model.encode_video(frames, padding), model.encode_text(*sentences(1)), torch.tensor([0])
    kernels = calls_of(model.kernel_head)
    last = model.segment(video, text, sizes, clip_of)
    assert len(kernels) == 1
    every = model.segment(video, text, sizes, clip_of, layers="all")
    assert len(kernels) == 1 + TINY.decoder_layers
    for name in ("scores", "boxes", "reference_points", "patch_masks"):
        assert len(getattr(last, name)) == 1
        assert len(getattr(every, name)) == TINY.decoder_layers
        torch.testing.assert_close(getattr(last, name)[0], getattr(every, name)[-1])
    assert not torch.allclose(every.patch_masks[0], every.patch_masks[1])


@pytest.fixture(scope="module")
def asked(model: SgMg) -> tuple[VideoFeatures, ClipOutput]:
    """Two clips of two frames and what three expressions find in them, in all layers."""
    frames, padding, sizes = clips(b=2, t=2)
    video, text = model.encode_video(frames, padding), model.encode_text(*sentences(3))
    return video, model.segment(video, text, sizes, torch.tensor([1, 0, 1]), layers="all")


def test_only_the_chosen_queries_are_drawn(asked: tuple[VideoFeatures, ClipOutput]) -> None:
    model = shaken(TINY)
    rows = calls_of(model.refinement)
    model.refine(*asked, torch.tensor([4, 0, 2]))
    model.refine(*asked, torch.tensor([[4, 1], [0, 1], [2, 2]]))
    assert [shape[0] for shape in rows] == [3 * 2, 3 * 2 * 2]  # expressions, queries, frames


def test_drawing_a_query_is_drawing_all_and_choosing(model: SgMg, asked: tuple[VideoFeatures, ClipOutput]) -> None:
    query = torch.tensor([4, 0, 2])
    every = model.refine(*asked, torch.arange(TINY.queries).expand(3, -1))
    assert every.shape == (3, TINY.queries, 2, SIDE, SIDE)
    torch.testing.assert_close(model.refine(*asked, query), every[torch.arange(3), query])


def test_a_query_is_drawn_in_the_layer_asked_for(model: SgMg, asked: tuple[VideoFeatures, ClipOutput]) -> None:
    video, out = asked
    query = torch.tensor([4, 0, 2])
    flipped = replace(out, patch_masks=out.patch_masks.flip(0))
    torch.testing.assert_close(model.refine(video, out, query, layer=0), model.refine(video, flipped, query))
    assert not torch.allclose(model.refine(video, out, query, layer=0), model.refine(video, out, query))


def test_forward_encodes_and_segments_a_batch(model: SgMg) -> None:
    frames, padding, sizes = clips(b=2, t=2)
    token_ids, token_padding = sentences(2)
    batch = ClipBatch(frames, padding, sizes, token_ids, token_padding, torch.tensor([1, 0]), torch.tensor([1, 1]))
    out = model(batch, layers="all")
    video, text = model.encode_video(frames, padding, torch.tensor([1, 1])), model.encode_text(token_ids, token_padding)
    expected = model.segment(video, text, sizes, torch.tensor([1, 0]), layers="all")
    assert out.scores.shape == (2, 2, 1, TINY.queries)
    torch.testing.assert_close(one_of(out, 1), one_of(expected, 1))


def test_each_attenuation_is_made_of_that_of_the_level_before(model: SgMg) -> None:
    first, *rest = model.encode_video(*clips(height=264, width=136)[:2]).attenuations
    torch.testing.assert_close(first, gaussian(33, 17))
    for size in ((17, 9), (9, 5), (5, 3)):
        before, first = first, rest.pop(0)
        torch.testing.assert_close(first, resize_attenuation(before, size))


def test_clips_of_different_size_make_one_batch_and_their_numbers_differ_from_running_alone(model: SgMg) -> None:
    small, large = torch.randn(1, 3, 130, 140), torch.randn(1, 3, 150, 136)
    frames, padding, sizes = pad_clips([small, large], multiple=32)
    text = model.encode_text(*sentences(2))
    video = model.encode_video(frames, padding)
    out = model.segment(video, text, sizes, torch.tensor([0, 1]))
    masks = model.refine(video, out, torch.tensor([0, 0]))
    assert masks.shape == (2, 1, 160, 160)
    assert masks.isfinite().all()
    video = model.encode_video(*pad_clips([small], multiple=4)[:2])
    alone = model.segment(video, text.expressions(slice(0, 1)), sizes[:1], torch.tensor([0]))
    assert (alone.scores[:, 0] - out.scores[:, 0]).abs().max() > 1e-4
    documented = " ".join(str(SgMg.encode_video.__doc__).split())
    assert "the numbers then differ from running each clip alone" in documented


def test_small_frames_are_padded_up_and_their_masks_can_be_cropped(model: SgMg) -> None:
    frames, padding, sizes = clips(height=40, width=50)
    text, clip_of = model.encode_text(*sentences(1)), torch.tensor([0])
    video = model.encode_video(frames, padding)
    out = model.segment(video, text, sizes, clip_of)
    mask = model.refine(video, out, torch.tensor([0]))
    assert mask.shape == (1, 1, SIDE, SIDE)
    assert mask[..., :40, :50].isfinite().all()
    grown, grown_padding, _ = pad_clips([frames[0]], multiple=4)
    torch.testing.assert_close(
        model.segment(model.encode_video(grown, grown_padding), text, sizes, clip_of).scores, out.scores
    )
