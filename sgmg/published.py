"""Reading of the published SgMg checkpoints and of Kinetics Video Swin backbones.

Their names are mapped by one rename table; weights that do not fit raise an error that names them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from sgmg.backbones.image import ImageSwin
from sgmg.backbones.video_swin import VideoSwin
from sgmg.config import PRESETS, SgMgConfig, SwinConfig
from sgmg.model import SgMg
from sgmg.patch_kernels import kernel_parameters
from sgmg.weights import (
    Shapes,
    StateDictMismatch,
    load_into,
    meta_model,
    read_torch_file,
    shapes_of,
    with_decoupling,
)

RENAMES: tuple[tuple[str, str], ...] = (
    # (our name, published name); all matching patterns are applied in order.
    (r"^backbone\.norms\.(\d)", r"backbone.0.body.norm\1"),
    (r"^backbone\.body\.", r"backbone.0.body."),
    (r"body\.patches_norm\.", r"body.patch_embed.norm."),
    (r"body\.patches\.", r"body.patch_embed.proj."),
    (r"body\.stages\.(\d+)\.(\d+)\.", r"body.layers.\1.blocks.\2."),
    (r"\.attention_norm\.", r".norm1."),
    (r"\.mlp_norm\.", r".norm2."),
    (r"\.attention\.position_bias$", r".attn.relative_position_bias_table"),
    (r"\.attention\.qkv\.", r".attn.qkv."),
    (r"(blocks\.\d+)\.attention\.output\.", r"\1.attn.proj."),
    (r"\.mlp\.0\.", r".mlp.fc1."),
    (r"\.mlp\.2\.", r".mlp.fc2."),
    (r"body\.mergings\.(\d)\.", r"body.downsamples.\1."),
    (r"(downsamples\.\d)\.reduce\.", r"\1.reduction."),
    (r"^text\.roberta\.", r"text_encoder.text_backbone."),
    (r"^text\.word_resizer\.", r"text_proj."),
    (r"^text\.sentence_resizer\.", r"sentence_proj."),
    (r"^(text_proj|sentence_proj)\.norm\.", r"\1.layer_norm."),
    (r"^projections\.", r"input_proj."),
    (r"^filters\.", r"input_fft."),
    (r"^fused_filters\.", r"input_fft_post."),
    (r"^(input_fft\w*\.\d)\.edges\.", r"\1.laplace."),
    (r"^(input_fft\w*\.\d)\.gate\.", r"\1.fc."),
    (r"^(input_fft\w*\.\d)\.mix\.0\.", r"\1.conv1."),
    (r"^(input_fft\w*\.\d)\.mix\.2\.", r"\1.conv2."),
    (r"^fusion\.in_proj\.", r"fusion_module.multihead_attn.in_proj_"),
    (r"^fusion\.", r"fusion_module.multihead_attn."),
    (r"^transformer\.box_heads\.", r"bbox_embed."),
    (r"^class_heads\.", r"class_embed."),
    (r"^kernel_head\.", r"controller."),
    (r"^(bbox_embed\.\d+|controller)\.hidden\.", r"\1.layers."),
    (r"^(bbox_embed\.\d+|controller)\.last\.", r"\1.layers.2."),
    (r"^transformer\.level_embedding$", r"transformer.level_embed"),
    (r"^transformer\.reference\.", r"transformer.reference_points."),
    (r"^query_positions$", r"query_embed.weight"),
    (r"^transformer\.(encoder|decoder)\.", r"transformer.\1.layers."),
    (r"(encoder\.layers\.\d+)\.attention\.", r"\1.self_attn."),
    (r"(encoder\.layers\.\d+)\.norm\.", r"\1.norm1."),
    (r"(transformer\.encoder\.layers\.\d+)\.ffn\.norm\.", r"\1.norm2."),
    (r"(transformer\.decoder\.layers\.\d+)\.ffn\.norm\.", r"\1.norm3."),
    (r"\.ffn\.widen\.", r".linear1."),
    (r"\.ffn\.narrow\.", r".linear2."),
    (r"\.self_attention\.", r".self_attn."),
    (r"\.cross_attention\.", r".cross_attn."),
    (r"\.self_norm\.", r".norm2."),
    (r"\.cross_norm\.", r".norm1."),
    (r"_attn\.offsets\.", r"_attn.sampling_offsets."),
    (r"_attn\.weights\.", r"_attn.attention_weights."),
    (r"_attn\.value\.", r"_attn.value_proj."),
    (r"_attn\.output\.", r"_attn.output_proj."),
    (r"^refinement\.step_([48])\.join\.", r"mask_refine.conv1_1div\1."),
    (r"^refinement\.step_([48])\.suggest\.", r"mask_refine.conv2_1div\1."),
)

IMAGE_SWIN_RENAME = (r"body\.downsamples\.(\d)\.", r"body.layers.\1.downsample.")
"""Rename for the published 2-D Swin, whose mergings are inside of the stages, as in Kinetics files."""

KINETICS_RENAMES = (IMAGE_SWIN_RENAME, (r"^backbone\.0\.body\.", r"backbone."))
"""Pairs of (published name, name in a Kinetics file)."""

ALIAS = "transformer.decoder.bbox_embed."
"""Prefix of the second copy of the box heads in published files."""

DERIVED = re.compile(rf"relative_position_index$|embeddings\.position_ids$|total_(ops|params)$|^{re.escape(ALIAS)}")
"""Entries of published files that are not loaded: recomputed, left by a profiler, or copies of others."""

ACTIONS = re.compile(r"^cls_head\.|^backbone\.norm\.")
"""Entries of the action classifier in Kinetics files (spec 3)."""

LATER_HEAD = re.compile(r"^(class_embed|bbox_embed)\.[1-9]\d*\.")
PATCHES, KINETICS_PATCHES = "backbone.0.body.patch_embed.proj.weight", "backbone.patch_embed.proj.weight"
KERNELS = "controller.layers.2.weight"


def load_published(path: str | PathLike[str], config: SgMgConfig | None = None) -> SgMg:
    """Loads the model of a published `.pth` file, in eval mode.

    Args:
        path: file of `{"model": weights, "args": Namespace, …}` or of the weights; its pickle is never executed.
        config: config of the model; None takes the preset that `args` names, else the one that fits best, with the
            two options of the published code inferred from the weights.

    Raises:
        FileNotFoundError: there is no such file; the message says where to get it.
        ValueError: the file is unreadable or unsafe, or does not fit; the message names mismatches and nearest preset.
    """
    path = Path(path)
    content = read_torch_file(path, "the release page of the paper's authors")
    state = _without_derived(_published_weights(content, path), path)
    config = config or _with_options(_named_preset(content) or _nearest(state), state)
    if config.multi_object:  # none was published
        return with_decoupling(load_published(path, replace(config, multi_object=False)), config)
    if not config.refine_boxes:
        state = _without_repeated_heads(state)
    if misfit := StateDictMismatch.between(shapes_of(state), _published_shapes(config)):
        raise ValueError(_unfit(path, config, _nearest(state), misfit))
    model = meta_model(config)
    return load_into(model, {ours: state[theirs] for ours, theirs in published_names(model).items()})


def load_kinetics(model: SgMg, path: str | PathLike[str]) -> None:
    """Loads a Video Swin trained on Kinetics into the backbone, for the start of pre-training (spec 3, 11).

    Its patch kernels span two frames and are summed over time, as ours span one. The classifier is left out.

    Raises:
        FileNotFoundError: there is no such file; the message says where to get it.
        ValueError: the model has no Video Swin; or the file is unreadable or unsafe, or does not fit.
    """
    path = Path(path)
    if not isinstance(model.backbone, VideoSwin):
        raise ValueError(f"{model.config.name} has no Video Swin that could take {path}. Use a preset video-swin-*.")
    content = read_torch_file(path, "the release page of Video Swin's authors")
    weights = _weights(content, "state_dict", path)
    state = {name: w for name, w in weights.items() if not DERIVED.search(name) and not ACTIONS.search(name)}
    if KINETICS_PATCHES in state and state[KINETICS_PATCHES].dim() == 5:
        state[KINETICS_PATCHES] = state[KINETICS_PATCHES].sum(dim=2)
    if misfit := StateDictMismatch.between(shapes_of(state), _kinetics_shapes(model.config)):
        videos = [
            preset for preset in PRESETS.values() if isinstance(preset.backbone, SwinConfig) and preset.backbone.video
        ]
        nearest = min(
            videos, key=lambda preset: len(StateDictMismatch.between(shapes_of(state), _kinetics_shapes(preset)))
        )
        raise ValueError(_unfit(path, model.config, nearest, misfit))
    model.load_state_dict(model.state_dict() | {ours: state[theirs] for ours, theirs in _kinetics_names(model).items()})


def published_names(model: SgMg) -> dict[str, str]:
    """Returns the name in published checkpoints for each name in the model's state dict."""
    renames = (*RENAMES, IMAGE_SWIN_RENAME) if isinstance(model.backbone, ImageSwin) else RENAMES
    return {name: _rename(name, renames) for name in model.state_dict()}


