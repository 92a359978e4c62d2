"""Records in, predictions out, as each benchmark wants them."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines.errors import BadItem
from pipelines.images import object_map
from pipelines.inference.answers import prediction_from
from pipelines.inference.model_frames import model_frames
from pipelines.inference.predictor import Predictor
from pipelines.inference.protocols import InferenceProtocol, inference_protocol
from pipelines.predictions import Prediction, prediction_of, predictions_table
from pipelines.records import Expression, Record
from prepared_data import SENTENCES, a_record, pixels_of, tiny_model
from rounding import in_float64
from sgmg.batch import ClipOutput
from sgmg.boxes import cxcywh_to_xyxy
from sgmg.decoding import best_query, merge_objects, original_logits, take_query
from sgmg.masks import rles_to_masks
from sgmg.model import SgMg
from sgmg.preprocess import normalize, pad_clips
from sgmg.resize import resize_frames
from sgmg.segmenter import Segmenter
from sgmg.tokenizer import Tokenizer

SIDE = 130


@pytest.fixture(scope="module", autouse=True)
def _in_float64() -> Iterator[None]:
    with in_float64():
        yield


@pytest.fixture(scope="module")
def model() -> SgMg:
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(SENTENCES)


def predicted(
    model: SgMg,
    tokenizer: Tokenizer,
    record: Record,
    protocol: InferenceProtocol | None = None,
    rows: int | None = None,
) -> list[Prediction]:
    protocol = protocol or inference_protocol(record.dataset, short_side=SIDE)
    return Predictor(model, tokenizer, protocol, device="cpu", rows=rows, fingerprint="f").predict(record)


def masks_of(found: Prediction, query: int = 0) -> np.ndarray:
    return rles_to_masks(found.queries[query].rle, (found.height, found.width))


def by_hand(
    model: SgMg,
    tokenizer: Tokenizer,
    pixels: np.ndarray,
    sentences: list[str],
    multiple: int,
    place: int | None = None,
    original: tuple[int, int] = (40, 56),
) -> tuple[ClipOutput, torch.Tensor]:
    """What the model says, and probabilities of all queries at the original size."""
    size = (SIDE, SIDE * pixels.shape[2] // pixels.shape[1])
    frames, padding, sizes = pad_clips([normalize(resize_frames(pixels, *size))], multiple)
    token_ids, token_padding = tokenizer(sentences)
    with torch.inference_mode():
        video = model.encode_video(frames, padding, None if place is None else torch.tensor([place]))
        clip_of = torch.zeros(len(sentences), dtype=torch.int64)
        out = model.segment(video, model.encode_text(token_ids, token_padding), sizes, clip_of)
        logits = model.refine(video, out, torch.arange(5).expand(len(sentences), -1))
        return out, original_logits(logits, size, original).sigmoid()


def test_a_video_gives_what_the_segmenter_gives(model: SgMg, tokenizer: Tokenizer) -> None:
    record = a_record("dog", t=3)
    found = predicted(model, tokenizer, record)
    wanted = Segmenter(model, tokenizer, device="cpu", short_side=SIDE)(pixels_of(sum(b"dog"), 3), SENTENCES)
    assert [one.text for one in found] == list(SENTENCES)
    for index, one in enumerate(found):
        assert one.frame_names == ("00000", "00005", "00010")
        assert (masks_of(one) != wanted.masks[index]).mean() < 1e-3
        np.testing.assert_allclose(one.queries[0].scores, wanted.scores[index])
        np.testing.assert_allclose(one.queries[0].boxes, wanted.boxes[index])
        assert one.score == pytest.approx(wanted.scores[index].mean())
        assert (one.fingerprint, one.note, len(one.queries), one.merged) == ("f", "", 1, None)
    assert 0.01 < np.mean([masks_of(one) for one in found]) < 0.99


def test_predictions_survive_parquet(model: SgMg, tokenizer: Tokenizer) -> None:
    found = predicted(model, tokenizer, a_record("dog"))
    back = [prediction_of(row) for row in predictions_table(found).to_pylist()]
    assert [one.queries[0].rle for one in back] == [one.queries[0].rle for one in found]


def test_a_video_is_encoded_once_for_all_its_sentences(model: SgMg, tokenizer: Tokenizer) -> None:
    calls: list[int] = []
    hook = model.backbone.register_forward_hook(lambda *_: calls.append(1))
    predicted(model, tokenizer, a_record("dog"))
    hook.remove()
    assert len(calls) == 1


def test_a_multi_object_model_is_asked_in_groups_in_order_of_ids(tokenizer: Tokenizer) -> None:
    multi = tiny_model(multi_object=True)
    sentences = [f"the {word}" for word in ("ball", "dog", "cat", "first", "last", "left", "right")]
    record = a_record("dog", t=1, sentences=sentences)
    turned = replace(record, expressions=record.expressions[::-1])
    asked: list[int] = []
    hook = multi.transformer.decoder[0].register_forward_pre_hook(lambda _, given: asked.append(len(given[0])))
    protocol = inference_protocol("own", SIDE)

    def scores(record: Record, together: int | None) -> dict[str, float]:
        predictor = Predictor(multi, tokenizer, protocol, device="cpu", sentences_together=together)
        return {one.text: one.score for one in predictor.predict(record)}

    found = scores(record, 3)
    hook.remove()
    assert asked == [3, 3, 1]
    assert scores(turned, 3) == pytest.approx(found, abs=1e-5)
    assert scores(replace(record, expressions=record.expressions[:3]), None) == pytest.approx(
        {text: found[text] for text in sentences[:3]}, abs=1e-5
    )
    assert max(abs(score - found[text]) for text, score in scores(record, 1).items()) > 1e-4


@pytest.mark.parametrize("multi_object", [False, True])
def test_a_sentence_that_cannot_be_asked_does_not_cost_the_others_their_answers(
    tokenizer: Tokenizer, multi_object: bool
) -> None:
    model = tiny_model(multi_object=multi_object)
    record = a_record("dog", t=1, sentences=("the ball", " ", "the dog on the left", "the ball " * 300))
    predictor = Predictor(model, tokenizer, inference_protocol("own", SIDE), device="cpu")
    refused = predictor.refused(record)
    assert refused.keys() == {1, 3}
    assert "is empty" in refused[1]
    assert "512" in refused[3]
    found = predictor.answer(model_frames(record, predictor.protocol))
    rest = replace(record, expressions=record.expressions[::2])
    wanted = predictor.answer(model_frames(rest, predictor.protocol))
    assert [one.number for one in found] == [0, 2]
    assert [one.scores for one in found] == [one.scores for one in wanted]
    with pytest.raises(BadItem, match="dog: expression 1: The expression ' ' is empty"):
        predictor.predict(record)


def test_three_hundred_sentences_of_a_video_take_no_more_memory_than_a_group(tokenizer: Tokenizer) -> None:
    multi, asked = tiny_model(multi_object=True), []
    hook = multi.transformer.decoder[0].register_forward_pre_hook(lambda _, given: asked.append(len(given[0])))
    found = predicted(multi, tokenizer, a_record("dog", t=1, sentences=["the ball"] * 300), rows=2)
    hook.remove()
    assert asked == [8] * 37 + [4]
    assert [one.score for one in found] == pytest.approx([found[0].score] * 296 + [found[-1].score] * 4, abs=1e-5)


def test_every_window_chooses_its_own_query(model: SgMg, tokenizer: Tokenizer) -> None:
    record, pixels = a_record("dog", t=3), pixels_of(sum(b"dog"), 3)
    found = predicted(model, tokenizer, record, inference_protocol("own", SIDE, window=2))
    wanted = Segmenter(model, tokenizer, device="cpu", short_side=SIDE, window=2)(pixels, SENTENCES)
    assert np.mean([(masks_of(one) != mask).mean() for one, mask in zip(found, wanted.masks, strict=True)]) < 1e-3


def test_a2d_keeps_all_queries_of_the_frames_that_are_asked(model: SgMg, tokenizer: Tokenizer) -> None:
    sentences = (Expression("0", SENTENCES[0], frames=(1, 4), external_id="v_dog_f_{frame}_i_0"),)
    record = replace(a_record("dog", t=6, dataset="a2d-sentences"), expressions=sentences)
    (found,) = predicted(model, tokenizer, record)
    assert found.frame_names == ("00005", "00020")
    assert found.external_id == "v_dog_f_{frame}_i_0"
    for index, window in enumerate(([0, 0, 1, 2, 3], [2, 3, 4, 5, 5])):
        pixels = pixels_of(sum(b"dog"), 6)[window]
        out, probabilities = by_hand(model, tokenizer, pixels, [SENTENCES[0]], multiple=32, place=2)
        scores = out.scores[-1, 0, 0].sigmoid()
        np.testing.assert_allclose([query.scores[index] for query in found.queries], scores)
        masks = np.stack([masks_of(found, query)[index] for query in range(5)])
        assert (masks != (probabilities[0, :, 0] > 0.5).numpy()).mean() < 1e-3
    best = max(np.mean(query.scores) for query in found.queries)
    assert found.score == pytest.approx(best)


def test_images_keep_all_queries_the_best_first_with_boxes(model: SgMg, tokenizer: Tokenizer) -> None:
    record = a_record("dog", t=1, dataset="refcoco")
    found = predicted(model, tokenizer, record)
    out, probabilities = by_hand(model, tokenizer, pixels_of(sum(b"dog"), 1), list(SENTENCES), multiple=32)
    for index, one in enumerate(found):
        scores = out.scores[-1, index, 0].sigmoid()
        order = scores.argsort(descending=True).tolist()
        np.testing.assert_allclose([query.scores[0] for query in one.queries], scores[order])
        boxes = cxcywh_to_xyxy(out.boxes[-1, index, 0]) * torch.tensor([56, 40, 56, 40])
        np.testing.assert_allclose([query.boxes[0] for query in one.queries], boxes[order])
        masks = np.stack([masks_of(one, query)[0] for query in range(5)])
        assert (masks != (probabilities[index, order, 0] > 0.5).numpy()).mean() < 1e-3


def davis_record(ids: tuple[int, ...], t: int = 3) -> Record:
    """Sentences numbered so; of annotator 0 and 1, as these are all about other objects."""
    sentences = tuple(
        Expression(str(number), SENTENCES[place % 3], annotator=number % 4) for place, number in enumerate(ids)
    )
    return replace(a_record("dog", t=t, dataset="ref-davis17"), expressions=sentences)


def test_objects_of_one_annotator_compete_for_the_pixels(model: SgMg, tokenizer: Tokenizer) -> None:
    protocol = inference_protocol("ref-davis17", SIDE, window=2)
    found = predicted(model, tokenizer, davis_record((0, 1, 4, 5)), protocol)
    assert [one.merged is not None for one in found] == [True, True, False, False]
    pixels = pixels_of(sum(b"dog"), 3)
    for annotator in (0, 1):
        sentences = [found[annotator].text, found[annotator + 2].text]
        windows = []
        for window in (pixels[:2], pixels[2:]):
            out, probabilities = by_hand(model, tokenizer, window, sentences, multiple=16)
            windows.append(probabilities[torch.arange(2), best_query(out.scores[-1])])
        wanted = merge_objects(torch.cat(windows, dim=1)).numpy()
        maps = np.stack([object_map(png) for png in found[annotator].merged or ()])
        assert (maps != wanted).mean() < 1e-3
        assert len(np.unique(maps)) > 1


def test_an_object_left_out_at_preparation_leaves_its_number_free(model: SgMg, tokenizer: Tokenizer) -> None:
    full = predicted(model, tokenizer, davis_record((0, 4)))
    gap = predicted(model, tokenizer, davis_record((0, 12)))
    maps = [np.stack([object_map(png) for png in one.merged or ()]) for one in (full[0], gap[0])]
    np.testing.assert_array_equal(np.where(maps[0] == 2, 4, maps[0]), maps[1])
    assert (maps[1] == 4).any()


def test_masks_and_boxes_are_of_the_original_size(model: SgMg, tokenizer: Tokenizer) -> None:
    record = replace(a_record("dog"), original_width=112, original_height=80)
    pixels = pixels_of(sum(b"dog"), 2)
    out, probabilities = by_hand(model, tokenizer, pixels, list(SENTENCES), multiple=16, original=(80, 112))
    chosen = best_query(out.scores[-1])
    boxes = take_query(cxcywh_to_xyxy(out.boxes[-1]), chosen) * torch.tensor([112, 80, 112, 80])
    for index, one in enumerate(predicted(model, tokenizer, record)):
        assert (one.height, one.width) == (80, 112)
        assert (masks_of(one) != (probabilities[index, chosen[index]] > 0.5).numpy()).mean() < 1e-3
        np.testing.assert_allclose(one.queries[0].boxes, boxes[index])


class Tight(SgMg):
    """Runs out of memory above so many pairs of frame and expression."""

    most = 1

    def segment(self, video, text, sizes, clip_of, layers="last"):
        if video.levels[0].shape[1] * len(clip_of) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().segment(video, text, sizes, clip_of, layers)


@pytest.mark.parametrize("dataset", ["ref-youtube-vos", "ref-davis17", "refcoco"])
def test_out_of_memory_goes_on_with_fewer_at_once_and_says_so(
    model: SgMg, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture, dataset: str
) -> None:
    tight = Tight(model.config)
    tight.load_state_dict(model.state_dict())
    record = davis_record((0, 1, 4, 5), t=1 if dataset == "refcoco" else 3)
    protocol = inference_protocol(dataset, SIDE)
    with caplog.at_level(logging.WARNING):
        found = predicted(tight, tokenizer, record, protocol, rows=12)
    assert "dog: out of memory at 12 rows, going on with 6" in caplog.text
    assert {one.note for one in found} == {"out of GPU memory: segmented 1 rows at a time"}
    for one, other in zip(found, predicted(model, tokenizer, record, protocol), strict=True):
        assert len(one.queries) == len(other.queries)
        assert (masks_of(one) != masks_of(other)).mean() < 1e-3
        np.testing.assert_allclose(one.queries[0].scores, other.queries[0].scores)
        assert (one.merged is None) == (other.merged is None)


def test_out_of_memory_with_a_frozen_text_encoder_that_remembers_sentences_of_another_number_type(
    model: SgMg, tokenizer: Tokenizer
) -> None:
    tight = Tight(model.config)
    tight.text.freeze(keep=8).bfloat16().embed(*tokenizer(SENTENCES[1:2]))
    tight.double().load_state_dict(model.state_dict())
    record = a_record("dog", t=1)
    found, wanted = predicted(tight, tokenizer, record, rows=4), predicted(model, tokenizer, record)
    assert {one.note for one in found} == {"out of GPU memory: segmented 1 rows at a time"}
    for one, other in zip(found, wanted, strict=True):
        assert (masks_of(one) != masks_of(other)).mean() < 1e-3
        np.testing.assert_allclose(one.queries[0].scores, other.queries[0].scores)


def test_memory_that_one_row_does_not_fit_on_a_cpu_is_an_error(model: SgMg, tokenizer: Tokenizer) -> None:
    tight = Tight(model.config)
    tight.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        predicted(tight, tokenizer, a_record("dog"))


def test_an_object_that_is_nowhere_is_absent(model: SgMg, tokenizer: Tokenizer) -> None:
    blind = SgMg(model.config)
    blind.load_state_dict(model.state_dict())
    with torch.no_grad():
        final = [module for module in blind.refinement.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        final.weight.zero_()
        assert final.bias is not None
        final.bias.fill_(-1e4)
    assert {one.status for one in predicted(blind, tokenizer, a_record("dog"))} == {"absent"}
    assert {one.status for one in predicted(model, tokenizer, a_record("dog"))} == {"ok"}


def test_a_sentence_that_cannot_be_read_is_a_bad_item(model: SgMg, tokenizer: Tokenizer) -> None:
    with pytest.raises(BadItem, match=r"dog: .*is empty") as caught:
        predicted(model, tokenizer, a_record("dog", sentences=("the ball", " ")))
    assert caught.value.stage == "predict"


def test_scores_that_are_no_numbers_are_a_bad_item(model: SgMg, tokenizer: Tokenizer) -> None:
    broken = SgMg(model.config)
    with torch.no_grad():
        broken.query_positions.fill_(float("nan"))
    with pytest.raises(BadItem, match=r"not finite.*float32"):
        predicted(broken, tokenizer, a_record("dog"))


def test_a_video_without_sentences_gives_nothing(model: SgMg, tokenizer: Tokenizer) -> None:
    assert predicted(model, tokenizer, a_record("dog", sentences=())) == []


def test_it_may_run_between_steps_of_training(tokenizer: Tokenizer) -> None:
    model = tiny_model()
    predictor = Predictor(model, tokenizer, inference_protocol("own", SIDE), device="cpu")
    predictor.predict(a_record("dog", t=1))
    model.train()
    frames, padding, sizes = pad_clips([normalize(pixels_of(0, 1, 130, 136))], 32)
    token_ids, token_padding = tokenizer(SENTENCES[:1])
    out = model.segment(
        model.encode_video(frames, padding), model.encode_text(token_ids, token_padding), sizes, torch.zeros(1).long()
    )
    out.scores.sum().backward()
    assert model.query_positions.grad is not None


def test_frames_decoded_elsewhere_give_the_same(model: SgMg, tokenizer: Tokenizer) -> None:
    protocol = inference_protocol("own", SIDE)
    record = a_record("dog", dataset="own")
    predictor = Predictor(model, tokenizer, protocol, device="cpu")
    frames = model_frames(record, protocol)
    answers = predictor.answer(frames)
    assert [prediction_from(frames.record, answer, "") for answer in answers] == predictor.predict(record)


def test_a_window_among_others_keeps_all_queries_coarsely_and_the_best_at_its_size(
    model: SgMg, tokenizer: Tokenizer
) -> None:
    protocol = inference_protocol("own", SIDE)
    record = replace(a_record("dog", dataset="own"), original_width=112, original_height=80)
    predictor = Predictor(model, tokenizer, protocol, device="cpu")
    frames = model_frames(record, protocol)
    alone, among = (predictor.answer(replace(frames, one_of_many=many)) for many in (False, True))
    size = (SIDE, SIDE * 56 // 40)
    pixels = pixels_of(sum(b"dog"), 2)
    out, probabilities = by_hand(model, tokenizer, pixels, list(SENTENCES), multiple=16, original=size)
    for index, (one, other) in enumerate(zip(alone, among, strict=True)):
        ((track,), (best,)) = one.kept, other.kept
        drawn = [rles_to_masks(rle, (80, 112)) for rle in (track.rle, best.rle)]
        assert (drawn[0] != drawn[1]).mean() < 1e-3
        every = list(other.every)
        assert list(one.every) == []
        np.testing.assert_allclose([query.scores for query in every], out.scores[-1, index].sigmoid().T)
        assert other.best == np.argmax([np.mean(query.scores) for query in every])
        assert every[other.best].boxes == best.boxes
        for query, wanted in zip(every, probabilities[index] > 0.5, strict=True):
            assert (rles_to_masks(query.rle, size) != wanted.numpy()).mean() < 1e-3
