"""Small prepared folders and checkpoints, made for tests that run what reads them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch

from pipelines.files import Folder
from pipelines.manifest import MANIFEST, Manifest, Shard
from pipelines.prepare.row_info import row_info
from pipelines.records import Expression, Record, table_of
from sgmg.checkpoints import save
from sgmg.config import SgMgConfig
from sgmg.model import SgMg
from sgmg.tokenizer import Tokenizer

SENTENCES = ("a man in a red shirt", "the dog on the left", "the ball")


def png(pixels: np.ndarray) -> bytes:
    """RGB bytes as a PNG."""
    written, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert written
    return data.tobytes()


def pixels_of(seed: int, t: int, height: int = 40, width: int = 56) -> np.ndarray:
    """t frames of coarse colours."""
    cells = np.random.default_rng(seed).integers(0, 256, (t, height // 8, width // 8, 3), dtype=np.uint8)
    return cells.repeat(8, axis=1).repeat(8, axis=2)


def a_record(
    video: str, t: int = 2, *, dataset: str = "ref-youtube-vos", sentences: Sequence[str] = SENTENCES
) -> Record:
    """A video without truth; the same name, the same frames."""
    frames = pixels_of(sum(video.encode()), t)
    return Record(
        dataset=dataset,
        split="valid",
        video=video,
        width=frames.shape[2],
        height=frames.shape[1],
        original_width=frames.shape[2],
        original_height=frames.shape[1],
        frame_names=tuple(f"{5 * number:05d}" for number in range(t)),
        frames=tuple(png(frame) for frame in frames),
        objects=(),
        expressions=tuple(Expression(str(number), text) for number, text in enumerate(sentences)),
        source=f"made up: {video}",
        source_fingerprint=video,
    )


def prepared_folder(path: Path, records: Sequence[Record], rows_per_group: int = 2, groups_per_shard: int = 2) -> Path:
    """What jobs/prepare.py leaves, of these records."""
    groups = [records[first : first + rows_per_group] for first in range(0, len(records), rows_per_group)]
    shards = [groups[first : first + groups_per_shard] for first in range(0, len(groups), groups_per_shard)]
    dataset, split = records[0].dataset, records[0].split
    path.mkdir(parents=True, exist_ok=True)
    described = []
    for number, some in enumerate(shards):
        file = f"{dataset}-{split}-{number:05d}-of-{len(shards):05d}.parquet"
        table = table_of([record for group in some for record in group])
        pq.write_table(table, path / file, row_group_size=rows_per_group)
        rows = tuple(tuple(row_info(record) for record in group) for group in some)
        described.append(Shard(file, (path / file).stat().st_size, rows))
    manifest = Manifest(
        dataset=dataset,
        split=split,
        config={},
        counts={
            "videos": len(records),
            "frames": sum(len(record.frames) for record in records),
            "objects": sum(len(record.objects) for record in records),
            "expressions": sum(len(record.expressions) for record in records),
        },
        dropped={},
        quarantined=0,
        source_fingerprint="+".join(record.source_fingerprint for record in records),
        shards=tuple(described),
    )
    Folder(str(path)).write(MANIFEST, manifest.to_json().encode())
    return path


def tiny_model(seed: int = 0, *, multi_object: bool = False) -> SgMg:
    """A model off its initial values, at which masks are nearly empty and all queries score alike."""
    torch.manual_seed(seed)
    config = SgMgConfig.preset("tiny")
    model = SgMg(replace(config, text=replace(config.text, layers=1), multi_object=multi_object)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def tiny_checkpoint(path: Path, seed: int = 0, *, multi_object: bool = False) -> Path:
    """A checkpoint with its tokenizer."""
    save(path, tiny_model(seed, multi_object=multi_object), tokenizer=Tokenizer.train(SENTENCES))
    return path
