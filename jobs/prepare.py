"""Makes a raw dataset ready for training and evaluation: Parquet shards, a manifest, and what could not be used.

The output holds <dataset>-<split>-<n>-of-<N>.parquet, manifest.json, quarantine.jsonl (a line an item that could not be
used: video, stage, reason) and config.json. The same command again does what is left to do. Exit code 0: everything is
there; 3: finished, but something is in quarantine; 1: failed.
"""

import json
import logging
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from jobs.common.cli import Exit, run
from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.contact_sheet import contact_sheet, prepared_tiles
from pipelines.config_io import CONFIG, write_config
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.manifest import QUARANTINE, Manifest, read_manifest
from pipelines.prepare.run import finish, plan_shards, shards_to_do, write_shards
from pipelines.prepare.shard import ShardWriter
from pipelines.session import durable_folder, start_ray, terminal
from pipelines.sources.catalog import entry_of

_log = logging.getLogger(__name__)

SHEET = "contact-sheet.png"
SETTINGS = ("dataset", "split", "raw", "short_side", "quality", "rows_per_shard")
"""What decides what is in the shards."""


@dataclass(frozen=True)
class PrepareConfig:
    """What to prepare, from where, to where."""

    dataset: str
    """own, refcoco, refcoco+, refcocog, ref-youtube-vos, ref-davis17, a2d-sentences, jhmdb-sentences or mevis."""
    split: str
    """As the dataset calls it; a wrong one prints the choices."""
    out: str
    """Folder for the result, or s3://…, gs://…. One dataset and split a folder."""
    raw: str = ""
    """Folder that holds the dataset as its owners distribute it, or s3://…, gs://…. Not needed to only --show."""
    short_side: int | None = None
    """Pixels of the shorter side of every frame; a smaller video stays as it is. Without: files are kept untouched."""
    quality: int = 95
    """JPEG quality, 1 … 100, of frames that are encoded here: resized ones, and those of video files."""
    rows_per_shard: int | None = None
    """Videos or images in a file. By default 16 videos, 256 images."""
    show: int = 0
    """Samples, spread over the data, to draw into contact-sheet.png with outline, box and sentence; below each, what
    training makes of it by the published recipe."""
    allow_failures: bool = False
    """Exit code 0 also where something is in quarantine."""
    retry_quarantined: bool = False
    """Do shards again that had to leave something out: after you have mended the raw data."""
    num_cpus: Annotated[int | None, tyro.conf.arg(metavar="INT|None")] = None
    """Shards at once, at most; also the logical cores of a local Ray. By default as many as there are cores."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: one is out of range.
        """
        entry_of(self.dataset)
        if not 1 <= self.quality <= 100:
            raise ValueError(f"--quality {self.quality} is no JPEG quality. Choose 1 … 100.")
        for name in ("short_side", "rows_per_shard", "num_cpus"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} {value} is too small. Choose at least 1.")
        if self.show < 0:
            raise ValueError(f"--show {self.show} is less than none. Choose a number of samples.")


def main(config: PrepareConfig) -> Exit:
    """Prepares what is not there yet, and says what came of it."""
    out = durable_folder(config.out, "--out")
    manifest = _prepared(config, out) if config.raw else _already_prepared(config, out)
    _report(manifest, out)
    if config.show:
        _show(manifest, out, config.show)
    return Exit.QUARANTINE if manifest.quarantined and not config.allow_failures else Exit.CLEAN


def _prepared(config: PrepareConfig, out: Folder) -> Manifest:
    raw = durable_folder(config.raw, "--raw")
    entry = entry_of(config.dataset)
    rows_per_shard = config.rows_per_shard or entry.rows_per_shard
    source = entry.open(raw, config.split, config.quality)
    whole = replace(config, raw=raw.uri, out=out.uri, rows_per_shard=rows_per_shard)
    settings = {name: getattr(whole, name) for name in SETTINGS}
    # Before anything is written: raw data may be wrong. Where they lie is no part of a shard: mounts differ.
    plans = plan_shards(source, {name: settings[name] for name in SETTINGS if name != "raw"}, rows_per_shard)
    _claim(out.make(), whole, settings)
    todo = shards_to_do(plans, out, config.retry_quarantined)
    if todo:
        start_ray(config.num_cpus)
    started = time.monotonic()
    writer = ShardWriter(source, out, config.short_side, config.quality)
    written = sum(_followed(write_shards(todo, writer, config.num_cpus), len(todo)))
    seconds = time.monotonic() - started
    if todo:
        speed = written / 1e6 / seconds
        print(f"{len(todo)} of {len(plans)} shards written in {seconds:.1f} s, {speed:.1f} MB/s")
    else:
        print(f"all {len(plans)} shards were there already")
    return finish(plans, source, out, settings)