def _kinetics_names(model: SgMg) -> dict[str, str]:
    names = published_names(model)
    return {ours: _rename(name, KINETICS_RENAMES) for ours, name in names.items() if ours.startswith("backbone.")}


def _rename(name: str, renames: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in renames:
        if name.startswith("text_encoder."):  # Behind this prefix the names are RoBERTa's own.
            break
        name = re.sub(pattern, replacement, name)
    return name


@lru_cache(maxsize=64)
def _published_shapes(config: SgMgConfig) -> Shapes:
    model = meta_model(config)
    weights = model.state_dict()
    return shapes_of({theirs: weights[ours] for ours, theirs in published_names(model).items()})


@lru_cache(maxsize=64)
def _kinetics_shapes(config: SgMgConfig) -> Shapes:
    model = meta_model(config)
    weights = model.state_dict()
    return shapes_of({theirs: weights[ours] for ours, theirs in _kinetics_names(model).items()})


def _weights(content: Any, key: str, path: Path) -> dict[str, Tensor]:
    """Returns the weights under that key; without the key, the whole content, if it consists of weights."""
    entries = content if isinstance(content, Mapping) else {}
    found = entries.get(key, entries)
    if isinstance(found, Mapping) and found and all(isinstance(weight, Tensor) for weight in found.values()):
        return {str(name): weight for name, weight in found.items()}
    held = ", ".join(repr(name) for name in list(entries)[:5]) or type(content).__name__
    raise ValueError(
        f"{path} holds {held}, but no weights under {key!r}. Files of SgMg have theirs under 'model', Kinetics "
        f"backbones (load_kinetics) under 'state_dict'."
    )


def _published_weights(content: Any, path: Path) -> dict[str, Tensor]:
    weights = _weights(content, "model", path)
    state = {name.removeprefix("module."): weight for name, weight in weights.items()}  # left by data-parallel training
    if PATCHES in state and state[PATCHES].dim() == 5:
        state[PATCHES] = state[PATCHES].squeeze(2)  # published patches span one frame
    return state


def _without_derived(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    for name in state:
        original = name.removeprefix("transformer.decoder.")
        if name.startswith(ALIAS) and original in state and not _same(state[name], state[original]):
            raise ValueError(
                f"{path} contradicts itself: {name} differs from {original}, though they are one layer. Get it again."
            )
    return {name: weight for name, weight in state.items() if not DERIVED.search(name)}


def _without_repeated_heads(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes repeated heads: without box refinement, all decoder layers share heads, which are saved per layer."""
    first = {name: LATER_HEAD.sub(r"\1.0.", name) for name in state if LATER_HEAD.match(name)}
    if any(original not in state or not _same(state[name], state[original]) for name, original in first.items()):
        return dict(state)
    return {name: weight for name, weight in state.items() if name not in first}


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.equal(other)


def _named_preset(content: Mapping[str, Any]) -> SgMgConfig | None:
    backbone = getattr(content.get("args"), "backbone", None)
    return PRESETS.get(str(backbone).removesuffix("_p4w7").replace("_", "-"))


def _with_options(config: SgMgConfig, state: Mapping[str, Tensor]) -> SgMgConfig:
    """Sets the two options of the published code as the weights show them."""
    plain = kernel_parameters(config.width, relative_coordinates=False)
    return replace(
        config,
        refine_boxes=any(LATER_HEAD.match(name) for name in _without_repeated_heads(state)),
        relative_coordinates=KERNELS not in state or len(state[KERNELS]) != plain,
    )


def _nearest(state: Mapping[str, Tensor]) -> SgMgConfig:
    """Returns the preset that fits the weights best."""
    given = shapes_of(_without_repeated_heads(state))
    presets = PRESETS.values()
    return min(
        presets,
        key=lambda preset: len(StateDictMismatch.between(given, _published_shapes(_with_options(preset, state)))),
    )


def _unfit(path: Path, config: SgMgConfig, nearest: SgMgConfig, misfit: StateDictMismatch) -> str:
    if nearest.name == config.name:
        return f"{path} does not fit {config.name}, the nearest preset: {misfit}. Get the file or its config again."
    return f"{path} does not fit {config.name}, but is nearest to {nearest.name}: {misfit}. Use that preset."
