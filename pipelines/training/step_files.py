"""Steps as pictures and files: the first batch of a run, and a step whose loss is not finite."""

import io
import json
from collections.abc import Sequence

import numpy as np

from pipelines.clips.contact_sheet import Tile, contact_sheet
from pipelines.files import Folder
from pipelines.training.loader import StepBatch
from sgmg.boxes import cxcywh_to_xyxy, pixels_from_unit
from sgmg.train_step import MicroBatch

MOST = 8
"""Largest number of clips in a picture."""


def picture_of(clips: StepBatch, most: int = MOST) -> bytes:
    """Returns a PNG of the clips after all augmentation, with target masks and boxes."""
    pairs = zip(clips.micro_batches, clips.sentences, strict=True)
    tiles = [tile for micro_batch, sentences in pairs for tile in _tiles(micro_batch, sentences)][:most]
    png = io.BytesIO()
    contact_sheet(tiles).save(png, "PNG")
    return png.getvalue()


def save_step(run: Folder, clips: StepBatch, reason: str, rank: int) -> str:
    """Writes the samples of a step and their picture to the run's folder. Returns the path of the samples."""
    name = f"failed/step_{clips.step:08d}-rank{rank:04d}"
    samples = [{"lane": slot.lane, "sample": slot.sample, "dropped": slot.dropped} for slot in clips.slots]
    text = json.dumps({"step": clips.step, "reason": reason, "samples": samples}, indent=2, ensure_ascii=False)
    run.write(f"{name}.json", text.encode())
    run.write(f"{name}.png", picture_of(clips))
    return run.path(f"{name}.json")


def _tiles(micro_batch: MicroBatch, sentences: Sequence[str]) -> list[Tile]:
    batch, targets = micro_batch.batch, micro_batch.targets
    tiles = []
    for expression, number in enumerate(batch.clip_of.tolist()):
        height, width = batch.sizes[number].tolist()
        pixels = batch.frames[number, :, :, :height, :width].permute(0, 2, 3, 1).contiguous().numpy()
        if batch.target_frame is not None:
            place = int(batch.target_frame[number])
            pixels = pixels[place : place + 1]
        boxes = pixels_from_unit(cxcywh_to_xyxy(targets.boxes[expression]), batch.sizes[number]).tolist()
        valid = targets.valid[expression].tolist()
        tiles.append(
            Tile(
                frames=pixels,
                masks=targets.masks[expression, :, :height, :width].numpy().astype(np.bool_),
                boxes=[tuple(box) if visible else None for box, visible in zip(boxes, valid, strict=True)],
                caption=sentences[expression] if sentences else "no clip",
            )
        )
    return tiles
