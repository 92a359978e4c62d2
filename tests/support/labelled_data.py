"""Prepared videos with a known truth, made for tests that score them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.records import ObjectTrack, Record
from prepared_data import SENTENCES, a_record
from sgmg.masks import mask_to_rle

SIZE = (40, 56)


def labelled(
    video: str, t: int = 1, *, dataset: str = "own", split: str = "val", sentences: Sequence[str] = SENTENCES[:1]
) -> Record:
    """A video whose sentences are all about one object, its left half."""
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[:, : SIZE[1] // 2] = True
    track = ObjectTrack(1, (mask_to_rle(mask),) * t, boxes=((0.0, 0.0, SIZE[1] / 2, float(SIZE[0])),) * t)
    record = a_record(video, t, dataset=dataset, sentences=sentences)
    expressions = tuple(replace(one, object_ids=(1,)) for one in record.expressions)
    return replace(record, split=split, objects=(track,), expressions=expressions)


def spoiled(record: Record) -> Record:
    """The video with frames that are no images."""
    return replace(record, frames=(b"no image",) * len(record.frames))


def cut_short(folder: Path, shard: int = 0) -> str:
    """Cuts off the end of a shard, without which no row group of it can be read; the path of the shard."""
    file = sorted(folder.glob("*.parquet"))[shard]
    file.write_bytes(file.read_bytes()[:-100])
    return str(file)
