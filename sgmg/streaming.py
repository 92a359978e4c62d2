"""Causal segmentation of a stream: each frame is answered as it comes, from itself and the frames before it."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sgmg.batch import TextFeatures, VideoFeatures
from sgmg.boxes import cxcywh_to_xyxy, pixels_from_unit
from sgmg.decoding import mask_from_logits, original_logits
from sgmg.following import CONTEXT, MIN_SCORE, QueryChooser
from sgmg.precision import autocast
from sgmg.preprocess import normalize, pad_clips
from sgmg.resize import resize_frames, resized_size
from sgmg.segmenter import VIDEO_MULTIPLE, Segmenter, checked_frames, groups_of


class StreamAnswer(NamedTuple):
    """Masks, scores and boxes of e sentences in one frame."""

    masks: Bool[np.ndarray, "e h w"]  # at the size of the frame
    scores: Float[np.ndarray, " e"]  # probability that the frame shows the object
    boxes: Float[np.ndarray, "e 4"]  # xyxy in pixels of the frame
    sentences: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Track:
    """A sentence that is asked.

    Attributes:
        text: its features, e = 1.
        chooser: of its query.
        mask: chosen in the frame before, at the size that the model sees; None if the object was not seen.
    """

    text: TextFeatures
    chooser: QueryChooser
    mask: Bool[Tensor, "h w"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Sentences that are asked in one pass, and their features."""

    tracks: Sequence[_Track]
    text: TextFeatures


@dataclass(frozen=True, slots=True, eq=False)
class _Geometry:
    """Sizes of all frames: of the source, and as the model sees them, before and with padding."""

    original: tuple[int, int]
    size: tuple[int, int]
    sizes: Int[Tensor, "1 2"]
    padding: Bool[Tensor, "1 h w"]


