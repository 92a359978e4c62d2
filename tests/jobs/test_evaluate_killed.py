"""A scoring that is killed leaves nothing half-written, and run again comes to the tables of an undisturbed one."""

import io
import shutil
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.evaluate import EvaluateConfig
from jobs.impl.evaluate import evaluate
from patience import PATIENCE
from pipelines.files import UNFINISHED
from pipelines.scoring.davis import truth_maps
from pipelines.scoring.summary import SCORES
from pipelines.scoring.truth_parts import read_truths
from ray_workers import kill_worker_at, workers_at
from training_runs import Job, prepared

SCORING = "_score_parts"
"""Title of the workers of Ray that score."""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_local")]


@pytest.fixture(scope="module")
def config(data_kit: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluateConfig:
    """Results of two annotators, which take some seconds to score, and frames to draw the worst and the best on."""
    folder, truth = tmp_path_factory.mktemp("davis"), data_kit / "refdavis"
    with zipfile.ZipFile(folder / "davis.zip", "w") as archive:
        for one in read_truths(str(truth)):
            for annotator in (0, 1):
                for number, ids in enumerate(truth_maps(one)):
                    kept = np.roll(ids, 7 * annotator, axis=1) * np.uint8(number % 3 > 0)
                    archive.writestr(f"anno_{annotator}/{one.video}/{number:05d}.png", png(kept))
    prepared("ref-davis17", truth, "valid", folder / "data", rows_per_shard=16)
    return EvaluateConfig(
        (str(truth),), str(folder / "out"), submission=str(folder / "davis.zip"), pictures=2,
        frames=(str(folder / "data"),),
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(config: EvaluateConfig, ray_local: None) -> dict[str, bytes]:  # noqa: ARG001
    evaluate(config)
    return files_of(Path(config.out))


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def files_of(out: Path) -> dict[str, bytes]:
    """All that was written but the config, which names its folder."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != "config.json")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def flags_of(config: EvaluateConfig, out: Path) -> list[str]:
    return [
        "--truth", *config.truth, "--submission", str(config.submission), "--pictures", str(config.pictures),
        "--frames", *config.frames, "--out", str(out),
    ]  # fmt: skip


def test_a_worker_that_is_killed_changes_nothing(
    config: EvaluateConfig, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    killed: list[str] = []

    def kill_once() -> None:
        end = time.monotonic() + PATIENCE
        while not killed and time.monotonic() < end:
            if kill_worker_at(SCORING):
                killed.append(SCORING)
            time.sleep(0.001)

    thread = threading.Thread(target=kill_once)
    thread.start()
    evaluate(replace(config, out=str(tmp_path)))
    thread.join()
    assert killed
    assert files_of(tmp_path) == undisturbed


def test_a_scoring_that_is_killed_leaves_nothing_and_is_run_again(
    config: EvaluateConfig, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with Job("evaluate", flags_of(config, out), tmp_path / "log") as job:
        job.wait_until(lambda: bool(workers_at(SCORING, job.process.pid)))
        job.kill_driver()
    assert files_of(out) == {}
    evaluate(replace(config, out=str(out)))
    assert files_of(out) == undisturbed


def test_killed_while_it_writes_there_are_no_scores_until_they_are_whole(
    config: EvaluateConfig, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = Path(
        shutil.copytree(config.out, tmp_path / "out")
    )  # scores of an earlier run: they must not be taken for new
    with Job("evaluate", flags_of(config, out), tmp_path / "log") as job:
        job.wait_until(lambda: not (out / SCORES).exists(), pause=0.001)
        job.kill_driver()
    assert SCORES not in files_of(out)
    (out / f"{UNFINISHED}0-expressions.csv").write_text("what a kill in the middle of a file leaves")
    assert undisturbed.items() >= {name: data for name, data in files_of(out).items() if UNFINISHED not in name}.items()
    evaluate(replace(config, out=str(out)))
    assert files_of(out) == undisturbed
