"""The loop of docs/correcting.md: annotate, correct what is wrong, learn from it, and annotate better than before.

The model is that of the demo, which SGMG_DEMO names, and has seen bright videos only; these here are dark.
"""

import csv
import io
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_local")]

log = logging.getLogger(__name__)

CLIPS = 20
"""That are annotated and corrected."""
STEPS = int(os.environ.get("SGMG_LOOP_STEPS", "20"))
"""Of fine-tuning on them."""
SIDE = 160
EXPRESSIONS = "video,expression,id\n"


@dataclass(frozen=True)
class Night:
    """The videos of a demo in the dark: some to annotate, and others that are held out; and what is true of them.

    Attributes:
        demo: storage of the demo.
        out: where the dark pictures are.
    """

    demo: Path
    out: Path

    @property
    def raw(self) -> Path:
        return self.demo / "demo" / "raw" / "ytvos_root"

    @property
    def truth(self) -> str:
        """Of the videos that are held out."""
        return str(self.demo / "demo" / "raw" / "truth" / "valid")

    @property
    def held_out(self) -> str:
        """Prepared videos that nothing is learned from."""
        return str(self.out / "held out")

    @property
    def first(self) -> str:
        """The checkpoint that annotates first."""
        return str(self.demo / "finetune" / "demo")

    @property
    def videos(self) -> list[str]:
        return sorted(self._listed("train"))[:CLIPS]

    def folder(self, video: str) -> Path:
        """Of the frames of a video to annotate."""
        return self.out / "train" / "JPEGImages" / video

    def asked(self) -> Iterator[tuple[str, str, str, int]]:
        """Video, id and text of a sentence about each object, and the object's id."""
        for video in self.videos:
            listed = self._listed("train")[video]["expressions"]
            objects = {int(one["obj_id"]): (id, one["exp"]) for id, one in listed.items()}
            yield from ((video, id, text, number) for number, (id, text) in objects.items())

    def fall(self) -> None:
        """Writes the dark pictures, and prepares those that are held out."""
        shutil.copytree(self.raw / "meta_expressions", self.out / "meta_expressions")
        train, valid = self.raw / "train" / "JPEGImages", self.raw / "valid" / "JPEGImages"
        for folder in (*(train / video for video in self.videos), *valid.iterdir()):
            for path in folder.iterdir():
                dark = self.out / path.relative_to(self.raw)
                dark.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(path) as picture:
                    picture.point([value // 4 for value in range(256)] * 3).save(dark, quality=95)
        assert prepare.main(PrepareConfig("ref-youtube-vos", "valid", self.held_out, str(self.out))) == Exit.CLEAN

    def _listed(self, split: str) -> dict[str, Any]:
        path = self.raw / "meta_expressions" / split / "meta_expressions.json"
        return json.loads(path.read_text())["videos"]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    if "SGMG_DEMO" not in os.environ:
        pytest.skip("SGMG_DEMO names no demo: run `make demo`, and set it to runs")
    night = Night(Path(os.environ["SGMG_DEMO"]), tmp_path_factory.mktemp("night"))
    night.fall()
    return night


def test_corrected_clips_make_the_answers_to_others_better(night: Night, tmp_path: Path) -> None:
    first, corrected, data = tmp_path / "first", tmp_path / "corrected", tmp_path / "data"
    asked = list(night.asked())
    table = tmp_path / "sentences.csv"
    table.write_text(EXPRESSIONS + "".join(f"{video},{text},{id}\n" for video, id, text, _ in asked))
    videos = tuple(str(night.folder(video)) for video in night.videos)
    annotation = AnnotateConfig(
        videos, night.first, str(first), str(table), formats=("frames", "davis"), review=str(first / "review.csv"),
        short_side=SIDE, actors="1:1", track=False,
    )  # fmt: skip
    assert annotate.main(annotation) == Exit.CLEAN

    correct(first, corrected, night, asked)
    verdicts, rejected = judged(first / "review.csv")
    preparation = PrepareConfig(
        "davis-folder", "train", str(data), str(corrected), str(first / "frames"), verdicts=str(verdicts)
    )
    assert prepare.main(preparation) == Exit.CLEAN
    counts = read_manifest(Folder(str(data))).counts
    assert (counts["videos"], counts["expressions"]) == (len(videos), len(asked) - 1), "but what was rejected"

    training = replace(
        FINETUNE["tiny"], recipe="joint", data=(str(data),), init=night.first, storage=str(tmp_path / "storage"),
        cpus_per_worker=0.5, cpus_per_decode=0.5, threads=1, epochs=100, max_steps=STEPS,
    )  # fmt: skip
    assert finetune_ytvos.main(training) == Exit.CLEAN
    checkpoint = str(tmp_path / "storage" / "finetune" / training.run_name)
    before, after = score(night, night.first, tmp_path / "before"), score(night, checkpoint, tmp_path / "after")
    log.info("J&F %.4f, after %d steps on %d corrected clips %.4f", before, STEPS, CLIPS, after)
    assert after > before + 0.05

    again = replace(
        annotation, checkpoint=checkpoint, out=str(tmp_path / "again"), formats=("parquet",), review=None,
        verdicts=str(verdicts), redo=("rejected", "to-correct"),
    )  # fmt: skip
    assert annotate.main(again) == Exit.CLEAN
    answered = {(entry.video, entry.expression) for entry in read_predictions(Folder(again.out)).entries}
    assert answered == rejected


def correct(first: Path, corrected: Path, night: Night, asked: list[tuple[str, str, str, int]]) -> None:
    """Does what a person would do: unpacks davis.zip, and paints into its PNGs what there is to see."""
    objects = {(video, id): number for video, id, _, number in asked}
    with zipfile.ZipFile(first / "davis.zip") as archive:
        archive.extractall(corrected)
    rows = list(csv.DictReader(io.StringIO((corrected / "expressions.csv").read_text())))
    for folder in (corrected / "Annotations").iterdir():
        values = {row["expression"]: int(row["object_id"]) for row in rows if row["video"] == folder.name}
        (video,) = {video for video, _ in objects if folder.name.startswith(f"{video}-")}
        for path in folder.iterdir():
            with Image.open(night.raw / "train" / "Annotations" / video / path.name) as picture:
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


def score(night: Night, checkpoint: str, out: Path) -> float:
    """J&F of a checkpoint on videos that were neither annotated nor learned from."""
    config = PredictConfig(
        night.held_out, checkpoint, str(out / "predictions"), str(out), actors="1:1", short_side=SIDE
    )
    assert predict.main(config) == Exit.CLEAN
    scored = evaluate(EvaluateConfig((night.truth,), str(out / "scores"), str(out / "predictions")))
    return scored["figures"]["J&F"]
