"""Measures the scoring of a whole benchmark on Ray: reading the truth and the predictions, J and F of every frame.

Writes prepared data and predictions of made-up videos (a few distinct ones, repeated under other names) into a
temporary folder, scores them as jobs/evaluate.py does, and prints `name value` lines; asserts nothing about time.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from scoring import made_up

from pipelines.files import Folder
from pipelines.predictions import predictions_table
from pipelines.records import Record
from pipelines.scoring.distributed import score_run
from pipelines.scoring.prediction_source import open_predictions
from pipelines.scoring.rows import write_parquet
from pipelines.scoring.score import figures
from pipelines.scoring.truth import VideoTruth
from pipelines.scoring.truth_parts import truth_parts
from pipelines.session import start_ray
from prepared_data import prepared_folder

DISTINCT = 10
"""Videos that differ; drawing more takes longer than scoring them."""


def main(arguments: argparse.Namespace) -> None:
    size = (arguments.height, arguments.width)
    with tempfile.TemporaryDirectory() as place:
        data, run = Path(place, "data"), Folder(f"{place}/run").make()
        _write(arguments, size, data, run)
        start_ray()
        started = time.perf_counter()
        scores = score_run(truth_parts(str(data)), open_predictions(run.path()))
        found, seconds = figures(scores.rows), time.perf_counter() - started
    masks = arguments.videos * arguments.frames * arguments.expressions
    print(f"scoring.videos {arguments.videos}")
    print(f"scoring.masks {masks}")
    print(f"scoring.minutes {seconds / 60:.2f}")
    print(f"scoring.masks_per_second {masks / seconds:.0f}")
    print(f"scoring.J&F {found['J&F']:.6f}")


def _write(arguments: argparse.Namespace, size: tuple[int, int], data: Path, run: Folder) -> None:
    distinct = [made_up(size, arguments.frames, arguments.expressions, seed) for seed in range(DISTINCT)]
    videos = [(f"v{number:06d}", *distinct[number % DISTINCT]) for number in range(arguments.videos)]
    prepared_folder(data, [_record(name, truth) for name, truth, _ in videos], DISTINCT)
    for first in range(0, len(videos), DISTINCT):
        rows = [replace(one, video=name) for name, _, some in videos[first : first + DISTINCT] for one in some]
        write_parquet(run, f"predictions/{first:06d}.parquet", predictions_table(rows))


def _record(name: str, truth: VideoTruth) -> Record:
    height, width = truth.size
    return Record(
        dataset=truth.dataset,
        split=truth.split,
        video=name,
        width=width,
        height=height,
        frame_names=truth.frame_names,
        frames=(b"",) * len(truth.frame_names),  # no score reads them
        objects=tuple(truth.objects.values()),
        expressions=truth.expressions,
        source="",
        source_fingerprint="",
        original_width=width,
        original_height=height,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=500)
    parser.add_argument("--frames", type=int, default=36)
    parser.add_argument("--expressions", type=int, default=4)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    main(parser.parse_args())
