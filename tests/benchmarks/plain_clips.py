"""The yardstick of clips.py: the same clips from the raw files with PIL, torchvision and NumPy, as one would write it.

It is given for nothing what our reader has to find out: which frames, which object, and every random draw.
"""

import sgmg.text  # noqa: F401  # isort: skip  # first: it makes torchvision importable beside a CPU build of torch

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision.transforms.functional
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode

from pipelines.clips.clip import ClipParams
from pipelines.clips.colour import Colour
from sgmg.preprocess import MEAN, STD
from sgmg.tokenizer import Tokenizer

TF: Any = torchvision.transforms.functional  # its type hints know no PIL images

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class PlainClip:
    """Files of one clip, in its order, and what chance decided."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    object_id: int
    drawn: ClipParams


class PlainClips(Dataset[tuple[Tensor, Tensor, Tensor, Tensor, str]]):
    """The recipe of Ref-YouTube-VOS: geometry, flip, colour; normalized frames, masks, boxes, valid, sentence."""

    def __init__(self, clips: Sequence[PlainClip]) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor, Tensor, Tensor, str]:
        clip = self.clips[place]
        images, masks, boxes = [], [], []
        for number, (image_file, mask_file) in enumerate(zip(clip.images, clip.masks, strict=True)):
            image = Image.open(image_file).convert("RGB")
            mask = Image.fromarray((np.asarray(Image.open(mask_file)) == clip.object_id).astype(np.uint8))
            box = box_of(np.asarray(mask))
            image, mask, box = resized_and_cropped(image, mask, box, clip.drawn)
            if clip.drawn.flip:
                image, mask = TF.hflip(image), TF.hflip(mask)
                box = torch.stack([image.width - box[2], box[1], image.width - box[0], box[3]])
            image = other_colours(image, clip.drawn.colours[number])
            images.append(TF.normalize(TF.to_tensor(image), MEAN, STD))
            masks.append(torch.from_numpy(np.asarray(mask) > 0))
            boxes.append(box)
        xyxy = torch.stack(boxes)
        valid = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        return torch.stack(images), torch.stack(masks), xyxy * valid[:, None], valid, clip.drawn.text


def box_of(mask: np.ndarray) -> Tensor:
    rows, columns = np.nonzero(mask)
    if not rows.size:
        return torch.zeros(4)
    return torch.tensor([columns.min(), rows.min(), columns.max(), rows.max()], dtype=torch.float32)


def resized_and_cropped(
    image: Image.Image, mask: Image.Image, box: Tensor, drawn: ClipParams
) -> tuple[Image.Image, Image.Image, Tensor]:
    """Resized at once, or enlarged, cropped and resized."""
    if (crop := drawn.geometry.crop) is not None:
        image, mask, box = resized(image, mask, box, crop.enlarged)
        image = TF.crop(image, crop.top, crop.left, *crop.size)
        mask = TF.crop(mask, crop.top, crop.left, *crop.size)
        box = box - torch.tensor([crop.left, crop.top] * 2)
        box = torch.minimum(box.reshape(2, 2), torch.tensor(crop.size[::-1])).clamp(min=0).reshape(4)
    return resized(image, mask, box, drawn.geometry.size)


def resized(
    image: Image.Image, mask: Image.Image, box: Tensor, size: tuple[int, int]
) -> tuple[Image.Image, Image.Image, Tensor]:
    scale = torch.tensor([size[1] / image.width, size[0] / image.height] * 2)
    image = TF.resize(image, list(size), InterpolationMode.BILINEAR)
    return image, TF.resize(mask, list(size), InterpolationMode.NEAREST), box * scale


def other_colours(image: Image.Image, colour: Colour) -> Image.Image:
    """Brightness, contrast, saturation and the order of the channels, on floats."""
    pixels = np.asarray(image).astype(np.float32)
    if colour.brightness is not None:
        pixels = np.clip(pixels + colour.brightness, 0, 255)
    if colour.contrast is not None:
        pixels = pixels * colour.contrast
    if colour.saturation is not None:
        hsv = cv2.cvtColor(pixels.astype(np.float32), cv2.COLOR_RGB2HSV)
        hsv[..., 1] *= colour.saturation
        pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if colour.channels != (0, 1, 2):
        pixels = pixels[..., list(colour.channels)]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


class Collate:
    """Pads to a multiple of 32, makes boxes cxcywh of the unpadded frame, and tokenizes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, clips: list[tuple[Tensor, Tensor, Tensor, Tensor, str]]) -> Batch:
        height = -(-max(clip[0].shape[2] for clip in clips) // 32) * 32
        width = -(-max(clip[0].shape[3] for clip in clips) // 32) * 32
        frames = torch.zeros(len(clips), clips[0][0].shape[0], 3, height, width)
        masks = torch.zeros(len(clips), clips[0][0].shape[0], height, width, dtype=torch.bool)
        padding = torch.ones(len(clips), height, width, dtype=torch.bool)
        boxes = []
        for place, (images, mask, xyxy, _, _) in enumerate(clips):
            h, w = images.shape[2:]
            frames[place, :, :, :h, :w] = images
            masks[place, :, :h, :w] = mask
            padding[place, :h, :w] = False
            x1, y1, x2, y2 = (xyxy / torch.tensor([w, h, w, h])).unbind(-1)
            boxes.append(torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dim=-1))
        words, _ = self.tokenizer([clip[4] for clip in clips])
        return frames, padding, masks, torch.stack(boxes), torch.stack([clip[3] for clip in clips]), words


def plain_loader(clips: Sequence[PlainClip], tokenizer: Tokenizer, workers: int) -> DataLoader[Batch]:
    """A DataLoader that gives one clip a batch."""
    return DataLoader(PlainClips(clips), batch_size=1, num_workers=workers, collate_fn=Collate(tokenizer))  # pyright: ignore[reportReturnType]
