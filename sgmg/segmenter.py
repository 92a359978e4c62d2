"""Segmentation of raw video frames by expressions, from preprocessing to masks of the original size."""

import logging
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sgmg.batch import ClipOutput, TextFeatures, VideoFeatures
from sgmg.boxes import cxcywh_to_xyxy, pixels_from_unit
from sgmg.checkpoints import load
from sgmg.config import Precision, PrecisionChoice, SgMgConfig
from sgmg.decoding import best_query, mask_from_logits, original_logits, take_query
from sgmg.following import CONTEXT, MIN_SCORE
from sgmg.hub import SETTINGS, HubMixin
from sgmg.model import SgMg
from sgmg.precision import autocast, find_precision
from sgmg.preprocess import normalize, pad_clips
from sgmg.resize import resize_frames, resized_size
from sgmg.tokenizer import Tokenizer

if TYPE_CHECKING:
    from sgmg.streaming import SegmenterStream

_log = logging.getLogger(__name__)

VIDEO_MULTIPLE = 16
"""Sides of a video are padded to a multiple of this (spec 1)."""


CPU_ROWS, GPU_ROWS = 2, 32
"""Frames x expressions segmented at once: 2 fit the cache of a CPU (20 % faster than 8), 32 fill a GPU."""


class Segmentation(NamedTuple):
    """Masks, scores and boxes of e expressions in t frames."""

    masks: Bool[np.ndarray, "e t h w"]  # at the size of the frames
    scores: Float[np.ndarray, "e t"]  # probability that the frame shows the object
    boxes: Float[np.ndarray, "e t 4"]  # xyxy in pixels of the frames


