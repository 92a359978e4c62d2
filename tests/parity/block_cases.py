"""Golden cases of single blocks: positions, filter, fusion, attention, transformer, kernels, refinement, backbones."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeVar

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from pack import Case
from sgmg.backbones.image import ImageSwin, ResNet
from sgmg.backbones.video_swin import VideoSwin
from sgmg.batch import TextFeatures
from sgmg.config import ResNetConfig, SgMgConfig
from sgmg.deformable_attention import DeformableAttention, Shapes
from sgmg.fusion import LanguageFusion
from sgmg.model import SgMg
from sgmg.patch_kernels import patch_masks, relative_coordinates, unfold_patches
from sgmg.positions import pixel_positions, word_positions
from sgmg.preprocess import pad_clips, resize_padding
from sgmg.published import published_names
from sgmg.refine import MaskRefinement
from sgmg.spectrum import SpectrumFilter, gaussian, resize_attenuation
from sgmg.transformer import DecoderLayer, DeformableTransformer, EncoderLayer, cell_references

Outputs = Mapping[str, Tensor]
M = TypeVar("M", bound=nn.Module)

WIDTH, HEADS, LEVELS, POINTS, FFN, DROPOUT = LAYER_SIZES = (256, 8, 4, 4, 2048, 0.1)
FILTERS = {"input_fft": "filters", "input_fft_post": "fused_filters"}


def preset_name(published: str) -> str:
    """Our name of a published backbone: video_swin_t_p4w7 is video-swin-t."""
    return published.removesuffix("_p4w7").replace("_", "-")


@cache
def names_of(preset: str) -> Mapping[str, str]:
    with torch.device("meta"):
        return published_names(SgMg(SgMgConfig.preset(preset)))


def fill(module: M, case: Case, prefix: str, preset: str = "video-swin-t") -> M:
    """Gives a module, which stands under `prefix` in the model of that preset, the weights of the recipe."""
    names = names_of(preset)
    module.load_state_dict(
        {
            name: torch.from_numpy(case.weight(names[f"{prefix}.{name}"], tuple(old.shape)))
            for name, old in module.state_dict().items()
        }
    )
    return module.eval()


def tensors(case: Case) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in case.inputs.items()}


def our_attention(published: str) -> str:
    """The place in our model of `transformer.encoder.layers.K.self_attn` or `transformer.decoder.layers.K.cross_attn`.

    Derived from the rename table: the parent of the parameter that has that published name.
    """
    names = names_of("video-swin-t")
    return next(ours for ours, name in names.items() if name == f"{published}.value_proj.bias").rsplit(".", 2)[0]


def pos2d(case: Case) -> Outputs:
    return {"pos": pixel_positions(tensors(case)["mask"], WIDTH)}


def pos1d(case: Case) -> Outputs:
    return {"pos": rearrange(word_positions(tensors(case)["mask"], WIDTH), "e n c -> e c n")}


def our_filter(case: Case, published: str) -> SpectrumFilter:
    family, level = published.split(".")
    return fill(SpectrumFilter(WIDTH), case, f"{FILTERS[family]}.{level}")


def lfm(case: Case) -> Outputs:
    given = tensors(case)
    attenuation = given["gauss_map"][0, 0] if "gauss_map" in given else None
    outputs = {}
    for index, module in enumerate(case.params["modules"]):
        x = given[f"x{index}"]
        size = (x.shape[2], x.shape[3])
        attenuation = gaussian(*size) if attenuation is None else resize_attenuation(attenuation, size)
        outputs[f"y{index}"] = our_filter(case, module)(x, attenuation).detach()
        outputs[f"filter{index}"] = attenuation[None, None]
    return outputs


def lfm_grad(case: Case) -> Outputs:
    given = tensors(case)
    published = case.params.get("module", "input_fft.1")
    family, level = published.split(".")
    filter_ = our_filter(case, published)
    x = given["x"].requires_grad_()
    y = filter_(x, gaussian(x.shape[2], x.shape[3]))
    y.backward(given["cotangent"])
    names = names_of("video-swin-t")
    norms = {
        names[f"{FILTERS[family]}.{level}.{name}"].removeprefix(f"{published}."): weight.grad
        for name, weight in filter_.named_parameters()
    }
    assert x.grad is not None
    return {"y": y.detach(), "grad_x": x.grad} | {
        f"grad_norm/{name}": grad.double().norm()[None] for name, grad in norms.items() if grad is not None
    }


def fusion(case: Case) -> Outputs:
    given = tensors(case)
    words = rearrange(given["text"], "n e c -> e n c")
    text = TextFeatures(
        words=words,
        positions=rearrange(given["text_pos"], "n e c -> e n c"),
        padding=given["text_key_padding_mask"],
        sentence_feature=words[:, 0],
    )
    pixels = rearrange(given["visual"], "t h w b c -> b t c h w")
    out = fill(LanguageFusion(WIDTH, HEADS), case, "fusion")(pixels, text, torch.arange(len(words)))
    return {"out": rearrange(out, "e t c h w -> (t h w) e c").detach()}


def msdeform(case: Case) -> Outputs:
    given = tensors(case)
    prefix = our_attention(case.params.get("module", "transformer.encoder.layers.0.self_attn"))
    attention = fill(DeformableAttention(WIDTH, HEADS, LEVELS, POINTS), case, prefix)
    query, cells, references = leaves = [
        given[name].requires_grad_() for name in ("query", "input_flatten", "reference_points")
    ]
    shapes = [(h, w) for h, w in case.params["shapes"]]
    padding = given.get("padding_mask", torch.zeros(cells.shape[:2], dtype=torch.bool))
    out = attention(query, references, cells, shapes, padding)
    locations, weights = attention.sampling(query, references, shapes)
    in_query, in_cells, in_references = torch.autograd.grad(out, leaves, given["cotangent"])
    return {
        "out": out.detach(),
        "sampling_locations": locations.detach(),
        "attention_weights": weights.detach(),
        "grad_query": in_query,
        "grad_input_flatten": in_cells,
        "grad_reference_points": in_references,
    }


def enc_layer(case: Case) -> Outputs:
    given = tensors(case)
    shapes = [(h, w) for h, w in case.params["shapes"]]
    layer = fill(EncoderLayer(*LAYER_SIZES), case, f"transformer.encoder.{case.params['layer']}")
    references = cell_references(shapes, given["valid_ratios"])
    padding = given.get("padding_mask", torch.zeros(given["src"].shape[:2], dtype=torch.bool))
    out = layer(given["src"], given["pos"], references, shapes, padding)
    return {"reference_points": references, "out": out.detach()}


def dec_layer(case: Case) -> Outputs:
    given = tensors(case)
    shapes = [(h, w) for h, w in case.params["shapes"]]
    layer = fill(DecoderLayer(*LAYER_SIZES), case, f"transformer.decoder.{case.params['layer']}")
    asked, read = [], layer.cross_attention.read

    def recorded(values: Tensor, query: Tensor, references: Tensor, shapes: Shapes) -> Tensor:
        asked.append((query, references))
        return read(values, query, references, shapes)

    layer.cross_attention.read = recorded
    padding = given.get("padding_mask", torch.zeros(given["src"].shape[:2], dtype=torch.bool))
    out = layer(given["tgt"], given["query_pos"], given["reference_points"], given["src"], shapes, padding)
    query, references = asked[0]
    locations, weights = layer.cross_attention.sampling(query, references, shapes)
    outputs = {"out": out, "sampling_locations": locations, "attention_weights": weights}
    return {name: value.detach() for name, value in outputs.items()}


def transformer(case: Case) -> Outputs:
    given = tensors(case)
    config = SgMgConfig.preset("video-swin-t")
    module = DeformableTransformer(
        channels=WIDTH,
        heads=HEADS,
        levels=LEVELS,
        points=POINTS,
        ffn=FFN,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        dropout=DROPOUT,
        refine_boxes=case.params["refine"],
    )
    fill(module, case, "transformer")
    paddings = [given[f"mask{level}"] for level in range(LEVELS)]
    queries = torch.from_numpy(case.weight("query_embed.weight", (config.queries, WIDTH)))
    with torch.no_grad():
        found = module(
            [given[f"src{level}"] for level in range(LEVELS)],
            [pixel_positions(padding, WIDTH) for padding in paddings],
            paddings,
            repeat(given["text_sentence"], "b c -> (b t) c", t=case.params["t"]),
            queries,
        )
    memory = {f"memory{level}": cells for level, cells in enumerate(found.memory[:-1])}
    return memory | {
        "hs": found.states,
        "init_reference": found.initial_reference,
        "inter_references": found.references,
    }


def mso(case: Case) -> Outputs:
    given = tensors(case)
    module = fill(MaskRefinement(*case.params["dims"]), case, "refinement")
    with torch.no_grad():
        out = module(given["pred_masks"], module.details(given["feat4"], given["feat8"]))
    return {"out": out, "pixel_shuffled": unfold_patches(out)[:, None]}


def dynmask(case: Case) -> Outputs:
    given = tensors(case)
    t = case.params["t"]
    features = rearrange(given["mask_features"], "b t c h w -> (b t) c h w")
    references = rearrange(given["reference_points"], "b (t q) xy -> (b t) q xy", t=t)
    coordinates = None
    if case.params["rel_coord"]:
        sizes = repeat(given["sizes"], "b hw -> (b t) hw", t=t)
        coordinates = relative_coordinates(references, sizes, features.shape[2], features.shape[3])
    parameters = rearrange(given["mask_head_params"], "b (t q) k -> (b t) q k", t=t)
    masks = patch_masks(features, parameters, coordinates)
    return {
        "out": rearrange(masks, "(b t) q p h w -> b (t q) p h w", t=t),
        "pixel_shuffled": rearrange(unfold_patches(masks), "n q h w -> (n q) 1 h w"),
    }


def nested(case: Case) -> Outputs:
    given = tensors(case)
    clips = [given[f"video{index}"] for index in range(len(case.params["clips"]))]
    outputs = {}
    for name in case.meta["outputs"]:
        if not name.startswith("padded_shape_"):
            continue
        multiple = int(name.removeprefix("padded_shape_"))
        frames, padding, _ = pad_clips(clips, multiple, minimum=1)
        t = frames.shape[1]
        outputs[name] = torch.tensor(frames.shape)
        outputs[f"mask_{multiple}"] = repeat(padding, "b h w -> b t h w", t=t)
        outputs[f"sum_{multiple}"] = frames.sum(dim=(2, 3, 4))
        for h, w in case.params["downs"]:
            down = repeat(resize_padding(padding, h, w), "b h w -> (b t) h w", t=t)
            outputs[f"mask_{multiple}_to_{h}x{w}"] = down
    return outputs


def backbone(case: Case) -> Outputs:
    given = tensors(case)
    preset = preset_name(case.params["name"])
    config = SgMgConfig.preset(preset).backbone
    if isinstance(config, ResNetConfig):
        module = ResNet(config)
    else:
        module = VideoSwin(config) if config.video else ImageSwin(config)
    fill(module, case, "backbone", preset)
    clips = [given[f"frames{index}"] for index in range(len(case.params["clips"]))]
    frames, padding, _ = pad_clips(clips, case.params.get("div", 1), minimum=1)
    with torch.no_grad():
        features = module(frames)
    outputs = {}
    for level, feature in enumerate(features):
        mask = resize_padding(padding, feature.shape[3], feature.shape[4])
        outputs[f"feat{level}"] = rearrange(feature, "b t c h w -> (b t) c h w")
        outputs[f"mask{level}"] = repeat(mask, "b h w -> (b t) h w", t=frames.shape[1])
        outputs[f"pos{level}"] = repeat(pixel_positions(mask, WIDTH), "b c h w -> (b t) c h w", t=frames.shape[1])
    return outputs


CASES: dict[str, Callable[[Case], Outputs]] = {
    "pos2d": pos2d,
    "pos1d": pos1d,
    "lfm": lfm,
    "lfm_grad": lfm_grad,
    "fusion": fusion,
    "msdeform": msdeform,
    "enc_layer": enc_layer,
    "dec_layer": dec_layer,
    "transformer": transformer,
    "mso": mso,
    "dynmask": dynmask,
    "nested": nested,
    "backbone": backbone,
}
