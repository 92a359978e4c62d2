"""The loop of docs/correcting.md: annotate, correct what is wrong, learn from it, and annotate better than before."""

import csv
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import annotate, finetune_ytvos, predict, prepare
from jobs.annotate import AnnotateConfig
from jobs.evaluate import EvaluateConfig
from jobs.impl.evaluate import evaluate
from jobs.predict import PredictConfig
from jobs.prepare import PrepareConfig
from pipelines.errors import Exit
from pipelines.files import Folder
from pipelines.manifest import read_manifest
from pipelines.prediction_reader import read_predictions
from pipelines.training.recipes import FINETUNE
from training_runs import run_job

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_local"), pytest.mark.xdist_group("demo")]

CLIPS = 20
"""That are annotated and corrected."""
STEPS = int(os.environ.get("SGMG_LOOP_STEPS", "30"))
"""Of fine-tuning on them."""
SIDE = 160
LITTLE = ("--images", "60", "--videos", str(CLIPS), "--valid-videos", "4", "--pretrain-steps", "40",
          "--finetune-steps", "2", "--workers", "1")  # fmt: skip
EXPRESSIONS = "video,expression,id\n"


@dataclass(frozen=True)
class Demo:
    """The storage of a demo: made-up videos, and a model that has learned from images alone."""

    storage: Path

    @property
    def raw(self) -> Path:
        return self.storage / "demo" / "raw" / "ytvos_root" / "train"

    @property
    def truth(self) -> str:
        return str(self.storage / "demo" / "raw" / "truth" / "valid")

    @property
    def held_out(self) -> str:
        """Prepared videos that nothing is learned from."""
        return str(self.storage / "demo" / "prepared" / "valid")

    @property
    def first(self) -> str:
        """The checkpoint that annotates first."""
        return str(self.storage / "pretrain" / "demo")

    def asked(self) -> Iterator[tuple[str, str, str, int]]:
        """Video, id and text of a sentence about each object of the first clips, and the object's id."""
        listed = json.loads((self.raw.parent / "meta_expressions" / "train" / "meta_expressions.json").read_text())
        for video, about in sorted(listed["videos"].items())[:CLIPS]:
            objects = {int(one["obj_id"]): (id, one["exp"]) for id, one in about["expressions"].items()}
            yield from ((video, id, text, number) for number, (id, text) in objects.items())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The one that SGMG_DEMO names, or a small one."""
    if ready := os.environ.get("SGMG_DEMO"):
        return Demo(Path(ready))
    storage = tmp_path_factory.mktemp("demo")
    run_job("demo", ["--storage", str(storage), *LITTLE], storage / "log")  # it may say that it has learned little
    return Demo(storage)


def test_corrected_clips_make_the_answers_to_others_better(
    demo: Demo, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    first, corrected, data = tmp_path / "first", tmp_path / "corrected", tmp_path / "data"
    asked = list(demo.asked())
    table = tmp_path / "sentences.csv"
    table.write_text(EXPRESSIONS + "".join(f"{video},{text},{id}\n" for video, id, text, _ in asked))
    videos = tuple(sorted({str(demo.raw / "JPEGImages" / video) for video, *_ in asked}))
    annotation = AnnotateConfig(
        videos, demo.first, str(first), str(table), formats=("frames", "davis"), review=str(first / "review.csv"),
        short_side=SIDE, actors="1:1", track=False,
    )  # fmt: skip
    assert annotate.main(annotation) == Exit.CLEAN

    correct(first, corrected, demo, asked)
    verdicts, rejected = judged(first / "review.csv")
    preparation = PrepareConfig(
        "davis-folder", "train", str(data), str(corrected), str(first / "frames"), verdicts=str(verdicts)
    )
    assert prepare.main(preparation) == Exit.CLEAN
    counts = read_manifest(Folder(str(data))).counts
    assert (counts["videos"], counts["expressions"]) == (len(videos), len(asked) - 1), "but what was rejected"

    training = replace(
        FINETUNE["tiny"], recipe="joint", data=(str(data),), init=demo.first, storage=str(tmp_path / "storage"),
        cpus_per_worker=0.5, cpus_per_decode=0.5, threads=1, epochs=100, max_steps=STEPS,
    )  # fmt: skip
    assert finetune_ytvos.main(training) == Exit.CLEAN
    checkpoint = str(tmp_path / "storage" / "finetune" / training.run_name)
    before, after = score(demo, demo.first, tmp_path / "before"), score(demo, checkpoint, tmp_path / "after")
    record_property("before and after", (before, after))
    assert after > before

    again = replace(
        annotation, checkpoint=checkpoint, out=str(tmp_path / "again"), formats=("parquet",), review=None,
        verdicts=str(verdicts), redo=("rejected", "to-correct"),
    )  # fmt: skip
    assert annotate.main(again) == Exit.CLEAN
    answered = {(entry.video, entry.expression) for entry in read_predictions(Folder(again.out)).entries}
    assert answered == rejected


def correct(first: Path, corrected: Path, demo: Demo, asked: list[tuple[str, str, str, int]]) -> None:
    """Does what a person would do: unpacks davis.zip, and paints into its PNGs what there is to see."""
    objects = {(video, id): number for video, id, _, number in asked}
    with zipfile.ZipFile(first / "davis.zip") as archive:
        archive.extractall(corrected)
    rows = list(csv.DictReader(io.StringIO((corrected / "expressions.csv").read_text())))
    for folder in (corrected / "Annotations").iterdir():
        values = {row["expression"]: int(row["object_id"]) for row in rows if row["video"] == folder.name}
        (video,) = {video for video, _ in objects if folder.name.startswith(f"{video}-")}
        for path in folder.iterdir():
            with Image.open(demo.raw / "Annotations" / video / path.name) as picture:
                truth = np.asarray(picture)
            with Image.open(path) as picture:
                assert picture.size == truth.shape[::-1]
                painted = np.zeros_like(truth)
                for id, value in values.items():
                    painted[truth == objects[video, id]] = value
                changed = Image.fromarray(painted)
                changed.putpalette(picture.getpalette() or [])
            changed.save(path)


def judged(review: Path) -> tuple[Path, set[tuple[str, str]]]:
    """Fills in verdicts: the most doubtful answer is rejected, the next two were corrected, the others are accepted."""
    rows = list(csv.DictReader(io.StringIO(review.read_text())))
    assert [row["rank"] for row in rows] == [str(number) for number in range(1, len(rows) + 1)]
    for number, row in enumerate(rows):
        row["verdict"] = "rejected" if number == 0 else "to-correct" if number < 3 else "accepted"
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path = review.with_name("judged.csv")
    path.write_text(text.getvalue())
    return path, {(row["video"], row["expression"]) for row in rows[:3]}


def score(demo: Demo, checkpoint: str, out: Path) -> float:
    """J&F of a checkpoint on videos that were neither annotated nor learned from."""
    config = PredictConfig(demo.held_out, checkpoint, str(out / "predictions"), str(out), actors="1:1", short_side=SIDE)
    assert predict.main(config) == Exit.CLEAN
    scored = evaluate(EvaluateConfig((demo.truth,), str(out / "scores"), str(out / "predictions")))
    return scored["figures"]["J&F"]
