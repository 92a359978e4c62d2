"""Several sentences in one pass (spec many.md)."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model_cases import answers_of, batch_of, config_of, published_model
from pack import GOLDEN, cases, full_pack, judge
from rounding import in_float64
from sgmg.batch import ClipOutput, TextFeatures
from sgmg.checkpoints import load, load_pretrained, save
from sgmg.config import SgMgConfig
from sgmg.model import SgMg
from sgmg.preprocess import pad_clips
from sgmg.segmenter import Segmenter, asked_together
from sgmg.tokenizer import Tokenizer
from sgmg.weights import with_decoupling

SINGLE = SgMgConfig.preset("tiny")
MULTI = replace(SINGLE, multi_object=True)
WORDS = ["the dog", "a large red ball on the left", "the cat", "something else"]


def _ends() -> list:
    """Golden cases of the whole model, of one sentence a clip: those of the full pack are many, and slow."""
    full, group = full_pack(), pytest.mark.xdist_group("model")
    given = [(GOLDEN, (group,))] if isinstance(full, str) else [(GOLDEN, (group,)), (full, (group, pytest.mark.slow))]
    found = {}
    for folder, marks in given:
        for name in cases(folder):
            if name.startswith("e2e_") and not name.startswith("e2e_multi") and name not in found:
                found[name] = pytest.param(folder, name, id=name, marks=marks)
    return list(found.values())


@pytest.fixture
def exact() -> Iterator[None]:
    with torch.no_grad(), in_float64():
        yield


def shaken(config: SgMgConfig) -> SgMg:
    torch.manual_seed(0)
    model = SgMg(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


@pytest.fixture(scope="module")
def built() -> SgMg:
    with in_float64():
        return shaken(MULTI)


@pytest.fixture
def model(built: SgMg, request: pytest.FixtureRequest) -> SgMg:
    request.getfixturevalue("exact")
    return built


def clips(b: int = 1, t: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return pad_clips([torch.randn(t, 3, 132, 140 + 8 * number) for number in range(b)], 16)


def words(model: SgMg, e: int, longer: int = 0) -> TextFeatures:
    torch.manual_seed(2)
    padding = torch.arange(e + 2) >= e + 2 - torch.arange(e)[:, None]
    ids = torch.randint(4, 2000, (e, e + 2))
    more = torch.ones(e, longer, dtype=torch.int64)
    return model.encode_text(torch.cat((ids, more), dim=1), torch.cat((padding, more.bool()), dim=1))


def picked(text: TextFeatures, which: list[int]) -> TextFeatures:
    return TextFeatures(text.words[which], text.positions[which], text.padding[which], text.sentence_feature[which])


def answers(model: SgMg, text: TextFeatures, clip_of: list[int] | None = None, b: int = 1) -> ClipOutput:
    frames, padding, sizes = clips(b)
    video = model.encode_video(frames.double(), padding)
    return model.segment(video, text, sizes, torch.tensor(clip_of or [0] * len(text.words)))


def assert_close(one: ClipOutput, other: ClipOutput) -> None:
    for name in ("scores", "boxes", "patch_masks"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-9, rtol=1e-9)


def some(out: ClipOutput, which: list[int]) -> ClipOutput:
    parts = (getattr(out, name)[:, which] for name in ("scores", "boxes", "reference_points", "patch_masks"))
    return ClipOutput(*parts, clip_of=out.clip_of[which])


@pytest.mark.parametrize(("folder", "name"), _ends())
def test_a_sentence_alone_is_answered_as_published(folder: Path, name: str) -> None:
    case = cases(folder)[name]()
    single = published_model(config_of(case), case.salt)
    multi = with_decoupling(single, replace(single.config, multi_object=True))
    batch = batch_of(case)
    assert len(batch.clip_of.unique()) == len(batch.clip_of)
    with torch.no_grad():
        answers = answers_of(multi, case, batch)
    assert "pred_masks" in answers
    assert [name for name in judge(case, answers).failures if name in answers] == []


def test_the_order_of_sentences_permutes_their_answers(model: SgMg) -> None:
    text, order = words(model, 4), [2, 0, 3, 1]
    assert_close(answers(model, picked(text, order)), some(answers(model, text), order))


def test_who_is_asked_with_a_sentence_matters_but_other_clips_do_not(model: SgMg) -> None:
    text = words(model, 4)
    together = answers(model, text, [0, 1, 0, 1], b=2)
    swapped = answers(model, picked(text, [2, 1, 0, 3]), [0, 1, 0, 1], b=2)
    assert_close(swapped, some(together, [2, 1, 0, 3]))
    alone = answers(model, text, [0, 1, 1, 1], b=2)
    assert (alone.scores[:, 0] - together.scores[:, 0]).abs().max() > 1e-6


def test_a_clip_that_is_there_twice_is_answered_twice(model: SgMg) -> None:
    text = words(model, 3)
    frames, padding, sizes = clips()
    twice = picked(text, [0, 1, 2, 0, 1, 2])
    video = model.encode_video(frames.double().repeat(2, 1, 1, 1, 1), padding.repeat(2, 1, 1))
    out = model.segment(video, twice, sizes.repeat(2, 1), torch.tensor([0, 0, 0, 1, 1, 1]))
    assert_close(some(out, [0, 1, 2]), answers(model, text))
    assert_close(some(out, [3, 4, 5]), answers(model, text))


def test_padding_of_words_changes_nothing(model: SgMg) -> None:
    assert_close(answers(model, words(model, 3, longer=3)), answers(model, words(model, 3)))


def test_a_sentence_asked_twice_has_its_answer_twice(model: SgMg) -> None:
    text = words(model, 2)
    out = answers(model, picked(text, [0, 1, 0]))
    assert_close(some(out, [0]), some(out, [2]))
    assert (out.scores[:, 0] - out.scores[:, 1]).abs().max() > 1e-6


def test_the_encoder_runs_once_for_all_sentences(model: SgMg) -> None:
    rows: list[int] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
        for module in (model.transformer.encoder[0], model.fused_filters[0])
    ]
    answers(model, words(model, 4))
    for hook in hooks:
        hook.remove()
    assert rows == [2, 2]  # frames


@pytest.mark.usefixtures("exact")
def test_all_weights_learn() -> None:
    with torch.enable_grad():
        learner = shaken(MULTI).train()
        out = answers(learner, words(learner, 3))
        out.patch_masks.square().mean().backward()
    assert learner.decoupling is not None
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in learner.decoupling.parameters())
    assert learner.fusion.in_proj.weight.grad is not None


def test_the_other_weights_are_drawn_as_for_a_single_object_model() -> None:
    weights = []
    for config in (SINGLE, MULTI):
        torch.manual_seed(3)
        weights.append(SgMg(config).state_dict())
    assert weights[1].keys() - weights[0].keys() == {
        f"decoupling.{layer}.{kind}"
        for layer in ("norm", "difference_norm", "scale_and_shift")
        for kind in ("weight", "bias")
    }
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def test_checkpoints_keep_what_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    single, multi = shaken(SINGLE), shaken(replace(MULTI, sentences_per_clip=5))
    save(tmp_path / "single", single)
    save(tmp_path / "multi", multi)
    assert load(tmp_path / "multi").model.config == multi.config
    with caplog.at_level(logging.INFO):
        begun = load(tmp_path / "single", preset=MULTI).model
    assert "of a single-object tiny: the decoupling of the sentences of a clip is new" in caplog.text
    assert begun.decoupling is not None
    assert not begun.decoupling.scale_and_shift.weight.any()
    assert all(torch.equal(weight, begun.state_dict()[name]) for name, weight in single.state_dict().items())
    with pytest.raises(ValueError, match=r"is a multi-object model.*multi_object=True.*--multi-object"):
        load(tmp_path / "multi", preset="tiny")


def test_training_starts_as_the_single_object_model_answers(tmp_path: Path) -> None:
    single, multi = shaken(SINGLE), SgMg(MULTI)
    save(tmp_path / "single", single)
    load_pretrained(multi, tmp_path / "single")
    assert all(torch.equal(weight, multi.state_dict()[name]) for name, weight in single.state_dict().items())
    save(tmp_path / "multi", shaken(MULTI))
    with pytest.raises(ValueError, match=r"multi is a multi-object model.*--multi-object"):
        load_pretrained(SgMg(SINGLE), tmp_path / "multi")


@pytest.mark.parametrize(
    ("config", "wanted", "asked", "said"),
    [
        (MULTI, None, 8, ""),
        (replace(MULTI, sentences_per_clip=3), None, 3, ""),
        (MULTI, 1, 1, ""),
        (MULTI, 9, 9, "9 sentences together are more than the 8 that the model was trained with"),
        (SINGLE, None, 1, ""),
        (SINGLE, 1, 1, ""),
        (SINGLE, 8, 1, "8 sentences together has no effect: the model is single-object"),
    ],
)
def test_how_many_are_asked_together(
    config: SgMgConfig, wanted: int | None, asked: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert asked_together(config, wanted) == asked
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)


def test_a_group_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="sentences_together=0 must be at least 1"):
        asked_together(MULTI, 0)


def test_the_segmenter_asks_in_groups_and_keeps_to_its_memory() -> None:
    model = shaken(MULTI)
    tokenizer = Tokenizer.train(WORDS)
    rows: list[int] = []
    hook = model.transformer.decoder[0].register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    video = np.random.default_rng(0).integers(0, 256, (3, 132, 140, 3), dtype=np.uint8)

    def ask(sentences: list[str], **settings: Any) -> np.ndarray:
        return Segmenter(model, tokenizer, device="cpu", short_side=132, **settings)(video, sentences).scores

    found = ask(WORDS, sentences_together=3, rows=6)
    hook.remove()
    assert rows == [6, 3, 3]  # two frames of three sentences, one frame of three; three frames of the last
    np.testing.assert_allclose(found[:3], ask(WORDS[:3], rows=100), atol=1e-5)
    np.testing.assert_allclose(found[3:], ask(WORDS[3:]), atol=1e-5)
    assert np.abs(found - ask(WORDS, sentences_together=1)).max() > 1e-4
