"""Raw frames and sentences in, masks out."""

import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sgmg
from sgmg.checkpoints import save
from sgmg.config import SgMgConfig
from sgmg.decoding import best_query, mask_from_logits, original_logits, take_query
from sgmg.model import SgMg
from sgmg.precision import Precision
from sgmg.preprocess import normalize, pad_clips
from sgmg.resize import resize_frames
from sgmg.segmenter import Segmentation, Segmenter
from sgmg.tokenizer import Tokenizer

SENTENCES = ["a man in a red shirt", "the dog on the left", "the ball"]


@pytest.fixture(scope="module")
def model() -> SgMg:
    torch.manual_seed(0)
    model = SgMg(SgMgConfig.preset("tiny")).eval()
    # Off the initial values, at which masks are nearly empty and all queries score alike.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def precise(model: SgMg) -> SgMg:
    """The model in float64."""
    return deepcopy(model).double()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(SENTENCES)


def a_segmenter(model: SgMg, tokenizer: Tokenizer, **settings: Any) -> Segmenter:
    return Segmenter(model, tokenizer, **{"device": "cpu", "short_side": 130, **settings})


def video(t: int = 3, height: int = 60, width: int = 90) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (t, height, width, 3), dtype=np.uint8)


def assert_same(one: Segmentation, other: Segmentation) -> None:
    """Of what was found in float64."""
    # A pixel on the edge may fall to either side of one half by rounding.
    assert (one.masks != other.masks).mean() < 1e-3
    np.testing.assert_allclose(one.scores, other.scores)
    np.testing.assert_allclose(one.boxes, other.boxes)


def assert_identical(one: Segmentation, other: Segmentation) -> None:
    for part, its_other in zip(one, other, strict=True):
        np.testing.assert_array_equal(part, its_other)


@pytest.mark.usefixtures("in_float64")
def test_it_does_what_the_steps_by_hand_do(precise: SgMg, tokenizer: Tokenizer) -> None:
    pixels = video()
    found = a_segmenter(precise, tokenizer)(pixels, SENTENCES)
    assert found.masks.shape == (3, 3, 60, 90)
    assert found.masks.dtype == bool

    frames, padding, sizes = pad_clips([normalize(resize_frames(pixels, 130, 195))], multiple=16)
    token_ids, token_padding = tokenizer(SENTENCES)
    with torch.inference_mode():
        encoded = precise.encode_video(frames, padding)
        out = precise.segment(
            encoded, precise.encode_text(token_ids, token_padding), sizes, torch.zeros(3, dtype=torch.int64)
        )
        query = best_query(out.scores[-1])
        masks = mask_from_logits(original_logits(precise.refine(encoded, out, query), (130, 195), (60, 90)))
    cxcywh = take_query(out.boxes[-1], query).numpy()
    centres = (found.boxes[..., :2] + found.boxes[..., 2:]) / 2
    assert 0.01 < masks.float().mean() < 0.99
    assert (found.masks != masks.numpy()).mean() < 1e-3
    np.testing.assert_allclose(found.scores, take_query(out.scores[-1], query).sigmoid())
    np.testing.assert_allclose(centres, cxcywh[..., :2] * [90, 60])


@pytest.mark.usefixtures("in_float64")
def test_the_video_is_encoded_once_for_all_expressions(precise: SgMg, tokenizer: Tokenizer) -> None:
    calls: list[int] = []
    hook = precise.backbone.register_forward_hook(lambda *_: calls.append(1))
    together = a_segmenter(precise, tokenizer)(video(), SENTENCES)
    hook.remove()
    assert len(calls) == 1
    for index, sentence in enumerate(SENTENCES):
        alone = a_segmenter(precise, tokenizer)(video(), [sentence])
        assert_same(alone, Segmentation(*(part[index : index + 1] for part in together)))


@pytest.mark.parametrize("rows", [1, 2, 4, 100])
@pytest.mark.usefixtures("in_float64")
def test_how_many_are_segmented_at_once_changes_nothing(precise: SgMg, tokenizer: Tokenizer, rows: int) -> None:
    assert_same(
        a_segmenter(precise, tokenizer, rows=rows)(video(), SENTENCES),
        a_segmenter(precise, tokenizer)(video(), SENTENCES),
    )


@pytest.mark.usefixtures("in_float64")
def test_a_long_video_goes_in_windows_of_their_own(precise: SgMg, tokenizer: Tokenizer) -> None:
    pixels = video(t=5)
    windows = a_segmenter(precise, tokenizer, window=2)(pixels, SENTENCES)
    alone = [a_segmenter(precise, tokenizer)(pixels[start : start + 2], SENTENCES) for start in (0, 2, 4)]
    assert windows.masks.shape == (3, 5, 60, 90)
    assert_same(windows, Segmentation(*(np.concatenate(parts, axis=1) for parts in zip(*alone, strict=True))))


