"""Golden cases before and behind the model: preprocessing, choosing and thresholding, frames to PNG."""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from block_cases import Outputs, tensors
from model_cases import config_of, published_model
from pack import Case
from sgmg.batch import ClipOutput
from sgmg.decoding import (
    THRESHOLD,
    best_query,
    boxes_in_pixels,
    mask_from_logits,
    merge_objects,
    original_logits,
    ranked_queries,
    take_query,
)
from sgmg.model import SgMg
from sgmg.preprocess import normalize, pad_clips
from sgmg.resize import resize_frames, resized_size

SHORT_SIDE, LONG_SIDE = 360, 640


def preproc(case: Case) -> Outputs:
    images = case.inputs["images"]
    sizes = [resized_size(images.shape[1], images.shape[2], SHORT_SIDE, cap) for cap in (None, LONG_SIDE)]
    expected = tuple(case.meta["outputs"]["frames"]["shape"][-2:])
    size = sizes[1] if expected == sizes[1] else sizes[0]  # A case does not say for which dataset it is.
    return {"frames": normalize(resize_frames(images, *size))}


def post_ytvos(case: Case) -> Outputs:
    given, params = tensors(case), case.params
    query = best_query(rearrange(given["pred_logits"], "e t q 1 -> e t q"))
    masks = take_query(given["pred_masks"], query)[0]
    logits = original_logits(masks, (params["img_h"], params["img_w"]), tuple(params["orig"]))
    masks = mask_from_logits(logits, params.get("threshold", THRESHOLD))
    return {"up_logits": logits, "png": masks.byte() * 255}


def post_davis(case: Case) -> Outputs:
    given, params = tensors(case), case.params
    objects = []
    for index in range(params["objects"]):
        windows = []
        for window in range(-(-params["T"] // params["crop_len"])):
            query = best_query(rearrange(given[f"logits_{index}_{window}"], "t q 1 -> 1 t q"))
            masks = take_query(given[f"masks_{index}_{window}"][None], query)[0]
            windows.append(original_logits(masks, (params["img_h"], params["img_w"]), tuple(params["orig"])).sigmoid())
        objects.append(torch.cat(windows))
    return {"index_map": merge_objects(torch.stack(objects))}


def post_a2d(case: Case) -> Outputs:
    """All queries, in query order."""
    given = tensors(case)
    outputs = {}
    for clip, (size, original) in enumerate(zip(case.params["sizes"], case.params["orig"], strict=True)):
        logits = original_logits(given["pred_masks"][clip, 0], tuple(size), tuple(original))
        outputs[f"scores{clip}"] = given["pred_logits"][clip, 0, :, 0].sigmoid()
        outputs[f"masks{clip}"] = mask_from_logits(logits)[:, None]
    return outputs


def post_segm(case: Case) -> Outputs:
    """All queries, the best first, with boxes."""
    given, b = tensors(case), case.params["b"]
    scores = rearrange(given["pred_logits"], "e t q 1 -> e t q")
    out = ClipOutput(
        scores=scores[None],
        boxes=given["pred_boxes"][None],
        reference_points=given["pred_boxes"][None, ..., :2],
        patch_masks=torch.zeros(1, *scores.shape, 16, 1, 1),
        clip_of=torch.arange(b),
    )
    boxes = boxes_in_pixels(out, torch.tensor(case.params["orig"]))
    unsorted = post_a2d(case)
    outputs = {}
    for clip, order in enumerate(ranked_queries(scores)):
        outputs[f"scores{clip}"] = unsorted[f"scores{clip}"][order]
        outputs[f"masks{clip}"] = unsorted[f"masks{clip}"][order]
        outputs[f"boxes{clip}"] = boxes[clip, 0, order]
        outputs[f"labels{clip}"] = torch.ones(len(order))  # the only category there is
    return outputs


def _logits_at_original(model: SgMg, case: Case, frames: slice) -> Tensor:
    """Mask logits of every expression, for some of the frames, at the size of the images."""
    images, given = case.inputs["images"], tensors(case)
    original = (images.shape[1], images.shape[2])
    size = resized_size(*original, SHORT_SIDE)
    clip, padding, sizes = pad_clips([normalize(resize_frames(images[frames], *size))], multiple=16)
    with torch.no_grad():
        video = model.encode_video(clip, padding)
        text = model.encode_text(given["input_ids"], given["attention_mask"] != 1)
        out = model.segment(video, text, sizes, torch.zeros(len(given["input_ids"]), dtype=torch.int64))
        return original_logits(model.refine(video, out, best_query(out.scores[-1])), size, original)


def pipeline_ytvos(case: Case) -> Outputs:
    logits = _logits_at_original(published_model(config_of(case), case.salt), case, slice(None))[0]
    return {"up_logits": logits, "png": mask_from_logits(logits).byte() * 255}


def pipeline_davis(case: Case) -> Outputs:
    model = published_model(config_of(case), case.salt)
    length, window = len(case.inputs["images"]), case.params["crop_len"]
    windows = [_logits_at_original(model, case, slice(start, start + window)) for start in range(0, length, window)]
    probabilities = torch.cat(windows, dim=1).sigmoid()
    return {"object_probs": probabilities, "index_map": merge_objects(probabilities)}


CASES: dict[str, Callable[[Case], Outputs]] = {
    "preproc": preproc,
    "post_ytvos": post_ytvos,
    "post_davis": post_davis,
    "post_a2d": post_a2d,
    "post_segm": post_segm,
    "pipeline_ytvos": pipeline_ytvos,
    "pipeline_davis": pipeline_davis,
}
