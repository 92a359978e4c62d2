"""Compares runs that are scored by the same truth: the body of `jobs/evaluate.py --compare`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import takewhile
from typing import Any

import pyarrow as pa
from ray.exceptions import RayError

from jobs.evaluate import EvaluateConfig
from jobs.impl.evaluate import check_out, frames_of, make_out, parts_of, remove_earlier
from jobs.impl.prediction_source import prediction_source
from pipelines.config_io import write_config
from pipelines.errors import Exit, JobError
from pipelines.files import Folder, without_options
from pipelines.manifest import data_title
from pipelines.safety.secrets import redacted, redacted_values
from pipelines.scoring.cases import draw_differences, named_differences
from pipelines.scoring.comparison import COMPARISON, FEWEST, Comparison, Line, compare, table_of
from pipelines.scoring.comparison_page import PAGE, write_page
from pipelines.scoring.distributed import RunScores, check_same_data, score_run
from pipelines.scoring.prediction_source import PredictionSource
from pipelines.scoring.rows import csv_bytes
from pipelines.scoring.truth_parts import TruthPart
from pipelines.session import durable_folder, start_ray

SENTENCES, VIDEOS = "comparison.csv", "videos.csv"
"""Tables of a comparison: a line of each sentence, and of each video."""


def compare_and_print(config: EvaluateConfig) -> Exit:
    """Scores every run of --compare, writes tables, pictures and a page, and prints the differences.

    Raises:
        JobError: a flag names something that does not exist or cannot be used.
        ValueError: predictions and ground truth do not match, something is missing, or a file is damaged.
    """
    out = durable_folder(config.out, "--out")
    check_out(out, COMPARISON)
    parts = parts_of(config.truth, "--truth")
    names = names_of(config.compare)
    sources = {
        name: prediction_source(path, parts, "--compare") for name, path in zip(names, config.compare, strict=True)
    }
    for source in sources.values():
        check_same_data(parts, source)
    frames = frames_of(config) or parts
    make_out(config, out)
    start_ray()
    try:
        comparison = compare({name: _scored(config, name, parts, source) for name, source in sources.items()})
        name = data_title(parts[0].dataset, synthetic=any(part.synthetic for part in parts))
        title = f"{name} {', '.join(sorted({part.split for part in parts}))}"
        _write(config, out, comparison, title, (parts, frames, sources))
    except RayError as error:
        cause = getattr(error, "cause", None) or error  # without the worker's traceback
        raise JobError(f"Scoring stopped: {cause}\nCorrect this, and run the same command again.") from error
    print(_text(comparison, title))
    print(f"page: {out.path(PAGE)}")
    return Exit.CLEAN


def _scored(config: EvaluateConfig, name: str, parts: Sequence[TruthPart], source: PredictionSource) -> RunScores:
    try:
        return score_run(parts, source, missing_as_empty=config.missing_as_empty)
    except ValueError as error:
        raise JobError(f"{name}: {error}") from error


def names_of(paths: Sequence[str]) -> list[str]:
    """Returns a short name of each run: the parts of its path that others do not share.

    >>> names_of(["runs/a/predictions", "runs/b/predictions"]), names_of(["a.zip", "s3://x/b.zip?region=r"])
    (['a', 'b'], ['a.zip', 's3:/x/b.zip'])

    Raises:
        JobError: two paths are the same.
    """
    parts = [[part for part in without_options(redacted(path)).split("/") if part] for path in paths]
    if len({tuple(one) for one in parts}) < len(parts):
        raise JobError("--compare names one run twice. Give each once.")
    shared = len(list(takewhile(lambda some: len(set(some)) == 1, zip(*parts, strict=False))))
    ends = [one[shared:] for one in parts]
    tail = len(list(takewhile(lambda some: len(set(some)) == 1, zip(*(one[::-1] for one in ends), strict=False))))
    names = ["/".join(one[: len(one) - tail] or one or whole[-1:]) for one, whole in zip(ends, parts, strict=True)]
    return names if len(set(names)) == len(names) else ["/".join(one) for one in parts]


def _write(
    config: EvaluateConfig,
    out: Folder,
    comparison: Comparison,
    title: str,
    drawing: tuple[Sequence[TruthPart], Sequence[TruthPart], dict[str, PredictionSource]],
) -> None:
    """Writes all files, comparison.json last."""
    try:
        remove_earlier(out, COMPARISON, (SENTENCES, VIDEOS, PAGE))
        write_config(out, config)
        out.write(SENTENCES, csv_bytes(pa.Table.from_pylist(table_of(comparison))))
        out.write(VIDEOS, csv_bytes(pa.Table.from_pylist(_flat(comparison, comparison.videos, "video"))))
        pictures = []
        if config.pictures:
            rows = comparison.disagreements(config.pictures)
            differences = named_differences(comparison.names, rows)
            files = draw_differences(differences, *drawing, out.folder("pictures").make())
            pictures = [(file, some[0]) for file, some in zip(files, rows, strict=True)]
        write_page(out, comparison, title, [(f"pictures/{file}", row) for file, row in pictures])
        summary = {
            "runs": redacted_values(dict(zip(comparison.names, config.compare, strict=True))),
            "notes": comparison.notes,
            "figure": comparison.mean,
            "figures": dict(zip(comparison.names, comparison.figures, strict=True)),
            "total": asdict(comparison.total),
            "by_attribute": {name: list(map(asdict, lines)) for name, lines in comparison.by_attribute.items()},
            "pictures": [file for file, _ in pictures],
        }
        out.write(COMPARISON, (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())
    except RayError:  # from a drawing worker
        raise
    except OSError as error:
        raise JobError(f"{out.path()} cannot be written ({error}). Free disk space or choose another --out.") from error


def _flat(comparison: Comparison, lines: Sequence[Line], first: str) -> list[dict[str, Any]]:
    return [
        {first: line.name, "expressions": line.rows, "videos": line.videos}
        | {f"{comparison.mean}: {name}": score for name, score in zip(comparison.names, line.scores, strict=True)}
        | {
            f"{name} over {comparison.names[0]}": value
            for name, value in zip(comparison.names[1:], line.differences, strict=True)
        }
        for line in lines
    ]


def _text(comparison: Comparison, title: str) -> str:
    """Formats the means and differences as text, in per cent."""
    lines = [("all", comparison.total)]
    lines += [(f"{name}: {line.name}", line) for name, some in comparison.by_attribute.items() for line in some]
    width = max(len(name) for name, _ in lines)
    wide = [max(len(name), 7) for name in comparison.names]
    head = "  ".join(f"{name:>{size}}" for name, size in zip(comparison.names, wide, strict=True))
    rows = [
        f"{title}: {comparison.mean}",
        *comparison.notes,
        f"{'':{width}}  {'':>6}  {head}",
    ]
    for name, line in lines:
        scores = "  ".join(f"{100 * score:>{size}.1f}" for score, size in zip(line.scores, wide, strict=True))
        differences = "".join(
            f"  {100 * mean:+.1f}" + (f" [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]" if interval else "")
            for mean, interval in zip(line.differences, line.intervals or (None,) * len(line.differences), strict=True)
        )
        rows.append(f"{name:{width}}  {line.rows:>6}  {scores}{differences}")
    of = f"differences to {comparison.names[0]} with their 95 % intervals (videos drawn again), from {FEWEST} videos on"
    return "\n".join([*rows, of])