def test_frames_below_the_smallest_size_are_padded_up(model: SgMg, tokenizer: Tokenizer) -> None:
    found = a_segmenter(model, tokenizer, short_side=40)(video(1, 33, 47), SENTENCES[:1])
    assert found.masks.shape == (1, 1, 33, 47)


def test_tensors_are_taken_too(model: SgMg, tokenizer: Tokenizer) -> None:
    segmenter = a_segmenter(model, tokenizer)
    assert_identical(segmenter(torch.from_numpy(video()), SENTENCES), segmenter(video(), SENTENCES))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_used_and_finds_nearly_the_same(
    model: SgMg, tokenizer: Tokenizer, precision: Precision
) -> None:
    full = a_segmenter(model, tokenizer)(video(), SENTENCES)
    dtypes = []
    hook = model.projections[0].register_forward_hook(lambda _, __, got: dtypes.append(got.dtype))
    half = a_segmenter(model, tokenizer, precision=precision)(video(), SENTENCES)
    hook.remove()
    assert set(dtypes) == {getattr(torch, precision)}
    assert half.scores.dtype == np.float32
    np.testing.assert_allclose(half.scores, full.scores, atol=0.1)


def test_memory_does_not_grow_with_the_expressions(model: SgMg, tokenizer: Tokenizer) -> None:
    at_once = []
    hook = model.transformer.register_forward_hook(lambda _, __, found: at_once.append(found.states.shape[1]))
    a_segmenter(model, tokenizer, rows=6)(video(t=3), SENTENCES * 3)
    hook.remove()
    assert at_once == [6, 6, 6, 6, 3]


def test_settings_that_cannot_be_are_said(model: SgMg, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="device='gpu' is unknown"):
        a_segmenter(model, tokenizer, device="gpu")
    small = SgMg(replace(model.config, text=replace(model.config.text, vocabulary=260)))
    with pytest.raises(ValueError, match=r"tokenizer has \d+ tokens, the model 260"):
        a_segmenter(small, tokenizer)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_said(model: SgMg, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="no GPU"):
        a_segmenter(model, tokenizer, device="cuda")


@pytest.mark.usefixtures("as_users_run_it")
def test_an_unknown_precision_is_said(model: SgMg, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"'fp16' is unknown.*bfloat16"):
        a_segmenter(model, tokenizer, precision="fp16")


def test_a_checkpoint_of_ours_brings_its_tokenizer(model: SgMg, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save(tmp_path / "checkpoint", model, tokenizer=tokenizer)
    loaded = Segmenter.from_checkpoint(tmp_path / "checkpoint", device="cpu", short_side=130)
    assert loaded.tokenizer == tokenizer
    assert_identical(loaded(video(), SENTENCES), a_segmenter(model, tokenizer)(video(), SENTENCES))


def test_a_checkpoint_without_tokenizer_takes_that_of_a_folder(
    model: SgMg, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save(tmp_path / "checkpoint", model)
    tokenizer.save(tmp_path)
    loaded = Segmenter.from_checkpoint(tmp_path / "checkpoint", tokenizer=tmp_path, device="cpu")
    assert loaded.tokenizer == tokenizer
    with pytest.raises(FileNotFoundError, match="hf download"):
        Segmenter.from_checkpoint(tmp_path / "checkpoint", tokenizer=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (np.zeros((0, 60, 90, 3), dtype=np.uint8), r"\(0, 60, 90, 3\).*at least one frame"),
        (np.zeros((2, 60, 90, 4), dtype=np.uint8), r"\(2, 60, 90, 4\).*3 colours"),
        (np.zeros((60, 90, 3), dtype=np.uint8), r"\(60, 90, 3\)"),
        (np.zeros((2, 60, 90, 3), dtype=np.float32), "float32.*uint8"),
        (np.full((2, 60, 90, 3), np.nan), "float64.*uint8"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_what_is_no_video_is_said(model: SgMg, tokenizer: Tokenizer, frames: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        a_segmenter(model, tokenizer)(frames, SENTENCES)


@pytest.mark.parametrize(
    ("expressions", "said"),
    [
        (["the dog", "  "], "is empty"),
        (["the " + "very " * 598 + "ball"], "600 words"),
        ([], "at least one|no expression"),
    ],
)
def test_what_is_no_sentence_is_said(model: SgMg, tokenizer: Tokenizer, expressions: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        a_segmenter(model, tokenizer)(video(), expressions)


@pytest.mark.parametrize("setting", ["window", "rows", "short_side"])
def test_settings_must_be_positive(model: SgMg, tokenizer: Tokenizer, setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}=0"):
        a_segmenter(model, tokenizer, **{setting: 0})


def test_importing_the_package_is_quick_and_its_names_come_when_used() -> None:
    code = "import sys, sgmg; assert 'torch' not in sys.modules; sgmg.SgMg; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="Segmenter"):
        _ = sgmg.segmentor  # pyright: ignore[reportAttributeAccessIssue]
