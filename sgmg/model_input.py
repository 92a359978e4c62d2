"""Checks of the tensors that are given to the model.

Shapes and dtypes are always checked, values only where they lie in the CPU's memory: to look at one on a GPU, the
host would have to wait for it. So inputs are checked before they travel, as `Segmenter` and `TrainStep` do.
"""

import torch
from torch import Tensor

from sgmg.batch import ClipBatch, ClipOutput, TextFeatures, VideoFeatures
from sgmg.precision import autocast_dtype


def is_at_hand(values: Tensor) -> bool:
    """Returns whether values can be looked at without waiting for a device."""
    return values.device.type == "cpu"


def check_batch(batch: ClipBatch) -> None:
    """Checks a batch before it travels to the device of the model.

    Raises:
        ValueError: a value does not fit; the message names it and what it should be.
    """
    check_clips(batch.frames, batch.padding, batch.target_frame, batch.frames.dtype)
    _check_clip_of(batch.clip_of, len(batch.frames), len(batch.token_ids))


def check_clips(frames: Tensor, padding: Tensor, target_frame: Tensor | None, weights: torch.dtype) -> None:
    """Checks that frames, padding and target_frame form a batch of clips.

    Raises:
        ValueError: a value does not fit; the message names it and what it should be.
    """
    if frames.dim() != 5 or frames.shape[2] != 3:
        raise ValueError(
            f"Frames have shape {tuple(frames.shape)}; the model takes (clips, frames, 3 channels, height, width)."
        )
    if 0 in frames.shape:
        raise ValueError(f"Frames have shape {tuple(frames.shape)}: they are empty. Give at least one frame.")
    is_bytes = frames.dtype == torch.uint8
    if not is_bytes and not frames.is_floating_point():
        raise ValueError(
            f"Frames are {frames.dtype}; the model takes RGB bytes (uint8), or floats that sgmg.preprocess.normalize "
            f"returns."
        )
    mixed = autocast_dtype(frames.device) is not None and frames.dtype != torch.float64
    if frames.dtype != weights and not mixed and not is_bytes:
        raise ValueError(f"Frames are {frames.dtype}, the weights {weights}. Convert them: frames.to({weights}).")
    b, t, _, h, w = frames.shape
    if padding.dtype != torch.bool or padding.shape != (b, h, w):
        raise ValueError(
            f"Padding is {padding.dtype} of shape {tuple(padding.shape)}; these frames need bool of {(b, h, w)}."
        )
    if is_at_hand(frames) and not is_bytes and not frames.isfinite().all():
        clip, frame = (int(i) for i in (~frames.isfinite()).nonzero()[0, :2])
        raise ValueError(
            f"Frame {frame} of clip {clip} holds {frames[clip, frame][~frames[clip, frame].isfinite()][0].item()}; "
            f"pixels must be finite. Look at how it was decoded and normalized."
        )
    if target_frame is not None and (target_frame.shape != (b,) or not _are_indices(target_frame, t)):
        raise ValueError(
            f"target_frame={target_frame.tolist()} must name one of {t} frames for each of {b} clips, in whole numbers."
        )


def check_question(video: VideoFeatures, text: TextFeatures, sizes: Tensor, clip_of: Tensor) -> None:
    """Checks that the expressions fit the encoded clips.

    Raises:
        ValueError: a value does not fit; the message names it and what it should be.
    """
    b, e = len(video.levels[0]), len(text.sentence_feature)
    if sizes.shape != (b, 2):
        raise ValueError(f"sizes has shape {tuple(sizes.shape)}; {b} clips need {(b, 2)}: height, width of each.")
    _check_clip_of(clip_of, b, e)


def _check_clip_of(clip_of: Tensor, b: int, e: int) -> None:
    if clip_of.shape != (e,) or e == 0:
        raise ValueError(f"clip_of has shape {tuple(clip_of.shape)} for {e} expressions. Name one clip for each.")
    if not _are_indices(clip_of, b):
        raise ValueError(
            f"clip_of={clip_of.tolist()} names a clip that does not exist; the {b} clips are 0 to {b - 1}."
        )


def check_query(out: ClipOutput, query: Tensor, layer: int) -> None:
    """Checks that `out` has the chosen queries and layer.

    Raises:
        ValueError: a value does not fit; the message names it and what it should be.
    """
    layers, e, _, q = out.scores.shape
    if not -layers <= layer < layers:
        raise ValueError(f"layer={layer} is not among the {layers} of this output. Segment with layers='all' for all.")
    if query.dim() not in (1, 2) or len(query) != e or not _are_indices(query, q):
        raise ValueError(
            f"query={query.tolist()} must name, for each of {e} expressions, one or several of queries 0 to {q - 1}."
        )


def _are_indices(values: Tensor, count: int) -> bool:
    whole = not values.is_floating_point() and not values.is_complex() and values.dtype != torch.bool
    return whole and (not is_at_hand(values) or bool(((values >= 0) & (values < count)).all()))