class Segmenter(HubMixin):
    """A model with its tokenizer that segments raw frames; saved and loaded as in `sgmg.hub`.

    Args:
        model: model; it is put into eval mode and moved to `device`.
        tokenizer: tokenizer that the model was trained with.
        device: "cuda", "cpu", …; None takes the GPU if there is one.
        precision: number type of matrix products; positions, scores and transforms stay in float32. "auto": the fastest
            that the device computes well, which the log says.
        short_side: pixels of the shorter side that frames are resized to; the published models expect 360.
        window: maximum number of frames encoded at once. A longer video is split into windows of this length, each with
            its own best query, as in the published Ref-DAVIS17 inference.
        rows: maximum number of (frame, expression) pairs segmented at once; limits memory and does not change
            results. None chooses by device.
        sentences_together: most expressions that a multi-object model is asked in one pass, which changes its answers;
            None takes what it was trained with. A single-object model answers each for itself.
        notes: JSON values about data, metrics and licence; saved with the model and shown in its model card.
    """

    def __init__(
        self,
        model: SgMg,
        tokenizer: Tokenizer,
        *,
        device: torch.device | str | None = None,
        precision: PrecisionChoice = "auto",
        short_side: int = 360,
        window: int = 36,
        rows: int | None = None,
        sentences_together: int | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        self.device = best_device(device)
        rows = rows if rows is not None else CPU_ROWS if self.device.type == "cpu" else GPU_ROWS
        for name, value in (("short_side", short_side), ("window", window), ("rows", rows)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if precision not in get_args(PrecisionChoice):
            raise ValueError(
                f"precision={precision!r} is unknown. Choose one of {', '.join(get_args(PrecisionChoice))}."
            )
        if tokenizer.vocabulary > model.config.text.vocabulary:
            raise ValueError(
                f"The tokenizer has {tokenizer.vocabulary} tokens, the model {model.config.text.vocabulary}. "
                f"Give the tokenizer the model was trained with."
            )
        self.model = model.eval().to(self.device)
        self.tokenizer = tokenizer
        self.precision: Precision = find_precision(precision, self.device, model.config).log()
        self.short_side, self.window, self.rows = short_side, window, rows
        self.sentences_together = asked_together(model.config, sentences_together)
        self.notes = dict(notes or {})

    @classmethod
    def from_checkpoint(
        cls,
        path: str | PathLike[str],
        *,
        tokenizer: Tokenizer | str | PathLike[str] | None = None,
        device: torch.device | str | None = None,
        precision: PrecisionChoice = "auto",
        short_side: int | None = None,
        window: int | None = None,
        rows: int | None = None,
        sentences_together: int | None = None,
    ) -> "Segmenter":
        """Loads a segmenter from a checkpoint folder or a published `.pth` file.

        Args:
            path: path of the checkpoint.
            tokenizer: a tokenizer, a folder, or a name in the Hugging Face cache; None takes the tokenizer of the
                checkpoint, else roberta-base, which the published models use.
            device, precision, rows, sentences_together: as in `Segmenter`.
            short_side, window: as in `Segmenter`; None takes the values saved in the checkpoint, else the defaults.

        Raises:
            FileNotFoundError: a file is missing; the message says where to get it.
            ValueError: the file is not a checkpoint, or its weights do not fit.
        """
        checkpoint = load(path)
        if not isinstance(tokenizer, Tokenizer):
            carried = checkpoint.tokenizer if tokenizer is None else None
            tokenizer = carried or Tokenizer.from_pretrained(tokenizer or "roberta-base")
        arguments = {"short_side": short_side, "window": window}
        given = {name: value for name, value in arguments.items() if value is not None}
        settings = {**checkpoint.notes.get(SETTINGS, {}), **given}
        return cls(
            checkpoint.model,
            tokenizer,
            device=device,
            precision=precision,
            rows=rows,
            sentences_together=sentences_together,
            notes=checkpoint.notes,
            **settings,
        )

    @torch.inference_mode()
    def __call__(
        self, frames: UInt8[np.ndarray, "t h w 3"] | UInt8[Tensor, "t h w 3"], expressions: Sequence[str]
    ) -> Segmentation:
        """Segments the object of each expression in each frame.

        Args:
            frames: RGB bytes, all of one size.
            expressions: any number; the video is encoded once for all of them. A multi-object model is asked
                `sentences_together` of them at a time, in order.

        Raises:
            ValueError: frames are not RGB bytes or are empty; an expression is empty or too long.
        """
        pixels = checked_frames(frames)
        token_ids, padding = self.tokenizer(expressions)
        with autocast(self.device, self.precision):
            text = self.model.encode_text(token_ids, padding)
            windows = [
                self._segment(pixels[start : start + self.window], text) for start in range(0, len(pixels), self.window)
            ]
        return Segmentation(*(np.concatenate(parts, axis=1) for parts in zip(*windows, strict=True)))

    def stream(
        self,
        sentences: Sequence[str] = (),
        context: int = CONTEXT,
        stride: int = 1,
        *,
        min_score: float = MIN_SCORE,
    ) -> "SegmenterStream":
        """Begins a stream, whose frames are answered as they come; several of them may share a segmenter.

        Args:
            sentences, context, stride, min_score: as in `SegmenterStream`.

        Raises:
            ValueError: a number is out of range, or a sentence is empty, too long or given twice.
        """
        from sgmg.streaming import SegmenterStream  # which imports this module

        return SegmenterStream(self, sentences, context=context, stride=stride, min_score=min_score)

    def _segment(self, pixels: UInt8[np.ndarray, "t h w 3"], text: TextFeatures) -> Segmentation:
        original = (pixels.shape[1], pixels.shape[2])
        size = resized_size(*original, self.short_side)
        frames, padding, sizes = pad_clips([normalize(resize_frames(pixels, *size), self.device)], VIDEO_MULTIPLE)
        video = self.model.encode_video(frames, padding.to(self.device))
        # In groups, since the patch masks of all queries of a group are held in memory.
        some = groups_of(self.model, len(text.sentence_feature), self.sentences_together, self.rows // len(pixels))
        found = [self._find(video, text.expressions(group), sizes.to(self.device), size, original) for group in some]
        return Segmentation(*(np.concatenate(parts) for parts in zip(*found, strict=True)))

    def _find(
        self,
        video: VideoFeatures,
        text: TextFeatures,
        sizes: Int[Tensor, "1 2"],
        size: tuple[int, int],
        original: tuple[int, int],
    ) -> Segmentation:
        """Segments a group of expressions in all frames of a window, a few frames at a time."""
        out = segment_in_parts(self.model, video, text, sizes, self.rows)
        query = best_query(out.scores[-1])
        masks = []
        for frames in slices(out.scores.shape[2], self.rows):
            logits = self.model.refine(video.frames(frames), out.frames(frames), query)
            masks.append(mask_from_logits(original_logits(logits, size, original)).cpu().numpy())
        boxes = take_query(cxcywh_to_xyxy(out.boxes[-1]), query)
        return Segmentation(
            masks=np.concatenate(masks, axis=1),
            scores=take_query(out.scores[-1], query).sigmoid().cpu().numpy(),
            boxes=pixels_from_unit(boxes, torch.tensor(original, device=self.device)).cpu().numpy(),
        )


def segment_in_parts(
    model: SgMg, video: VideoFeatures, text: TextFeatures, sizes: Int[Tensor, "1 2"], rows: int
) -> ClipOutput:
    """Runs `SgMg.segment` on one encoded clip, a few frames at a time: limits memory, with the same result.

    A single-object model takes `rows` frames. The expressions of a multi-object model cannot be parted: it takes as
    many frames as keep to `rows` pairs, at least one.
    """
    asked = len(text.sentence_feature)
    clip_of = torch.zeros(asked, dtype=torch.int64, device=text.sentence_feature.device)
    parts = slices(video.levels[0].shape[1], max(1, rows // asked) if model.config.multi_object else rows)
    return ClipOutput.joined([model.segment(video.frames(frames), text, sizes, clip_of) for frames in parts])


def asked_together(config: SgMgConfig, wanted: int | None) -> int:
    """Returns how many expressions a model is asked in one pass, and logs what is odd about the wanted number.

    Raises:
        ValueError: it is less than 1.
    """
    if wanted is not None and wanted < 1:
        raise ValueError(f"sentences_together={wanted} must be at least 1.")
    if not config.multi_object:
        if wanted is not None and wanted > 1:
            _log.warning(
                "%d sentences together has no effect: the model is single-object and answers each on its own",
                wanted,
            )
        return 1
    if wanted is not None and wanted > config.sentences_per_clip:
        _log.warning(
            "%d sentences together are more than the %d that the model was trained with",
            wanted,
            config.sentences_per_clip,
        )
    return wanted or config.sentences_per_clip


def groups_of(model: SgMg, expressions: int, together: int, at_once: int) -> list[slice]:
    """Returns the groups that expressions are segmented in.

    Args:
        model: single- or multi-object model.
        expressions: number of them.
        together: what `asked_together` returned; a multi-object model is asked so many.
        at_once: as many of a single-object model fit the memory; its groups do not change the answers.
    """
    return slices(expressions, together if model.config.multi_object else max(1, at_once))


def slices(length: int, step: int) -> list[slice]:
    """Splits 0 … `length` into consecutive slices of `step`; the last may be shorter.

    >>> slices(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def best_device(name: torch.device | str | None) -> torch.device:
    """Returns the device of that name; None means the GPU if there is one, else the CPU.

    Raises:
        ValueError: the device is unknown or not available.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"device={name!r} is unknown. Give 'cuda', 'cpu', or None for the best available.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={name!r}, but torch finds no GPU on this machine. Give 'cpu' or None.")
    return device


def checked_frames(frames: np.ndarray | Tensor) -> UInt8[np.ndarray, "t h w 3"]:
    """Returns frames as an array.

    Raises:
        ValueError: they are not RGB bytes, or are empty.
    """
    pixels = frames.cpu().numpy() if isinstance(frames, Tensor) else np.asarray(frames)
    if pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
        raise ValueError(
            f"Frames have shape {pixels.shape}; they must be (frames, height, width, 3 colours), at least one frame."
        )
    if pixels.dtype != np.uint8:
        raise ValueError(f"Frames are {pixels.dtype}; they must be RGB bytes (uint8), as a video decoder gives them.")
    return pixels
