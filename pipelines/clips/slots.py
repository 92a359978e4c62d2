"""Clips between a decode task and the worker that trains: rows of plain bytes, read back without a copy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.clips.clip import Clip, Target, apply_params


@dataclass(frozen=True, slots=True)
class Slot:
    """The clip of one lane at one step; None if the sample was dropped or the lane has ended."""

    step: int  # of the epoch
    lane: int
    sample: str  # its name, for logs; empty if the lane has ended
    clip: Clip | None
    dropped: str = ""  # reason if the sample was dropped


def decode_row(row: dict[str, Any]) -> dict[str, Any]:
    """Converts one row of `WindowReader` to a clip of plain bytes; `slot_of` reads it back without a copy.

    Raises:
        ValueError: a frame is damaged; the message names the sample.
    """
    head = {name: row[name] for name in ("step", "lane", "sample", "dropped")}
    if row["drawn"] is None:
        return head | {
            "shape": [],
            "frames": b"",
            "masks": b"",
            "boxes": [],
            "valid": [],
            "texts": [],
            "target_frame": -1,
        }
    try:
        clip = apply_params(row["drawn"], row["frames"], row["rles"], row["siblings"])
    except ValueError as error:
        raise ValueError(f"{row['sample']}: {error}") from error
    return head | {
        "shape": [*clip.frames.shape[:3], len(clip.masks)],
        "frames": clip.frames.tobytes(),
        "masks": np.packbits(np.stack([target.masks for target in clip.targets])).tobytes(),
        "boxes": np.stack([target.boxes for target in clip.targets]).ravel().tolist(),
        "valid": np.stack([target.valid for target in clip.targets]).ravel().tolist(),
        "texts": [target.text for target in clip.targets],
        "target_frame": -1 if clip.target_frame is None else clip.target_frame,
    }


def slot_of(table: pa.Table, place: int) -> Slot:
    """Reads a row of `decode_row`; the frames share the memory of the table."""
    row = {name: table[name][place] for name in table.column_names}
    head = (row["step"].as_py(), row["lane"].as_py(), row["sample"].as_py())
    shape = row["shape"].as_py()
    if not shape:
        return Slot(*head, None, row["dropped"].as_py())
    t, height, width, n = shape
    frames = np.frombuffer(row["frames"].as_buffer(), dtype=np.uint8).reshape(t, height, width, 3)
    texts = row["texts"].as_py()
    e = len(texts)
    bits = np.frombuffer(row["masks"].as_buffer(), dtype=np.uint8)
    masks = np.unpackbits(bits, count=e * n * height * width).view(np.bool_).reshape(e, n, height, width)
    boxes = np.array(row["boxes"].as_py(), dtype=np.float32).reshape(e, n, 4)
    valid = np.array(row["valid"].as_py()).reshape(e, n)
    first, *others = [Target(*one) for one in zip(texts, masks, boxes, valid, strict=True)]
    target_frame = row["target_frame"].as_py()
    clip = Clip(
        frames,
        first.masks,
        first.boxes,
        first.valid,
        first.text,
        None if target_frame < 0 else target_frame,
        tuple(others),
    )
    return Slot(*head, clip)
