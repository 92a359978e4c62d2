"""What cannot be trained is refused in one sentence that says how to mend it, before a worker is started."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image

from jobs import finetune_a2d, finetune_ytvos, pretrain_refcoco
from jobs.common.cli import run
from pipelines.errors import Exit
from pipelines.training.config import TrainConfig
from pipelines.training.recipes import A2D, FINETUNE, PRETRAIN
from prepared_data import SENTENCES, tiny_checkpoint
from sgmg.checkpoints import save
from sgmg.config import SgMgConfig
from sgmg.model import SgMg
from sgmg.tokenizer import Tokenizer
from training_runs import (
    LAST,
    JobServer,
    MadeUp,
    ServedJob,
    checkpoints,
    flags_of,
    made_up,
    prepared,
    run_job,
    run_of,
)
from training_runs import PRETRAIN as PRETRAIN_JOB

JOBS = {
    "pretrain": (pretrain_refcoco.main, PRETRAIN),
    "finetune": (finetune_ytvos.main, FINETUNE),
    "a2d": (finetune_a2d.main, A2D),
}
Said = Callable[..., str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    return made_up(tmp_path_factory.mktemp("made-up"))


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """What a job says of its command line, on standard error, before it ends with 1."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def told(job: str, folders: Sequence[Path], *more: str) -> str:
        main, recipes = JOBS[job]
        words = ["--data", *map(str, folders), "--recipe", "tiny", "--storage", str(tmp_path / "storage"), *more]
        with pytest.raises(SystemExit) as ended:
            run(TrainConfig, main, words, recipes)
        assert ended.value.code == Exit.FAILED
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line.removeprefix("error: ")

    return told


def test_a_folder_that_is_not_there_or_not_prepared(said: Said, tmp_path: Path) -> None:
    assert f"{tmp_path / 'nowhere'} holds no manifest.json: nothing was prepared there" in said(
        "pretrain", [tmp_path / "nowhere"]
    )
    (tmp_path / "empty").mkdir()
    assert "Run jobs/prepare.py --out" in said("pretrain", [tmp_path / "empty"])