class SegmenterStream:
    """A stream of frames, each of which is answered from itself and the frames before it; made by `Segmenter.stream`.

    The backbone sees frames t - (context - 1) * stride, …, t - stride, t, fewer at the start, and frame t alone is
    segmented. A sentence keeps to one object: its query has the highest sum of the mean score over the last `context`
    answered frames and the IoU of its mask with the mask chosen in the frame before.

    Memory is bounded: the last (context - 1) * stride + 1 frames at the size that the model sees, and for each sentence
    its text features, the scores of `context` frames and one mask. A frame of another size than the one before begins
    a new stream: earlier frames and the identity of objects are forgotten, the sentences stay.

    A multi-object model is asked `sentences_together` sentences at a time, in order, so its answers depend on which
    others are asked. A single-object model answers each for itself; on a CPU not a bit of an answer changes with the
    other sentences, on a GPU they may round it differently.

    Args:
        segmenter: model, tokenizer and their settings.
        sentences: asked from the first frame on; `ask`, `add` and `remove` change them at any time.
        context: most frames that the backbone sees, and whose scores decide the query.
        stride: distance between the frames that the backbone sees.
        min_score: score of a frame, from 0 to 1, below which the object counts as not seen: its mask, which is answered
            all the same, has no influence on the next frame.

    Raises:
        ValueError: a number is out of range, or a sentence is empty, too long or given twice.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        sentences: Sequence[str] = (),
        *,
        context: int = CONTEXT,
        stride: int = 1,
        min_score: float = MIN_SCORE,
    ) -> None:
        for name, value in (("context", context), ("stride", stride)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if not 0 <= min_score <= 1:
            raise ValueError(f"min_score={min_score} must be between 0 and 1.")
        self._segmenter, self._context, self._stride, self._min_score = segmenter, context, stride, min_score
        self._frames: deque[Float[Tensor, "1 1 3 h w"]] = deque(maxlen=(context - 1) * stride + 1)
        self._geometry: _Geometry | None = None
        self._tracks: dict[str, _Track] = {}
        self._groups: list[_Group] = []
        self.ask(sentences)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The sentences that the next frame is asked, in order."""
        return tuple(self._tracks)

    @property
    def bytes(self) -> int:
        """Memory of the tensors that are kept between two frames."""
        masks = [track.mask for track in self._tracks.values() if track.mask is not None]
        texts = [one for track in self._tracks.values() for one in (track.text.words, track.text.positions)]
        return sum(one.nbytes for one in (*self._frames, *masks, *texts))

    @torch.inference_mode()
    def ask(self, sentences: Sequence[str]) -> None:
        """Asks these sentences from the next frame on: those asked before keep their objects, new ones begin.

        Raises:
            ValueError: a sentence is empty, too long or given twice; nothing is changed then.
        """
        if twice := {one for one in sentences if sentences.count(one) > 1}:
            raise ValueError(f"Sentence {min(twice)!r} is asked twice. Ask each sentence once.")
        tracks = {one: self._tracks.get(one) or _Track(self._text(one), self._chooser()) for one in sentences}
        groups = groups_of(self._segmenter.model, len(tracks), self._segmenter.sentences_together, self._at_once)
        parts = [list(tracks.values())[group] for group in groups]
        self._groups = [_Group(part, _joined([track.text for track in part])) for part in parts]
        self._tracks = tracks

    def add(self, sentence: str) -> None:
        """Asks one more sentence from the next frame on.

        Raises:
            ValueError: it is empty, too long, or asked already.
        """
        self.ask((*self.sentences, sentence))

    def remove(self, sentence: str) -> None:
        """Asks a sentence no more.

        Raises:
            ValueError: it is not asked.
        """
        if sentence not in self._tracks:
            raise ValueError(f"Sentence {sentence!r} is not asked. Remove one of {list(self.sentences)}.")
        self.ask([one for one in self.sentences if one != sentence])

    @torch.inference_mode()
    def push(self, frame: UInt8[np.ndarray, "h w 3"] | UInt8[Tensor, "h w 3"]) -> StreamAnswer:
        """Takes the next frame, and answers every sentence in it.

        Args:
            frame: RGB bytes.

        Raises:
            ValueError: the frame is not RGB bytes, or is empty.
        """
        geometry = self._keep(checked_frames(frame[None]))
        height, width = geometry.original
        nothing = (np.zeros((0, height, width), np.bool_), np.zeros(0, np.float32), np.zeros((0, 4), np.float32))
        parts = [nothing]
        if self._groups:
            with autocast(self._segmenter.device, self._segmenter.precision):
                video = self._encode(geometry)
                parts = [self._answer(video, geometry, group) for group in self._groups]
        masks, scores, boxes = (np.concatenate(values) for values in zip(*parts, strict=True))
        return StreamAnswer(masks, scores, boxes, self.sentences)

    def _keep(self, pixels: UInt8[np.ndarray, "1 h w 3"]) -> _Geometry:
        """Keeps a frame as the model sees it, and returns the sizes; forgets frames and masks of another size."""
        device, original = self._segmenter.device, (pixels.shape[1], pixels.shape[2])
        size = resized_size(*original, self._segmenter.short_side)
        frame, padding, sizes = pad_clips([normalize(resize_frames(pixels, *size), device)], VIDEO_MULTIPLE)
        if self._geometry is None or self._geometry.original != original:
            self._geometry = _Geometry(original, size, sizes.to(device), padding.to(device))
            self._frames.clear()
            for track in self._tracks.values():
                track.chooser, track.mask = self._chooser(), None
        self._frames.append(frame)
        return self._geometry

    def _encode(self, geometry: _Geometry) -> VideoFeatures:
        """Returns the features of the last frame, seen with those before it."""
        clip = list(self._frames)[(len(self._frames) - 1) % self._stride :: self._stride]
        last = torch.tensor([len(clip) - 1], device=self._segmenter.device)
        return self._segmenter.model.encode_video(torch.cat(clip, dim=1), geometry.padding, last)

    def _answer(
        self, video: VideoFeatures, geometry: _Geometry, group: _Group
    ) -> tuple[Bool[np.ndarray, "e h w"], Float[np.ndarray, " e"], Float[np.ndarray, "e 4"]]:
        """Returns masks, scores and boxes of some sentences in the encoded frame, and keeps what the next one needs."""
        model, device = self._segmenter.model, self._segmenter.device
        row = torch.arange(len(group.tracks), device=device)
        out = model.segment(video, group.text, geometry.sizes, torch.zeros_like(row))
        probabilities = out.scores[-1, :, 0].sigmoid()
        queries = torch.arange(probabilities.shape[1], device=device).expand_as(probabilities)
        logits = model.refine(video, out, queries)[:, :, 0]
        height, width = geometry.size
        seen = mask_from_logits(logits[..., :height, :width].float())
        scores = probabilities.cpu().numpy()
        chosen = self._choose(group.tracks, scores, seen)
        query = torch.tensor(chosen, device=device)
        masks = mask_from_logits(original_logits(logits[row, query], geometry.size, geometry.original))
        corners = pixels_from_unit(
            cxcywh_to_xyxy(out.boxes[-1, row, 0, query].float()), row.new_tensor(geometry.original)
        )
        return masks.cpu().numpy(), scores[np.arange(len(chosen)), chosen], corners.cpu().numpy()

    def _choose(
        self, tracks: Sequence[_Track], scores: Float[np.ndarray, "e q"], masks: Bool[Tensor, "e q h w"]
    ) -> list[int]:
        """Returns the query of each sentence, and keeps the mask of those whose object is seen."""
        before = torch.stack([torch.zeros_like(masks[0, 0]) if one.mask is None else one.mask for one in tracks])
        chosen = []
        for track, of_queries, overlaps, drawn in zip(tracks, scores, mask_overlaps(masks, before), masks, strict=True):
            query = track.chooser.choose(of_queries.astype(np.float64), overlaps)
            track.mask = drawn[query].clone() if of_queries[query] >= self._min_score else None
            chosen.append(query)
        return chosen

    def _text(self, sentence: str) -> TextFeatures:
        with autocast(self._segmenter.device, self._segmenter.precision):
            return self._segmenter.model.encode_text(*self._segmenter.tokenizer([sentence]))

    def _chooser(self) -> QueryChooser:
        return QueryChooser(self._context)

    @property
    def _at_once(self) -> int:
        """Most sentences that a single-object model is asked in one pass."""
        return 1 if self._segmenter.device.type == "cpu" else self._segmenter.rows


