"""Small made-up training data, and what read tasks make of it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.clips.augmentation import SMALL, ClipRecipe
from pipelines.clips.stream import Streaming, TrainData, TrainPart, windows_of
from pipelines.clips.window_reader import read_window
from pipelines.files import Folder
from pipelines.manifest import read_manifest
from pipelines.records import Expression, ObjectTrack, Record
from prepared_data import a_record, prepared_folder
from sgmg.masks import mask_to_rle

LENGTH = 3
VIDEO = ClipRecipe.video(LENGTH, SMALL)
SIZE = (40, 56)


def made_up(path: Path, *records: Record, recipe: ClipRecipe = VIDEO, rows_per_group: int = 1) -> TrainPart:
    """Records in a prepared folder."""
    folder = Folder(str(prepared_folder(path, records, rows_per_group)))
    return TrainPart(folder, read_manifest(folder), recipe)


def annotated(video: str, t: int, *tracks: ObjectTrack, ids: tuple[int, ...] = (1,), sentences: int = 1) -> Record:
    """A made-up video with objects, of all of which every sentence speaks."""
    record = replace(a_record(video, t, dataset="own"), split="train", objects=tracks)
    return replace(record, expressions=tuple(Expression(str(n), f"sentence {n}", ids) for n in range(sentences)))


def rectangle(left: int, right: int) -> str:
    """The mask of a rectangle, between two columns of pixels."""
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[10:30, left:right] = True
    return mask_to_rle(mask)


def rows_of(data: TrainData, streaming: Streaming = Streaming()) -> Iterator[dict[str, Any]]:  # noqa: B008, frozen
    """What the read tasks of one worker pass on in the first epoch."""
    for item in windows_of(data, data.plan(0), range(data.global_batch), 0, streaming):
        yield from read_window(item, reader=data.reader(0))
