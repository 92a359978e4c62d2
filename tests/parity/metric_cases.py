"""The golden cases of the scores, computed with sgmg: inputs of a case → every output it expects, by name."""

from collections.abc import Callable, Sequence

import numpy as np

from pack import Arrays, Case
from sgmg.davis import score_semi_supervised, score_unsupervised
from sgmg.masks import mask_to_rle, masks_to_rles, rle_to_xywh
from sgmg.metrics import (
    FrameStatistics,
    TrackScores,
    contour_accuracy,
    frame_statistics,
    region_similarity,
    total_scores,
)
from sgmg.referring import (
    Expression,
    Overlap,
    OverlapScores,
    best_candidate,
    box_hits,
    box_overlap,
    box_precision,
    mask_ap,
    mask_overlap,
    overlap_scores,
)


def mask_metrics(case: Case) -> Arrays:
    width = int(case.inputs["size"][-1])
    truths = _unpacked(case.inputs["gt"], width)
    results = _unpacked(case.inputs["pred"], width)
    size = (truths.shape[1], truths.shape[2])
    boxes = case.inputs.get("pred_boxes_xyxy")
    # The published RefCOCO results take the area of a candidate from its box, read as xywh: x2·y2.
    areas = [None] * len(truths) if boxes is None else boxes[..., 2:].prod(axis=-1).tolist()
    expressions = [
        Expression(size, mask_to_rle(truth), masks_to_rles(masks), scores.tolist(), result_areas=area)
        for truth, masks, scores, area in zip(truths, results, case.inputs["scores"], areas, strict=True)
    ]
    pairs = [mask_overlap(expression.results, expression.truth, size) for expression in expressions]
    best = [best_candidate(scores) for scores in case.inputs["scores"]]
    ap = mask_ap(expressions)
    outputs = {
        "pair_iou": np.stack([pair.iou for pair in pairs]),
        "pair_inter": np.stack([pair.intersection for pair in pairs]),
        "pair_union": np.stack([pair.union for pair in pairs]),
        "ap": np.array([ap.ap, ap.ap50, ap.ap75, ap.small, ap.medium, ap.large]),
        **_overlap_outputs(overlap_scores(_chosen(pairs, best))),
    }
    if boxes is not None:
        wanted = [_xyxy(rle_to_xywh(expression.truth, size)) for expression in expressions]
        pairs = [box_overlap(candidates, truth) for candidates, truth in zip(boxes, wanted, strict=True)]
        outputs |= {
            f"bbox_{name}": value for name, value in _overlap_outputs(overlap_scores(_chosen(pairs, best))).items()
        }
    return outputs


def davis_jf(case: Case) -> Arrays:
    outputs: Arrays = {}
    for group in _numbers(case, "size"):
        width = int(case.inputs[f"size{group}"][-1])
        masks = {
            name: _unpacked(case.inputs[f"{name}{group}"], width)
            for name in ("pred", "gt", "void")
            if f"{name}{group}" in case.inputs
        }
        outputs[f"J{group}"] = region_similarity(masks["pred"], masks["gt"])
        outputs[f"F{group}"] = contour_accuracy(masks["pred"], masks["gt"])
        if "void" in masks:
            outputs[f"Jvoid{group}"] = region_similarity(masks["pred"], masks["gt"], masks["void"])
            outputs[f"Fvoid{group}"] = contour_accuracy(masks["pred"], masks["gt"], masks["void"])
    return outputs


def statistics_over_frames(case: Case) -> Arrays:
    return {
        f"MOD{number}": np.array(_triple(frame_statistics(case.inputs[f"v{number}"]))) for number in _numbers(case, "v")
    }


def davis_eval(case: Case) -> Arrays:
    protocols = {"unsupervised": score_unsupervised, "semi-supervised": score_semi_supervised}
    asked = {name.split("/")[0] for name in case.meta["outputs"]}
    outputs: Arrays = {}
    for protocol in sorted(asked):
        tracks = [
            track
            for number in _numbers(case, "gt")
            for track in protocols[protocol](str(number), case.inputs[f"pred{number}"], case.inputs[f"gt{number}"])
        ]
        outputs |= {f"{protocol}/{name}": value for name, value in _track_outputs(tracks).items()}
    return outputs


def refexp(case: Case) -> Arrays:
    hits = [
        box_hits(boxes, scores, _xyxy(truth))
        for boxes, scores, truth in zip(
            case.inputs["pred_xyxy"], case.inputs["scores"], case.inputs["gt_xywh"].tolist(), strict=True
        )
    ]
    return {"precision_1_5_10": np.array(box_precision(np.array(hits)))}


CASES: dict[str, Callable[[Case], Arrays]] = {
    "maskmetrics": mask_metrics,
    "davis_jf": davis_jf,
    "dbstats": statistics_over_frames,
    "davis_eval": davis_eval,
    "refexp": refexp,
}


def _unpacked(bits: np.ndarray, width: int) -> np.ndarray:
    return np.unpackbits(bits, axis=-1, count=width).astype(np.bool_)


def _numbers(case: Case, prefix: str) -> list[int]:
    """The n of the inputs `<prefix>n`, ascending."""
    rests = (name.removeprefix(prefix) for name in case.inputs if name.startswith(prefix))
    return sorted(int(rest) for rest in rests if rest.isdigit())


def _xyxy(xywh: Sequence[float]) -> np.ndarray:
    x, y, width, height = xywh
    return np.array([x, y, x + width, y + height])


def _chosen(pairs: Sequence[Overlap], best: Sequence[int]) -> Overlap:
    return Overlap(
        np.array([pair.intersection[index] for pair, index in zip(pairs, best, strict=True)]),
        np.array([pair.union[index] for pair, index in zip(pairs, best, strict=True)]),
    )


def _overlap_outputs(scores: OverlapScores) -> Arrays:
    return {
        "precision_at_k": np.array(scores.precision),
        "overall_iou": np.array([scores.overall_iou]),
        "mean_iou": np.array([scores.mean_iou]),
    }


def _track_outputs(tracks: Sequence[TrackScores]) -> Arrays:
    total = total_scores(tracks)
    outputs = {"global": np.array([total.jf_mean, *_triple(total.j), *_triple(total.f)])}
    for measure in ("J", "F"):
        columns = np.array([_triple(getattr(track, measure.lower())) for track in tracks]).T
        outputs |= {f"{measure}/{name}": column for name, column in zip("MRD", columns, strict=True)}
    return outputs


def _triple(statistics: FrameStatistics) -> tuple[float, float, float]:
    return statistics.mean, statistics.recall, statistics.decay
