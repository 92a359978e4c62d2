"""Prepares a raw dataset: the body of jobs/prepare.py."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from ray.exceptions import RayError

from jobs.common.progress import track
from jobs.prepare import PrepareConfig
from pipelines.annotate.verdicts import read_verdicts
from pipelines.clips.contact_sheet import contact_sheet, prepared_tiles
from pipelines.clips.recipe_choice import published_kind, recipe_for
from pipelines.config_io import CONFIG, require_same_settings, write_config
from pipelines.errors import Exit, JobError, root_cause
from pipelines.files import Folder
from pipelines.manifest import DROPPED, QUARANTINE, SYNTHETIC, Manifest, read_manifest
from pipelines.prepare.run import finish, plan_shards, shards_to_do, write_shards
from pipelines.prepare.shard import REJECTED, ShardPlan, ShardWriter
from pipelines.safety.secrets import redacted_values
from pipelines.session import durable_folder, start_ray
from pipelines.sources.base import fingerprint
from pipelines.sources.catalog import SourceOptions, entry_of
from sgmg.tokenizer import Tokenizer

_log = logging.getLogger(__name__)

SHEET = "contact-sheet.png"
PATHS = ("raw", "frames", "videos")
"""Fields of the config that say where the raw data are."""
SETTINGS = ("dataset", "split", *PATHS, "short_side", "quality", "rows_per_shard", "exif")
"""Fields of the config that decide the content of the shards, as does what --tokenizer and --verdicts name."""


def prepare(config: PrepareConfig) -> Exit:
    """Prepares every shard that is not finished, and prints a summary."""
    out = durable_folder(config.out, "--out")
    manifest = _prepared(config, out) if config.raw else _already_prepared(config, out)
    _report(manifest, out)
    if not manifest.counts["expressions"]:
        raise JobError(
            f"no expression is left: {manifest.quarantined} videos are in quarantine. {out.path(QUARANTINE)} and "
            f"{out.path(DROPPED)} name what is wrong with each."
        )
    if not manifest.usable:
        print(
            "nothing to learn from: no sentence speaks of an object that its masks show. If this is meant, predict and "
            "score it (empty masks are right); else look at the masks"
        )
    if config.show:
        _show(manifest, out, config.show)
    return Exit.QUARANTINE if manifest.quarantined and not config.allow_failures else Exit.CLEAN


def _prepared(config: PrepareConfig, out: Folder) -> Manifest:
    raw = durable_folder(config.raw, "--raw")
    entry = entry_of(config.dataset)
    rows_per_shard = config.rows_per_shard or entry.rows_per_shard
    given = ((name, getattr(config, name)) for name in ("frames", "videos"))
    places = {name: durable_folder(path, f"--{name}").uri for name, path in given if path}
    source = entry.open(raw, config.split, SourceOptions(config.quality, config.exif, **places))
    whole = replace(config, raw=raw.uri, out=out.uri, rows_per_shard=rows_per_shard, **places)
    settings = redacted_values({name: getattr(whole, name) for name in SETTINGS})
    # Planned before anything is written, as the raw data may be wrong. Their paths are not part of the plan: the same
    # data may be mounted elsewhere.
    deciding = {name: settings[name] for name in SETTINGS if name not in (*PATHS, "exif")}
    tokenizer = Tokenizer.from_pretrained(config.tokenizer).to_json() if config.tokenizer else ""
    rejected = _rejected(config.verdicts)
    # What earlier versions did not have is part of it only where it is given, so that their folders go on.
    later = {"exif": config.exif, "tokenizer": tokenizer, "verdicts": json.dumps(sorted(rejected)) if rejected else ""}
    deciding |= {name: fingerprint([text]) for name, text in later.items() if text}
    plans = plan_shards(source, deciding, rows_per_shard)
    require_same_settings(out.make(), settings)
    if not out.has(CONFIG):
        write_config(out, whole)
    todo = shards_to_do(plans, out, config.retry_quarantined)
    if todo:
        start_ray(config.num_cpus)
    started = time.monotonic()
    writer = ShardWriter(source, out, config.short_side, config.quality, tokenizer, rejected)
    written = _written(todo, writer, config)
    seconds = time.monotonic() - started
    if todo:
        speed = written / 1e6 / seconds
        print(f"{len(todo)} of {len(plans)} shards written in {seconds:.1f} s, {speed:.1f} MB/s")
    else:
        print(f"all {len(plans)} shards were already written")
    try:
        manifest = finish(plans, source, out, settings, synthetic=raw.has(SYNTHETIC))
    except FileNotFoundError:  # of a shard, or of the raw data
        raise
    except OSError as error:
        raise JobError(
            f"{out.path()} cannot be written ({error}). All shards are done and kept. Free disk space, and run the "
            f"same command again."
        ) from error
    matched = manifest.dropped.get(REJECTED, 0)
    if rejected and not matched:
        raise JobError(
            f"none of the {len(rejected)} rejected answers of {config.verdicts} is a sentence of {raw.path()}. Give "
            f"the verdicts on these answers, with the same ids of videos and sentences."
        )
    if matched < len(rejected):
        print(f"{len(rejected) - matched} of {len(rejected)} rejected answers are no usable sentence here")
    return manifest


def _written(todo: Sequence[ShardPlan], writer: ShardWriter, config: PrepareConfig) -> int:
    """Writes the shards, and returns the bytes of their frames.

    Raises:
        JobError: a worker failed: the disk is full, or the raw data cannot be read; the finished shards are kept.
    """
    sizes: list[int] = []
    try:
        for size in track(write_shards(todo, writer, config.num_cpus), len(todo), "shard"):
            sizes.append(size)
    except (JobError, RayError) as error:
        _log.debug("traceback of the error below", exc_info=True)
        raise JobError(
            f"{len(sizes)} of {len(todo)} shards are done and kept. The run stopped because: {root_cause(error)}\n"
            f"Free disk space or correct what it says, and run the same command again to continue."
        ) from error
    return sum(sizes)


def _rejected(verdicts: str | None) -> frozenset[tuple[str, str]]:
    """Returns video and expression of the rejected answers."""
    return (
        frozenset(key for key, one in read_verdicts(verdicts).items() if one == "rejected") if verdicts else frozenset()
    )


def _already_prepared(config: PrepareConfig, out: Folder) -> Manifest:
    if not config.show:
        raise JobError("--raw is missing: give the folder that holds the dataset as its owners distribute it.")
    manifest = read_manifest(out)
    if (manifest.dataset, manifest.split) != (config.dataset, config.split):
        raise JobError(
            f"{out.path()} holds {manifest.dataset}, split {manifest.split}. Correct --out, --dataset or --split."
        )
    return manifest


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
    if by_count:
        print(f"  each of them is named in {out.path(DROPPED)}")
    for reason, number in manifest.untrainable.most_common():
        print(f"not for training: {number} x {reason}")
    if manifest.quarantined:
        print(f"in quarantine: {manifest.quarantined} (all of them in {out.path(QUARANTINE)})")
        for line in out.read(QUARANTINE).decode().splitlines()[:10]:
            bad = json.loads(line)
            print(f"  {bad['video']!r} ({bad['stage']}): {_printable(bad['reason'])}")


def _show(manifest: Manifest, out: Folder, count: int) -> None:
    if not manifest.counts["expressions"]:
        print("nothing to show: no expression was prepared")
        return
    with out.output(SHEET) as stream:
        recipe = recipe_for(manifest, published_kind(manifest))
        contact_sheet(prepared_tiles(out, manifest, count, recipe)).save(stream, "PNG")
    print(f"{min(count, manifest.counts['expressions'])} samples drawn: {out.path(SHEET)}")


def _printable(text: str) -> str:
    """Escapes single surrogates, which no terminal can print."""
    return text.encode("utf-8", "backslashreplace").decode()
