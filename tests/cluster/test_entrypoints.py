"""The commands of cluster/: their jobs exist and understand them, and the cluster can give what they ask for."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.annotate import AnnotateConfig
from jobs.common import cli as runtime
from jobs.common.predictor_config import actor_range
from jobs.predict import PredictConfig
from pipelines.training.config import TrainConfig
from pipelines.training.recipes import FINETUNE, PRETRAIN

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
IMAGE = "/home/ray/sgmg"
CONFIGS: dict[str, tuple[Any, Any]] = {
    "pretrain_refcoco": (TrainConfig, PRETRAIN),
    "finetune_ytvos": (TrainConfig, FINETUNE),
    "predict": (PredictConfig, None),
    "annotate": (AnnotateConfig, None),
}
README = (CLUSTER / "README.md").read_text(encoding="utf-8")
SUBMITTED = re.findall(r"^ray job submit (?:\S+ )*?-- (python (?:.*\\\n)*.*)$", README, flags=re.MULTILINE)
Resources = dict[str, float]


def kuberay(name: str) -> Any:
    return yaml.safe_load((CLUSTER / "kuberay" / name).read_text(encoding="utf-8"))["spec"]


def most_of_kuberay(spec: Any) -> Resources:
    """The cores and GPUs of as many pods as there may be."""
    total = {"CPU": 0.0, "GPU": 0.0}
    for group in spec["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        total["CPU"] += group["maxReplicas"] * float(limits["cpu"])
        total["GPU"] += group["maxReplicas"] * float(limits.get("nvidia.com/gpu", 0))
    return total


def most_of_ray_up(name: str) -> Resources:
    nodes = yaml.safe_load((CLUSTER / name).read_text(encoding="utf-8"))["available_node_types"].values()
    return {
        what: float(sum(node.get("max_workers", 0) * node["resources"].get(what, 0) for node in nodes))
        for what in ("CPU", "GPU")
    }


def understood(command: str) -> Any:
    """The config that a command asks its job for."""
    python, script, *flags = shlex.split(command.replace("\\\n", " "))
    assert python == "python"
    assert (ROOT / script.removeprefix(f"{IMAGE}/")).is_file(), script
    config, recipes = CONFIGS[Path(script).stem]
    return runtime.parse(config, flags, recipes=recipes)


def asked(config: Any) -> Resources:
    """Cores and GPUs of as many workers as it may use, with a core for what feeds them."""
    if isinstance(config, TrainConfig):
        most, cpus, gpus = config.worker_range[1], config.cpus_per_worker, config.gpus_per_worker
    else:
        most, cpus, gpus = actor_range(config.actors)[1], config.cpus_per_actor, config.gpus_per_actor
    return {"CPU": most * cpus + config.cpus_per_decode, "GPU": most * gpus}


def paths(config: Any) -> list[str]:
    if isinstance(config, AnnotateConfig):
        return [*config.videos, config.expressions or "", config.storage, config.out, config.tokenizer or ""]
    given = [config.data] if isinstance(config.data, str) else [*config.data]
    if isinstance(config, TrainConfig):
        weights = [config.init] if config.init else [config.backbone_weights, config.text_weights]
        return [*given, config.storage, config.tokenizer, *weights]
    return [*given, config.storage, config.out, config.tokenizer or ""]


JOBS = [path.name for path in sorted((CLUSTER / "kuberay").glob("rayjob-*.yaml"))]
COMMANDS = [kuberay(name)["entrypoint"] for name in JOBS] + SUBMITTED


def test_there_are_jobs_and_commands() -> None:
    names = ("annotate", "finetune", "predict", "pretrain")
    assert [f"rayjob-{name}.yaml" for name in names] == JOBS
    assert len(SUBMITTED) >= 2


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood_and_asks_for_gpus(command: str) -> None:
    assert asked(understood(command))["GPU"] > 0


@pytest.mark.parametrize("command", COMMANDS)
def test_all_its_files_are_on_shared_storage(command: str) -> None:
    assert all(path.startswith("/mnt/shared/") for path in paths(understood(command)))


@pytest.mark.parametrize("name", JOBS)
def test_the_cluster_of_a_job_can_give_what_it_asks_for_and_holds_no_gpu_it_cannot_use(name: str) -> None:
    spec = kuberay(name)
    wanted, most = asked(understood(spec["entrypoint"])), most_of_kuberay(spec["rayClusterSpec"])
    assert wanted["CPU"] <= most["CPU"]
    assert wanted["GPU"] == most["GPU"]


@pytest.mark.parametrize("command", SUBMITTED)
@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml", "kuberay/raycluster.yaml"])
def test_every_cluster_that_stays_can_give_what_readme_submits(name: str, command: str) -> None:
    most = most_of_kuberay(kuberay("raycluster.yaml")) if "/" in name else most_of_ray_up(name)
    assert all(most[what] >= number for what, number in asked(understood(command)).items())


def test_every_file_that_readme_names_exists() -> None:
    named = {
        *re.findall(r"\]\(([\w./-]+)\)", README),
        *re.findall(r"`(?:cluster/)?((?:kuberay/)?[\w-]+\.yaml)`", README),
    }
    assert len(named) >= 8
    assert all((CLUSTER / name).exists() for name in named), named
    assert {path.relative_to(CLUSTER).as_posix() for path in CLUSTER.rglob("*.yaml")} <= named
