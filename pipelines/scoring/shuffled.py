"""Prepared data with expressions exchanged between the objects of a video: a check that the model reads the words."""

from dataclasses import replace

import pyarrow.parquet as pq

from pipelines.files import Folder
from pipelines.manifest import MANIFEST, read_manifest, read_rows
from pipelines.records import Expression, record_of, table_of
from pipelines.scoring.truth import VideoTruth
from pipelines.scoring.truth_parts import read_truths


def write_shuffled(prepared: Folder, out: Folder, truth: str) -> None:
    """Copies prepared data, giving every expression the text of one about another object if there is one.

    Args:
        truth: folder that says which object each expression is about, as `truth_parts` reads it.
    """
    if out.has(MANIFEST):
        return
    truths = {one.video: one for one in read_truths(truth)}
    manifest = read_manifest(prepared)
    for shard in manifest.shards:
        with out.output(shard.file) as stream:
            writer: pq.ParquetWriter | None = None
            for number in range(len(shard.row_groups)):
                records = [record_of(row) for row in read_rows(prepared, shard.file, number)]
                table = table_of([replace(r, expressions=shuffled(r.expressions, truths[r.video])) for r in records])
                writer = writer or pq.ParquetWriter(stream, table.schema)
                writer.write_table(table, row_group_size=len(table))
            if writer is not None:
                writer.close()
    sizes = out.files(suffix=".parquet")
    shards = tuple(replace(shard, bytes=sizes[shard.file]) for shard in manifest.shards)
    out.write(MANIFEST, replace(manifest, shards=shards).to_json().encode())


def shuffled(expressions: tuple[Expression, ...], truth: VideoTruth) -> tuple[Expression, ...]:
    """Gives each expression the text of the next one that is about another object."""
    objects = {one.id: one.object_ids for one in truth.expressions}
    texts = []
    for place, one in enumerate(expressions):
        others = (*expressions[place + 1 :], *expressions[:place])
        text = next((other.text for other in others if objects[other.id] != objects[one.id]), one.text)
        texts.append(text)
    return tuple(replace(one, text=text) for one, text in zip(expressions, texts, strict=True))
