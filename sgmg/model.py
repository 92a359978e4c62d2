"""The SgMg model, following figure 2 of the paper."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from sgmg.backbones.image import ImageSwin, ResNet
from sgmg.backbones.video_swin import PATCH, VideoSwin
from sgmg.batch import ClipBatch, ClipOutput, TextFeatures, VideoFeatures
from sgmg.config import ResNetConfig, SgMgConfig
from sgmg.fusion import Decoupling, LanguageFusion, sum_of_clip
from sgmg.model_input import check_clips, check_query, check_question
from sgmg.patch_kernels import kernel_parameters, mask_features, patch_masks, relative_coordinates, unfold_patches
from sgmg.positions import pixel_positions
from sgmg.precision import in_float32
from sgmg.preprocess import normalize_clips, pad_to_minimum, resize_padding
from sgmg.refine import MaskRefinement
from sgmg.spectrum import SpectrumFilter, gaussian, resize_attenuation
from sgmg.text import TextEncoder
from sgmg.transformer import MLP, Decoded, DeformableTransformer, Memory

LEVELS = 4
"""Levels of the transformer: 1/8, 1/16, 1/32, 1/64."""


class SgMg(nn.Module):
    """Referring video object segmentation (Miao et al., ICCV 2023).

    Encode a clip once, segment any number of expressions in it, and refine the masks of the chosen queries only:

        video = model.encode_video(frames, padding)
        text = model.encode_text(token_ids, token_padding)
        out = model.segment(video, text, sizes, clip_of)
        masks = model.refine(video, out, best_query(out.scores[-1]))
    """

    def __init__(self, config: SgMgConfig) -> None:
        super().__init__()
        self.config = config
        width, channels = config.width, config.backbone.channels
        self.backbone = _backbone(config)
        self.text = TextEncoder(config.text, width, config.dropout)
        self.projections = nn.ModuleList(_projection(c, width) for c in channels[1:])
        self.projections.append(_projection(channels[-1], width, kernel=3, stride=2))
        self.filters = nn.ModuleList(SpectrumFilter(width) for _ in range(LEVELS))
        self.fusion = LanguageFusion(width, config.heads)
        self.fused_filters = nn.ModuleList(SpectrumFilter(width) for _ in range(LEVELS))
        self.transformer = DeformableTransformer(
            channels=width,
            heads=config.heads,
            levels=LEVELS,
            points=config.points,
            ffn=config.ffn,
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
            dropout=config.dropout,
            refine_boxes=config.refine_boxes,
        )
        self.query_positions = nn.Parameter(nn.init.normal_(torch.empty(config.queries, width)))
        self.class_heads = nn.ModuleList(
            nn.Linear(width, 1) for _ in range(config.decoder_layers if config.refine_boxes else 1)
        )
        parameters = kernel_parameters(width, relative_coordinates=config.relative_coordinates)
        self.kernel_head = MLP(width, width, width, parameters)
        self.refinement = MaskRefinement(channels[0], channels[1])
        self.reset_class_heads()
        for name, parameter in self.kernel_head.named_parameters():
            if name.endswith("weight"):
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)
        # The last: all else is drawn as for a single-object model of the same seed.
        self.decoupling = Decoupling(width) if config.multi_object else None

    def reset_class_heads(self) -> None:
        """Initialises the class heads anew, with a score of 1 % for every query: the start of fine-tuning (spec 11)."""
        for head in self.class_heads:
            assert isinstance(head, nn.Linear)
            head.reset_parameters()
            nn.init.constant_(head.bias, -math.log(99))

    def encode_video(
        self,
        frames: Float[Tensor, "b t 3 h w"] | UInt8[Tensor, "b t 3 h w"],
        padding: Bool[Tensor, "b h w"],
        target_frame: Int[Tensor, " b"] | None = None,
    ) -> VideoFeatures:
        """Encodes b clips; run once for any number of expressions.

        Clips of different size are padded to one; the network sees the padding, so the numbers then differ from
        running each clip alone. Frames under 129 pixels a side are padded up.

        Args:
            frames: RGB bytes, or floats that are normalized (`sgmg.preprocess`) and zero where padded.
            padding: True where padded.
            target_frame: index of the one frame of each clip to segment; a video backbone sees the others too.

        Raises:
            ValueError: frames are neither bytes nor floats, have not three channels, are empty or not finite; or
                padding or target_frame does not fit them.
        """
        check_clips(frames, padding, target_frame, self.query_positions.dtype)
        if frames.dtype == torch.uint8:
            frames = normalize_clips(frames, padding).to(self.query_positions.dtype)
        frames, padding = pad_to_minimum(frames, padding, multiple=PATCH)
        features = self._features(frames, target_frame)
        details = self.refinement.details(*(rearrange(f, "b t c h w -> (b t) c h w") for f in features[:2]))
        levels, attenuations = [], []
        # Level 64 is made from the features of 1/32, like level 32.
        sources = (*features[1:], features[-1])
        for feature, project, filter_ in zip(sources, self.projections, self.filters, strict=True):
            level = project(rearrange(feature, "b t c h w -> (b t) c h w"))
            size = (level.shape[2], level.shape[3])
            attenuations.append(
                resize_attenuation(attenuations[-1], size) if attenuations else gaussian(*size, level.device)
            )
            levels.append(rearrange(filter_(level, attenuations[-1]), "(b t) c h w -> b t c h w", b=len(frames)))
        paddings = tuple(resize_padding(padding, level.shape[3], level.shape[4]) for level in levels)
        return VideoFeatures(
            levels=tuple(levels),
            paddings=paddings,
            positions=tuple(pixel_positions(mask, self.config.width) for mask in paddings),
            attenuations=tuple(attenuations),
            details=tuple(rearrange(detail, "(b t) p h w -> b t p h w", b=len(frames)) for detail in details),
        )

    def encode_text(self, token_ids: Int[Tensor, "e n"], token_padding: Bool[Tensor, "e n"]) -> TextFeatures:
        """Encodes e expressions, given as the token ids of a `sgmg.tokenizer.Tokenizer`.

        Raises:
            ValueError: there is no expression, a token id is outside the vocabulary, or an expression is too long or
                only padding.
        """
        return self.text(token_ids, token_padding)

    def segment(
        self,
        video: VideoFeatures,
        text: TextFeatures,
        sizes: Int[Tensor, "b 2"],
        clip_of: Int[Tensor, " e"],
        layers: Literal["last", "all"] = "last",
    ) -> ClipOutput:
        """Segments each expression in its clip: a score, a box and a coarse mask for every frame and query.

        With `SgMgConfig.multi_object`, the expressions of a clip are fused with it together: an answer then depends on
        who was asked with it, but for rounding not on their order.

        Args:
            video: b encoded clips.
            text: e encoded expressions.
            sizes: (height, width) of each clip before padding, in pixels.
            clip_of: index of the clip that each expression is about, 0 to b-1.
            layers: outputs of `all` decoder layers (for training) or of the `last` only.

        Raises:
            ValueError: clip_of or sizes does not fit the clips and expressions, or layers is unknown.
        """
        if layers not in ("last", "all"):
            raise ValueError(f"layers={layers!r} is unknown. Choose 'last' or 'all'.")
        check_question(video, text, sizes, clip_of)
        t = video.levels[0].shape[1]
        decoded = self._decoded(video, text, clip_of)
        selected = (
            range(len(decoded.states)) if layers == "all" else range(len(decoded.states) - 1, len(decoded.states))
        )
        frame_sizes = repeat(sizes[clip_of], "e hw -> (e t) hw", t=t)
        masks = self._patch_masks(decoded, selected, frame_sizes)
        heads = [self.class_heads[layer if self.config.refine_boxes else 0] for layer in selected]
        scores = torch.stack(
            [in_float32(head, decoded.states[layer]) for head, layer in zip(heads, selected, strict=True)]
        )
        first = selected.start
        return ClipOutput(
            scores=rearrange(scores, "l (e t) q 1 -> l e t q", t=t),
            boxes=rearrange(decoded.boxes[first:], "l (e t) q box -> l e t q box", t=t),
            reference_points=rearrange(decoded.reference_points[first:], "l (e t) q xy -> l e t q xy", t=t),
            patch_masks=rearrange(masks, "l (e t) q p h w -> l e t q p h w", t=t),
            clip_of=clip_of,
        )

    def refine(
        self, video: VideoFeatures, out: ClipOutput, query: Int[Tensor, " e *k"], layer: int = -1
    ) -> Float[Tensor, "e *k t h w"]:
        """Refines the masks of the chosen queries to full size; nothing is computed for the others.

        Args:
            video: features that `out` was computed from.
            out: output of `segment`.
            query: index of one query per expression (e), or of k queries (e, k).
            layer: index of the layer of `out` whose patch masks are refined.

        Returns:
            Mask logits at the size of the padded frames: sides are multiples of 4 and at least 129.

        Raises:
            ValueError: `out` has no such query or layer.
        """
        check_query(out, query, layer)
        expression = torch.arange(len(query), device=query.device).view(-1, *(1 for _ in query.shape[1:]))
        patches = out.patch_masks[layer][expression, :, query]
        t = patches.shape[-4]
        clip = out.clip_of[expression].expand(query.shape).flatten()
        details = [rearrange(detail[clip], "m t p h w -> (m t) p h w") for detail in video.details]
        refined = self.refinement(patches.flatten(0, -4), details)
        return unfold_patches(refined).unflatten(0, (*query.shape, t))

    def forward(self, batch: ClipBatch, layers: Literal["last", "all"] = "last") -> ClipOutput:
        """Encodes and segments a batch; `layers` as in `segment`."""
        video = self.encode_video(batch.frames, batch.padding, batch.target_frame)
        text = self.encode_text(batch.token_ids, batch.token_padding)
        return self.segment(video, text, batch.sizes, batch.clip_of, layers)

    def _features(self, frames: Tensor, target_frame: Tensor | None) -> Sequence[Float[Tensor, "b t _ _ _"]]:
        if target_frame is None:
            return self.backbone(frames)
        clip = torch.arange(len(frames), device=frames.device)
        if not isinstance(self.backbone, VideoSwin):
            return self.backbone(frames[clip, target_frame][:, None])
        return [feature[clip, target_frame][:, None] for feature in self.backbone(frames)]

    def _decoded(self, video: VideoFeatures, text: TextFeatures, clip_of: Int[Tensor, " e"]) -> Decoded:
        """Encodes and decodes each expression in its clip; those of a clip share the encoder if it is multi-object."""
        levels, own = [], []
        for level, attenuation, filter_ in zip(video.levels, video.attenuations, self.fused_filters, strict=True):
            fused = self.fusion(level, text, clip_of)
            if self.decoupling is not None:
                own.append(rearrange(fused, "e t c h w -> e t (h w) c"))
                fused = sum_of_clip(fused, clip_of, len(level))
            levels.append(filter_(fused.flatten(0, 1), attenuation))
        positions, paddings, decouple = video.positions, video.paddings, None
        if self.decoupling is None:
            positions, paddings = ([of[clip_of] for of in each] for each in (positions, paddings))
        else:
            decouple = partial(self._memory_of_each, own, clip_of)
        t = video.levels[0].shape[1]
        return self.transformer(
            levels,
            [repeat(position, "g c h w -> (g t) c h w", t=t) for position in positions],
            [repeat(mask, "g h w -> (g t) h w", t=t) for mask in paddings],
            repeat(text.sentence_feature, "e c -> (e t) c", t=t),
            self.query_positions,
            decouple,
        )

    def _memory_of_each(
        self, fused: Sequence[Float[Tensor, "e t _ c"]], clip_of: Int[Tensor, " e"], memory: Memory
    ) -> Memory:
        """Returns the memory of each expression, of that of the clips: rows are e or b times t frames."""
        assert self.decoupling is not None
        t = fused[0].shape[1]
        cells, padding, ratios = (of.unflatten(0, (-1, t)) for of in (memory.cells, memory.padding, memory.ratios))
        return Memory(
            self.decoupling(cells, torch.cat(list(fused), dim=2), clip_of).flatten(0, 1),
            padding[clip_of].flatten(0, 1),
            ratios[clip_of].flatten(0, 1),
            memory.shapes,
        )

    def _patch_masks(self, decoded: Decoded, layers: range, sizes: Int[Tensor, "n 2"]) -> Float[Tensor, "l n q p h w"]:
        features = mask_features(decoded.memory[:-1])
        h, w = features.shape[-2:]
        masks = []
        for layer in layers:
            coordinates = None
            if self.config.relative_coordinates:
                coordinates = relative_coordinates(decoded.references[layer, ..., :2], sizes, h, w)
            masks.append(patch_masks(features, in_float32(self.kernel_head, decoded.states[layer]), coordinates))
        return torch.stack(masks)


def _backbone(config: SgMgConfig) -> VideoSwin | ImageSwin | ResNet:
    switch = config.activation_checkpointing
    if isinstance(config.backbone, ResNetConfig):
        return ResNet(config.backbone, activation_checkpointing=switch)
    kind = VideoSwin if config.backbone.video else ImageSwin
    return kind(config.backbone, activation_checkpointing=switch)


def _projection(channels: int, width: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2)
    assert convolution.bias is not None
    nn.init.xavier_uniform_(convolution.weight)
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.GroupNorm(32, width))