def mask_overlaps(masks: Bool[Tensor, "e q h w"], before: Bool[Tensor, "e h w"]) -> Float[np.ndarray, "e q"]:
    """Returns the IoU of each query's mask with the mask before; 0 where that is empty.

    >>> mask_overlaps(torch.tensor([[[[True, True]], [[False, True]]]]), torch.tensor([[[True, False]]])).tolist()
    [[0.5, 0.0]]
    """
    shared = (masks & before[:, None]).sum(dim=(-1, -2))
    union = masks.sum(dim=(-1, -2)) + before.sum(dim=(-1, -2))[:, None] - shared
    return (shared.double() / union.clamp(min=1)).cpu().numpy()


def _joined(texts: Sequence[TextFeatures]) -> TextFeatures:
    """Joins the features of sentences; shorter ones are padded."""
    if len(texts) == 1:
        return texts[0]
    most = max(one.words.shape[1] for one in texts)
    missing = [most - one.words.shape[1] for one in texts]
    return TextFeatures(
        words=torch.cat([F.pad(one.words, (0, 0, 0, n)) for one, n in zip(texts, missing, strict=True)]),
        positions=torch.cat([F.pad(one.positions, (0, 0, 0, n)) for one, n in zip(texts, missing, strict=True)]),
        padding=torch.cat([F.pad(one.padding, (0, n), value=True) for one, n in zip(texts, missing, strict=True)]),
        sentence_feature=torch.cat([one.sentence_feature for one in texts]),
    )
