"""README: its Python runs as printed, its commands run, in their order, on small data and with the small model."""

import importlib
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.annotate import AnnotateConfig
from jobs.common import cli as runtime
from jobs.evaluate import EvaluateConfig
from jobs.predict import PredictConfig
from jobs.prepare import PrepareConfig
from jobs.publish import PublishConfig
from jobs.serve import ServeConfig
from jobs.submit import SubmitConfig
from pipelines.errors import Exit
from pipelines.training.config import TrainConfig
from pipelines.training.recipes import A2D, FINETUNE, PRETRAIN
from sgmg import Segmenter

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
CONFIGS: dict[str, tuple[Any, Any]] = {
    "prepare": (PrepareConfig, None),
    "pretrain_refcoco": (TrainConfig, PRETRAIN),
    "finetune_ytvos": (TrainConfig, FINETUNE),
    "finetune_a2d": (TrainConfig, A2D),
    "predict": (PredictConfig, None),
    "submit": (SubmitConfig, None),
    "evaluate": (EvaluateConfig, None),
    "annotate": (AnnotateConfig, None),
    "publish": (PublishConfig, None),
    "serve": (ServeConfig, None),
}
KIT = {"coco": "refcoco", "rvos": "refytvos", "refdavis": "refdavis", "a2d": "a2d"}
"""Where the samples of README's raw folders lie in the data kit."""
SMALL = ((r"--backbone-weights \S+", ""), (r"--workers \S+ --gpus-per-worker \S+", "--workers 1"),
         (r"--precision bfloat16", ""))  # fmt: skip
"""What a README for GPUs says and a test without one cannot."""
TRAINING = "--recipe tiny --global-batch 1 --clips-per-pass 1 --max-steps 1"
MORE = {
    "pretrain_refcoco": f"{TRAINING} --name pretrain-video-swin-t",
    "finetune_ytvos": f"{TRAINING} --name finetune-video-swin-t",
    "finetune_a2d": TRAINING,
    "prepare": "--allow-failures",  # the kit holds broken images on purpose
    "predict": "--short-side 130",
    "annotate": "--short-side 130 --actors 1",
}


def test_the_examples_run_in_the_order_they_are_read() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    masks, found = names["masks"], names["found"]
    # The second example is what the Segmenter of the first does inside, but for the resizing.
    assert isinstance(names["scores"], np.ndarray)
    assert masks.shape[:2] == found.shape[:2] == (2, 4)  # pyright: ignore[reportAttributeAccessIssue]


COMMANDS = re.findall(r"^python (jobs/\w+\.py) ((?:.*\\\n)*.*)$", README, flags=re.MULTILINE)


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize(("job", "words"), COMMANDS, ids=[f"{job} {words[:40]}" for job, words in COMMANDS])
def test_every_command_is_understood_by_its_job(job: str, words: str) -> None:
    config, recipes = CONFIGS[Path(job).stem]
    runtime.parse(config, words_of(words), recipes=recipes)


def words_of(command: str) -> list[str]:
    """Those of a command over several lines, without its comment."""
    return shlex.split(command.replace("\\\n", " "), comments=True)


def test_every_make_target_it_names_exists() -> None:
    makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make ([a-z]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_file_it_names_exists() -> None:
    for path in re.findall(r"\]\(([\w./]+)\)", README):
        assert (Path(__file__).resolve().parents[1] / path).exists(), path


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_every_command_does_what_it_says_in_the_order_they_are_read(
    data_kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos" / "zoo").mkdir(parents=True)
    shutil.copy(min(data_kit.glob("videos/*.mp4"), key=_bytes_of_a_video), tmp_path / "videos" / "zoo")
    _write_mine(tmp_path / "mine")
    for job, words in COMMANDS:
        name = Path(job).stem
        if name == "serve":  # runs until it is stopped; tests/jobs/test_serve.py asks it
            continue
        line = shlex.join(words_of(words))
        for pattern, small in SMALL:
            line = re.sub(pattern, small, line)
        for raw, folder in KIT.items():
            line = re.sub(rf"/data/{raw}\b", str(data_kit / folder), line)
        config, recipes = CONFIGS[name]
        parsed = runtime.parse(config, [*shlex.split(line), *shlex.split(MORE.get(name, ""))], recipes=recipes)
        assert importlib.import_module(f"jobs.{name}").main(parsed) is Exit.CLEAN, f"{job} {line}"
    assert (tmp_path / "out" / "ytvos.zip").is_file()
    assert (tmp_path / "out" / "corpus" / "report" / "index.html").is_file()
    assert Segmenter.from_pretrained(tmp_path / "out" / "hub").notes["licence"] == "cc-by-nc-4.0"


def _bytes_of_a_video(file: Path) -> tuple[bool, int]:
    """Small ones first, broken and odd ones last."""
    return file.name.startswith("constructed"), file.stat().st_size


def _write_mine(folder: Path) -> None:
    """README's own data in ten lines."""
    (folder / "JPEGImages" / "dog").mkdir(parents=True)
    (folder / "Annotations" / "dog").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)
    objects = np.zeros((96, 128), np.uint8)
    objects[20:60, 20:60], objects[70:80, 90:100] = 1, 2
    for t, frame in enumerate(pixels):
        Image.fromarray(frame).save(folder / "JPEGImages" / "dog" / f"{t:05d}.jpg")
        Image.fromarray(objects).save(folder / "Annotations" / "dog" / f"{t:05d}.png")
    (folder / "expressions.csv").write_text(
        'video,object_id,text\ndog,1,the dog on the left\ndog,2,"the ball, thrown from the right"\n'
    )