def _already_prepared(config: PrepareConfig, out: Folder) -> Manifest:
    if not config.show:
        raise JobError("--raw is missing: give the folder that holds the dataset as its owners distribute it.")
    manifest = read_manifest(out)
    if (found := (manifest.dataset, manifest.split)) != (config.dataset, config.split):
        raise JobError(f"{out.path()} holds {found[0]}, split {found[1]}. Correct --out, --dataset or --split.")
    return manifest


def _claim(out: Folder, config: PrepareConfig, settings: Mapping[str, Any]) -> None:
    """Writes the config beside the results, or makes sure that those there were made with these settings.

    Raises:
        JobError: results of other settings are there; the message names the difference.
    """
    if not out.has(CONFIG):
        write_config(out, config)
        return
    try:
        there = dict(json.loads(out.read(CONFIG)))
    except ValueError as error:
        raise JobError(f"{out.path(CONFIG)} is no JSON object ({error}). Choose another --out.") from error
    differences = [
        f"{name} was {there.get(name)!r} and is now {value!r}"
        for name, value in settings.items()
        if there.get(name) != value
    ]
    if differences:
        raise JobError(
            f"{out.path()} was made with other settings: {'; '.join(differences)}. Choose another --out, or give the "
            f"same settings."
        )


def _followed(done: Iterable[int], total: int) -> Iterable[int]:
    """The same, with a bar on a terminal, else a line every ten seconds."""
    if terminal():
        yield from tqdm(done, total=total, unit="shard", file=sys.stderr)
        return
    said = time.monotonic()
    for number, one in enumerate(done, start=1):
        yield one
        if time.monotonic() - said > 10:
            said = time.monotonic()
            _log.info("%d of %d shards", number, total)


def _report(manifest: Manifest, out: Folder) -> None:
    counts = manifest.counts
    print(
        f"{manifest.dataset} {manifest.split}: {counts['videos']} videos, {counts['frames']} frames, "
        f"{counts['objects']} objects, {counts['expressions']} expressions, {counts['bytes'] / 1e6:.1f} MB in "
        f"{len(manifest.shards)} shards: {out.path()}"
    )
    by_count = sorted(manifest.dropped.items(), key=lambda item: -item[1])
    for reason, number in by_count[:10]:
        print(f"left out: {number} x {reason}")
    for reason, number in manifest.untrainable.most_common():
        print(f"not for training: {number} x {reason}")
    if manifest.quarantined:
        print(f"in quarantine: {manifest.quarantined} (all of them in {out.path(QUARANTINE)})")
        for line in out.read(QUARANTINE).decode().splitlines()[:10]:
            bad = json.loads(line)
            print(f"  {bad['video']!r} ({bad['stage']}): {_speakable(bad['reason'])}")


def _show(manifest: Manifest, out: Folder, count: int) -> None:
    if not manifest.counts["expressions"]:
        print("nothing to show: no expression was prepared")
        return
    with out.output(SHEET) as stream:
        contact_sheet(prepared_tiles(out, manifest, count, published_recipe(manifest))).save(stream, "PNG")
    print(f"{min(count, manifest.counts['expressions'])} samples drawn: {out.path(SHEET)}")


def published_recipe(manifest: Manifest) -> ClipRecipe:
    """The recipe by which this kind of data is learned from."""
    if any(row.asked is not None for row in manifest.rows):
        return ClipRecipe.one_frame_asked()
    if manifest.single_images:
        return ClipRecipe.image()
    alone = all(row.frames <= 1 for row in manifest.rows)  # one annotated frame a video
    return ClipRecipe.one_frame_asked() if alone else ClipRecipe.video()


def _speakable(text: str) -> str:
    """Without what no terminal can write: half a surrogate pair."""
    return text.encode("utf-8", "backslashreplace").decode()


if __name__ == "__main__":
    run(PrepareConfig, main)
