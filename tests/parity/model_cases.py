"""Golden cases of the whole model: end to end with every intermediate, several expressions, a training step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from block_cases import Outputs, preset_name, tensors
from loss_cases import padded_targets
from pack import Case, normals, recipe_weight
from rounding import in_float64
from sgmg.backbones.video_swin import VideoSwin
from sgmg.batch import ClipBatch, ClipOutput
from sgmg.config import SgMgConfig, SwinConfig
from sgmg.decoding import best_query, take_query
from sgmg.matching import matching_costs
from sgmg.model import SgMg
from sgmg.objective import Objective
from sgmg.patch_kernels import mask_features, unfold_patches
from sgmg.preprocess import pad_clips
from sgmg.published import published_names
from sgmg.weights import load_into, meta_model

VIDEO_MULTIPLE, NESTED_MULTIPLE = 16, 32


def config_of(case: Case) -> SgMgConfig:
    """The published model of the case, with the options its parameters name."""
    return replace(
        SgMgConfig.preset(preset_name(case.params["backbone"])),
        refine_boxes=case.params.get("refine", True),
        relative_coordinates="--no_rel_coord" not in case.params.get("extra", ()),
    )


@lru_cache(maxsize=2)
def published_model(config: SgMgConfig, salt: str) -> SgMg:
    """The model with the weights of the recipe; kept, as most cases share it."""
    model = meta_model(config)
    names = published_names(model)
    state = {}
    for name, old in model.state_dict().items():
        if name.startswith("text.roberta."):
            drawn = _text_weight(names[name], tuple(old.shape), salt)
        else:
            drawn = recipe_weight(names[name], tuple(old.shape), salt=salt, refine=config.refine_boxes)
        state[name] = torch.from_numpy(drawn)
    return load_into(model, state)


@lru_cache(maxsize=200)
def _text_weight(name: str, shape: tuple[int, ...], salt: str) -> np.ndarray:
    """RoBERTa is the same for every backbone, and the longest to draw: one is kept."""
    return recipe_weight(name, shape, salt=salt)


def batch_of(case: Case) -> ClipBatch:
    """The clips and expressions of a case, padded as its dataset was."""
    given = tensors(case)
    nested = case.kind == "train" or case.params.get("mode") == "nested"
    clips = [given[name] for name in given if name.startswith("frames")]
    frames, padding, sizes = pad_clips(clips, NESTED_MULTIPLE if nested else VIDEO_MULTIPLE)
    token_ids = given["input_ids"]
    asked = case.params.get("valid_indices")
    return ClipBatch(
        frames=frames,
        padding=padding,
        sizes=sizes,
        token_ids=token_ids,
        token_padding=given["attention_mask"] != 1,
        clip_of=torch.arange(len(token_ids)) if len(clips) > 1 else torch.zeros(len(token_ids), dtype=torch.int64),
        target_frame=None if asked is None else torch.tensor(asked),
    )


def e2e(case: Case) -> Outputs:
    batch = batch_of(case)
    model = published_model(config_of(case), case.salt)
    with recorded(model) as calls, torch.no_grad():
        answers = answers_of(model, case, batch)
        return {**_intermediates(model, calls, batch), **answers}


def answers_of(model: SgMg, case: Case, batch: ClipBatch) -> Outputs:
    """What a model answers, in the end and as patch masks."""
    video = model.encode_video(batch.frames, batch.padding, batch.target_frame)
    text = model.encode_text(batch.token_ids, batch.token_padding)
    out = model.segment(video, text, batch.sizes, batch.clip_of, layers="all")
    outputs = _patch_outputs(out)
    if "pred_masks" in case.meta["outputs"] and "reference_points" not in case.meta["outputs"]:
        query = torch.arange(model.config.queries).expand(len(batch.token_ids), -1)
        return outputs | {
            "pred_logits": out.scores[-1][..., None],
            "pred_boxes": out.boxes[-1],
            "pred_masks": rearrange(model.refine(video, out, query), "e q t h w -> e t q h w"),
        }
    query = best_query(out.scores[-1])
    return outputs | {
        "pred_logits": take_query(out.scores[-1], query)[..., None, None],
        "pred_boxes": take_query(out.boxes[-1], query)[:, :, None],
        "reference_points": take_query(out.reference_points[-1], query)[:, :, None],
        "pred_masks": model.refine(video, out, query)[:, :, None],
    }


def e2e_multi(case: Case) -> Outputs:
    """All expressions of one clip at once."""
    together = e2e(case)
    outputs = {}
    for index in range(len(case.params["lens"])):
        for name in ("pred_logits", "pred_boxes", "reference_points", "pred_masks"):
            outputs[f"{name}_{index}"] = together[name][index : index + 1]
    return outputs


@in_float64(constants=False)
def train(case: Case) -> Outputs:
    """In float64: how float32 rounds decides on which side of a kink a gradient falls.

    The tolerances of the pack have room for it, since they were measured against float64 too.
    """
    config = config_of(case)
    quiet = replace(config, dropout=0.0, text=replace(config.text, dropout=0.0))
    if isinstance(quiet.backbone, SwinConfig):
        quiet = replace(quiet, backbone=replace(quiet.backbone, drop_path=0.0))
    model = published_model.__wrapped__(quiet, case.salt).double().train()  # kept by nobody: it is large and learns
    if not any(name.startswith("text_encoder.") for name in case.meta["notes"]["grad_names"]):
        model.text.freeze()
    batch = batch_of(case)
    batch = replace(batch, frames=batch.frames.double())
    targets = padded_targets(case, *batch.frames.shape[-2:])
    result = Objective(model).forward_with_outputs(batch, targets)
    result.losses["total"].backward()
    out = result.out
    candidates = unfold_patches(out.patch_masks)
    last_first = torch.arange(len(out.scores)).roll(1)
    layers = zip(out.scores[last_first], out.boxes[last_first], candidates[last_first], strict=True)
    costs = [matching_costs(scores, boxes, masks, targets) for scores, boxes, masks in layers]
    outputs = {f"loss/loss_{name}": loss.detach()[None] for name, loss in result.losses.items() if name != "total"}
    outputs |= {
        "total": result.losses["total"].detach()[None],
        "main_src_ind": result.matched[-1],
        "aux_src_ind": result.matched[:-1],
        "match_cost": torch.cat(costs),
        "pred_logits": out.scores[-1][..., None].detach(),
        "pred_boxes": out.boxes[-1].detach(),
        "pred_masks": result.masks[-1].detach(),
        "pred_masks_low": result.patch_masks[-1].detach(),
    }
    return {**outputs, **_gradients(case, model)}


def _gradients(case: Case, model: SgMg) -> Outputs:
    names = published_names(model)
    gradients = {names[name]: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    ordered = case.meta["notes"]["grad_names"]
    assert set(gradients) == set(ordered), f"gradients differ in {set(gradients) ^ set(ordered)}"
    flat = {name: gradients[name].double().flatten() for name in ordered}
    dots = [flat[name] @ torch.from_numpy(normals(f"dot:{name}", tuple(gradients[name].shape))).double().flatten()
            for name in ordered]  # fmt: skip
    norms = torch.stack([flat[name].norm() for name in ordered])
    wanted = [name.removeprefix("grad/") for name in case.meta["outputs"] if name.startswith("grad/")]
    return {f"grad/{name}": gradients[name] for name in wanted} | {
        "grad_norms": norms,
        "grad_dots": torch.stack(dots),
        "grad_total_norm": norms.norm()[None],
    }


Calls = dict[nn.Module, list[tuple[tuple[Any, ...], Any]]]


@contextmanager
def recorded(model: nn.Module) -> Iterator[Calls]:
    """What goes into and comes out of every module of the model while the block runs."""
    calls: Calls = {module: [] for module in model.modules()}
    hooks = [
        module.register_forward_hook(lambda module, given, got: calls[module].append((given, got))) for module in calls
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _intermediates(model: SgMg, calls: Calls, batch: ClipBatch) -> dict[str, Tensor]:
    expressions = len(batch.token_ids)

    def got(module: nn.Module, call: int = 0) -> Any:
        return calls[module][call][1]

    def attenuation(module: nn.Module) -> Tensor:
        return calls[module][0][0][1][None, None]

    text, found = got(model.text.roberta), got(model.transformer)
    features = mask_features(found.memory[:-1])
    outputs = {
        "text_last_hidden": text[0],
        "text_pooled": text[1],
        "text_word": got(model.text.word_resizer),
        "text_sentence": got(model.text.sentence_resizer),
        "hs": found.states,
        "init_reference": found.initial_reference,
        "inter_references": found.references,
        "mask_features": features.unflatten(0, (expressions, -1)),
    }
    for level, (project, first, second) in enumerate(
        zip(model.projections, model.filters, model.fused_filters, strict=True)
    ):
        outputs[f"proj{level}"], outputs[f"fft{level}"] = got(project), got(first)
        outputs[f"filter{level}"], outputs[f"filter_post{level}"] = attenuation(first), attenuation(second)
        outputs[f"fused{level}"] = rearrange(got(model.fusion, level), "e t c h w -> (t h w) e c")
        outputs[f"src{level}"] = got(second)
    outputs |= {f"memory{level}": memory for level, memory in enumerate(found.memory[:-1])}
    # Of a clip of which one frame is asked, our image backbones see that frame only, the published ones all.
    sees_all = batch.target_frame is None or isinstance(model.backbone, VideoSwin)
    seen = got(model.backbone) if sees_all else model.backbone(batch.frames)
    outputs |= {f"feat{level}": feature.flatten(0, 1) for level, feature in enumerate(seen)}
    for layer, (_, kernels) in enumerate(calls[model.kernel_head]):
        outputs[f"dyn_params{layer}"] = rearrange(kernels, "(e t) q k -> e (t q) k", e=expressions)
    return {f"mid/{name}": value for name, value in outputs.items()}


def _patch_outputs(out: ClipOutput) -> dict[str, Tensor]:
    """Patch masks of every layer."""
    return {
        f"mid/patch_masks{layer}": rearrange(masks, "e t q p h w -> e (t q) p h w")
        for layer, masks in enumerate(out.patch_masks)
    }


CASES: dict[str, Callable[[Case], Outputs]] = {"e2e": e2e, "e2e_multi": e2e_multi, "train": train}