def test_data_of_another_version_of_the_schema(data: MadeUp, said: Said, tmp_path: Path) -> None:
    old = shutil.copytree(data.images, tmp_path / "old")
    manifest = json.loads((old / "manifest.json").read_text())
    (old / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    assert "it has manifest version 99, this code reads" in said("pretrain", [old])


def test_images_where_video_is_learned_from(data: MadeUp, said: Said) -> None:
    message = said("finetune", [data.images])
    assert "refcoco, split train, holds single images, but recipe 'tiny' learns from video" in message
    assert "Use --recipe joint" in message
    assert "Use jobs/pretrain_refcoco.py" in said("a2d", [data.images])


def test_videos_of_which_one_frame_is_annotated(data_kit: Path, said: Said, tmp_path: Path) -> None:
    (tmp_path / "raw/videos").mkdir(parents=True)
    shutil.copy(data_kit / "a2d/Release/CLIPS320/davisDog001.mp4", tmp_path / "raw/videos/dog.mp4")
    (tmp_path / "raw/Annotations/dog").mkdir(parents=True)
    Image.new("L", (568, 320), 1).save(tmp_path / "raw/Annotations/dog/00002.png")
    (tmp_path / "raw/expressions.csv").write_text("video,object_id,text\ndog,1,everything\n")
    prepared("own", tmp_path / "raw", "train", tmp_path / "dog")
    message = said("finetune", [tmp_path / "dog"])
    assert "own, split train, has no more than one annotated frame in each video, but recipe 'tiny' learns" in message
    assert "Use jobs/finetune_a2d.py, or --recipe joint" in message
    assert "own train have 1 samples to learn from, fewer than the 4 clips" in said("a2d", [tmp_path / "dog"])


def test_videos_of_which_few_frames_are_annotated(data_kit: Path, said: Said, tmp_path: Path) -> None:
    prepared("a2d-sentences", data_kit / "a2d", "train", tmp_path / "a2d")
    message = said("finetune", [tmp_path / "a2d"])
    assert "a2d-sentences, split train, has masks at a few frames of each video only. Use jobs/finetune_a2d" in message


def test_a_split_whose_truth_is_withheld(data: MadeUp, said: Said, tmp_path: Path) -> None:
    prepared("ref-youtube-vos", data.raw.ytvos, "valid", tmp_path / "valid")
    message = said("finetune", [tmp_path / "valid"])
    assert "ref-youtube-vos valid have 0 samples to learn from, fewer than the 4 clips of one step" in message
    assert "Prepare a split whose truth is known (train)" in message
    message = said("finetune", [data.videos], "--valid", str(tmp_path / "valid"))
    assert f"{tmp_path / 'valid'}: no video has a truth to score by" in message


def test_videos_held_out_that_are_not_there(data: MadeUp, said: Said) -> None:
    assert "--holdout 9 of 4 videos leaves nothing to learn from" in said("finetune", [data.videos], "--holdout", "9")
    both = ["--holdout", "1", "--valid", str(data.videos)]
    assert "--valid and --holdout both choose what is scored" in said("finetune", [data.videos], *both)


def test_a_checkpoint_of_another_preset_or_another_shape(data: MadeUp, said: Said, tmp_path: Path) -> None:
    checkpoint = str(tiny_checkpoint(tmp_path / "tiny"))
    message = said("finetune", [data.videos], "--model", "video-swin-t", "--init", checkpoint)
    assert message == (
        f"--init {checkpoint} is a tiny, but --model says video-swin-t. Give --model tiny, or another checkpoint."
    )
    # Of the same name, with another text encoder inside.
    config = SgMgConfig.preset("tiny")
    larger = SgMg(replace(config, text=replace(config.text, layers=2)))
    save(tmp_path / "larger", larger, tokenizer=Tokenizer.train(SENTENCES))
    message = said("finetune", [data.videos], "--init", str(tmp_path / "larger"))
    assert "is a tiny, which does not fit this tiny" in message
    assert "There is no checkpoint at" in said("finetune", [data.videos], "--init", str(tmp_path / "nothing"))


def test_a_multi_object_checkpoint_for_a_single_object_model(data: MadeUp, said: Said, tmp_path: Path) -> None:
    config = replace(SgMgConfig.preset("tiny"), multi_object=True)
    save(tmp_path / "multi", SgMg(config), tokenizer=Tokenizer.train(SENTENCES))
    message = said("finetune", [data.videos], "--init", str(tmp_path / "multi"))
    assert f"{tmp_path / 'multi'} is a multi-object model, which answers several sentences together" in message
    assert "Train it with --multi-object" in message


def test_a_recipe_that_starts_from_a_single_object_model_without_one(data: MadeUp, said: Said) -> None:
    message = said("finetune", [data.videos], "--recipe", "multi", "--model", "tiny", "--workers", "1")
    assert message.startswith(
        "--recipe multi starts from a single-object checkpoint, and none is given. Give it as --init"
    )


@pytest.mark.parametrize(
    ("job", "recipe", "lacks"),
    [
        ("pretrain", "pretrain", "backbone, and none is given. Give its file as --backbone-weights: of Kinetics-400"),
        ("finetune", "scratch", "backbone, and none is given. Give its file as --backbone-weights"),
        ("finetune", "joint", "backbone, and none is given. Give its file as --backbone-weights"),
        (
            "finetune",
            "finetune",
            "pre-trained checkpoint, and none is given. Give it as --init: the folder of a run of",
        ),
        ("a2d", "a2d", "pre-trained checkpoint, and none is given. Give it as --init"),
    ],
)
def test_a_published_recipe_without_the_weights_that_it_starts_from(
    data: MadeUp, said: Said, job: str, recipe: str, lacks: str
) -> None:
    folder = data.images if job == "pretrain" else data.videos
    given = ["--recipe", recipe, "--model", "video-swin-t", "--workers", "1", "--global-batch", "2"]
    message = said(job, [folder], *given)
    assert message.startswith(f"--recipe {recipe} starts from a ")
    assert lacks in message
    assert message.endswith("--from-scratch says that random weights are meant.")
    meant = ["--from-scratch", "--tokenizer", "/nowhere"]
    message = said(job, [folder], *given, *meant)
    assert "/nowhere" in message  # the next thing that is missing here


def test_scores_that_are_waited_for_but_not_made() -> None:
    with pytest.raises(
        ValueError, match=r"^--patience 3 counts scores, but nothing is scored\. Give --valid or --hold"
    ):
        replace(FINETUNE["tiny"], data=("d",), patience=3)


@pytest.mark.parametrize(
    ("weights", "lacks"),
    [
        (["{videos}:0"], "sum to 0, so there is nothing to learn from"),
        (["{videos}:-1"], "must be a folder of --data, a colon and a share of at least 0"),
        (["/elsewhere:1"], "must be a folder of --data, a colon and a share of at least 0"),
        (["{videos}"], "must be a folder of --data, a colon and a share of at least 0"),
    ],
)
def test_shares_of_folders_that_cannot_be(data: MadeUp, said: Said, weights: list[str], lacks: str) -> None:
    given = [text.format(videos=data.videos) for text in weights]
    message = said("finetune", [data.videos], "--weights", *given)
    assert message.startswith(f"--weights {given[0]}")
    assert lacks in message


def test_more_workers_than_passes_or_than_the_cluster_can_ever_give(
    data: MadeUp,
    said: Said,
    ray_local: None,  # noqa: ARG001
) -> None:
    message = said("finetune", [data.videos], "--workers", "8", "--global-batch", "16")
    assert "--workers 8 need 9 CPU, but of that this cluster can never give 5 CPU. Ask for fewer workers" in message
    message = said("finetune", [data.videos], "--gpus-per-worker", "1")  # it has not begun: nothing to go on with
    assert "this cluster can never give 1 GPU" in message


def test_storage_that_cannot_be_written(
    data: MadeUp,
    said: Said,
    tmp_path: Path,
    ray_local: None,  # noqa: ARG001
) -> None:
    (tmp_path / "file").write_text("no folder")
    message = said("finetune", [data.videos], "--storage", str(tmp_path / "file" / "runs"))
    assert message.startswith(f"{tmp_path / 'file' / 'runs'}/finetune/tiny-tiny cannot be written")


def test_an_mlflow_that_does_not_answer(
    data: MadeUp,
    said: Said,
    monkeypatch: pytest.MonkeyPatch,
    ray_local: None,  # noqa: ARG001
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    message = said("finetune", [data.videos])
    assert message.startswith("MLflow at http://127.0.0.1:9 cannot be used: ")
    assert "correct MLFLOW_TRACKING_URI" in message


def test_a_relative_storage_in_a_submitted_job(data: MadeUp, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    message = said("finetune", [data.videos], "--storage", "runs")
    assert "--storage 'runs' is a relative path, but a submitted job runs in a temporary copy of the code" in message


@pytest.mark.slow
@pytest.mark.xdist_group("training")
def test_a_loss_that_is_no_number_ends_the_run_and_its_samples_are_kept(
    data: MadeUp, job_server: JobServer, tmp_path: Path
) -> None:
    flags = flags_of(data.images, tmp_path, "run", "--lr", "1e30", "--checkpoint-every", "1")
    with ServedJob(job_server, PRETRAIN_JOB, flags, tmp_path / "log") as job:
        assert job.end() == Exit.FAILED
        (line,) = [line for line in job.text.splitlines() if line.startswith("error: ")]
    run_folder = run_of(PRETRAIN_JOB, tmp_path, "run")
    (step,) = {int(path.name[5:13]) for path in (run_folder / "failed").glob("step_*.json")}
    assert f"Training ended early: At step {step} the losses are not finite: total=" in line
    assert f"Its samples are in {run_folder}/failed/step_{step:08d}-rank0000.json" in line
    assert 0 < step < LAST
    assert checkpoints(run_folder)[-1] == step  # nothing was learned of it
    lanes = []
    for rank in range(2):
        stem = run_folder / "failed" / f"step_{step:08d}-rank{rank:04d}"
        told = json.loads(stem.with_suffix(".json").read_text())
        assert told["step"] == step
        assert "not finite" in told["reason"]
        lanes += [sample["lane"] for sample in told["samples"]]
        assert stem.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert sorted(lanes) == [0, 1, 2, 3]
    the_rest_of_its_steps_is_left_out(flags, tmp_path, step, job_server)


def the_rest_of_its_steps_is_left_out(flags: list[str], storage: Path, step: int, job_server: JobServer) -> None:
    """The weights are spoilt for good; but the run goes on, with another rate, and says what it does."""
    more = ["--skip-nonfinite", "20", "--change", "lr=1e-3"]
    with ServedJob(job_server, PRETRAIN_JOB, [*flags, *more], storage / "log of the rest") as job:
        assert job.end() == Exit.CLEAN
        assert f"after step {step} the run goes on with --lr 1e+30 → 0.001" in job.text
        assert f"step {step} is left out, 1 of at most 20 (--skip-nonfinite): At step {step} the losses" in job.text
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("pretrain").experiment_id])  # pyright: ignore
    assert run.data.tags[f"change.after_step_{step:08d}"] == "--lr 1e+30 → 0.001"
    assert run.data.metrics["steps_left_out"] == LAST - step
    kept = {path.name[5:13] for path in (run_of(PRETRAIN_JOB, storage, "run") / "failed").glob("*.json")}
    assert kept == {f"{number:08d}" for number in range(step, LAST)}


@pytest.mark.slow
@pytest.mark.xdist_group("training")
def test_a_second_run_of_a_name_is_refused_while_the_first_goes_on(
    data: MadeUp, job_server: JobServer, tmp_path: Path
) -> None:
    flags = flags_of(data.images, tmp_path, "run", "--max-steps", "4")
    lease = run_of(PRETRAIN_JOB, tmp_path, "run") / "lease.json"
    with ServedJob(job_server, PRETRAIN_JOB, flags, tmp_path / "log") as job:
        job.wait_until(lease.exists)
        code, text = run_job(PRETRAIN_JOB, flags, tmp_path / "log of the second")
        assert code == Exit.FAILED
        (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
        assert f"{lease.parent} is being written by process {job.process.pid} on " in line
        assert "Wait for it to end, or give another --name" in line
        assert job.end() == Exit.CLEAN
    assert not lease.exists()
