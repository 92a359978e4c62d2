"""Ref-DAVIS17: the protocols of DAVIS 2017 on each annotator's merged index maps."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from pipelines.images import object_map
from pipelines.predictions import Prediction
from pipelines.scoring.attributes import attributes_of
from pipelines.scoring.rows import TrackProtocol, TrackRow, track_row
from pipelines.scoring.tracks import check_size
from pipelines.scoring.truth import VideoTruth
from sgmg.davis import VOID, score_semi_supervised, score_unsupervised
from sgmg.masks import rle_to_mask
from sgmg.metrics import TrackScores

ANNOTATORS = 4
"""Expression of object o (from 0) for annotator k: number 4 · o + k."""


def missing_maps(truth: VideoTruth, predictions: Sequence[Prediction]) -> list[str]:
    """Returns messages that name the annotators and frames without an index map.

    Raises:
        ValueError: a prediction is given twice, or at another size.
    """
    merged = _merged(truth, predictions)
    missing: list[str] = []
    for annotator in _annotators(truth, predictions):
        if annotator not in merged:
            missing.append(f"video {truth.video}, annotator {annotator}")
            continue
        maps = merged[annotator]
        missing += [
            f"video {truth.video}, annotator {annotator}, frame {name}"
            for name in truth.frame_names
            if name not in maps
        ]
    return missing


def score_davis(truth: VideoTruth, predictions: Sequence[Prediction]) -> list[TrackRow]:
    """Scores a video: a row per object, annotator and protocol (unsupervised, strict-id). Missing maps count as empty.

    Strict-id is left out if a result holds ids that the truth lacks, or the video has fewer than 3 frames.

    Raises:
        ValueError: a prediction is given twice or at another size, or a map is damaged or holds ids beyond 255.
    """
    merged = _merged(truth, predictions)
    texts = {one.id: one.text for one in truth.expressions} | {one.expression: one.text for one in predictions}
    truths = truth_maps(truth)
    rows: list[TrackRow] = []
    for annotator in _annotators(truth, predictions):
        results = result_maps(truth, merged.get(annotator, {}))
        scored: dict[TrackProtocol, list[TrackScores]] = {
            "unsupervised": score_unsupervised(truth.video, results, truths)
        }
        # The first and the last frame do not count in it, and an id beyond the truth's has no meaning.
        if len(truths) >= 3 and results.max() <= max(one.truth_id for one in scored["unsupervised"]):
            scored["strict-id"] = score_semi_supervised(truth.video, results, truths)
        for protocol, tracks in scored.items():
            frames = len(truths) - (2 if protocol == "strict-id" else 0)
            for scores in tracks:
                expression = str(ANNOTATORS * (scores.result_id - 1) + annotator)
                names = {"expression": expression, "text": texts.get(expression, "")}
                names |= {"dataset": truth.dataset, "split": truth.split, "video": truth.video}
                attributes = attributes_of(truth, names["text"], [scores.truth_id], range(len(truths)))
                rows.append(track_row(scores, frames, protocol, annotator=annotator, attributes=attributes, **names))
    return rows


def truth_maps(truth: VideoTruth) -> UInt8[np.ndarray, "t h w"]:
    """Returns the object id of every pixel; 255 marks void pixels, which are not scored."""
    maps = np.zeros((len(truth.frame_names), *truth.size), dtype=np.uint8)
    for number, track in truth.objects.items():
        if not 0 < number <= VOID:
            raise ValueError(f"{truth.video}: object {number} does not fit into an index map. Ids are 1 … {VOID}.")
        for index, rle in zip(maps, track.rle, strict=True):
            if rle is not None:
                index[rle_to_mask(rle, truth.size)] = number
    return maps


def result_maps(truth: VideoTruth, merged: Mapping[str, bytes]) -> UInt8[np.ndarray, "t h w"]:
    """Returns the index maps of one annotator, in the order of the truth's frames.

    Raises:
        ValueError: a map is damaged or of another size, or holds ids above 255.
    """
    maps = np.zeros((len(truth.frame_names), *truth.size), dtype=np.uint8)
    for index, name in zip(maps, truth.frame_names, strict=True):
        if name in merged:
            try:
                ids = object_map(merged[name], truth.size)
            except ValueError as error:
                raise ValueError(f"{truth.video}, merged map of frame {name}: {error}. Predict again.") from error
            if ids.max() > 255:
                raise ValueError(
                    f"{truth.video}, merged map of frame {name}: ids up to {ids.max()}, but they end at 255. Write "
                    f"palette PNGs."
                )
            index[:] = ids
    return maps


def merged_of(truth: VideoTruth, predictions: Sequence[Prediction], annotator: int) -> dict[str, bytes]:
    """Returns one annotator's index maps as PNGs by frame name; empty if there are none."""
    return _merged(truth, predictions).get(annotator, {})


def _merged(truth: VideoTruth, predictions: Sequence[Prediction]) -> dict[int, dict[str, bytes]]:
    merged: dict[int, dict[str, bytes]] = {}
    for one in predictions:
        check_size(truth, one)
        if one.merged is None or one.annotator is None:
            continue
        maps = merged.setdefault(one.annotator, {})
        if twice := sorted(set(maps) & set(one.frame_names)):
            raise ValueError(
                f"{truth.video}, annotator {one.annotator}, is predicted twice at frame {twice[0]}. Give the "
                f"predictions of one run."
            )
        maps.update(zip(one.frame_names, one.merged, strict=True))
    return merged


def _annotators(truth: VideoTruth, predictions: Sequence[Prediction]) -> list[int]:
    """Returns the annotators of the video's expressions; all four if the truth does not name them."""
    annotators = [one.annotator for one in (*truth.expressions, *predictions) if one.annotator is not None]
    return sorted(set(annotators)) or list(range(ANNOTATORS))
