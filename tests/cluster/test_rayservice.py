"""The service on Kubernetes: Ray Serve and jobs/serve.py understand its configuration, and its cluster can run it."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import serve
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema

from jobs.common.predictor_config import actor_range
from jobs.impl.serve import TOKEN
from jobs.serve import ServeConfig
from pipelines.errors import JobError
from pipelines.serve.application import APPLICATION
from prepared_data import tiny_checkpoint

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
DOCUMENT = yaml.safe_load((CLUSTER / "kuberay/rayservice.yaml").read_text(encoding="utf-8"))
SERVICE = ServeDeploySchema.model_validate(yaml.safe_load(DOCUMENT["spec"]["serveConfigV2"]))
(APP,) = SERVICE.applications
ARGUMENTS: dict[str, Any] = APP.args
GROUPS = DOCUMENT["spec"]["rayClusterConfig"]["workerGroupSpecs"]
PODS = [
    group["template"]["spec"]["containers"][0]
    for group in [DOCUMENT["spec"]["rayClusterConfig"]["headGroupSpec"], *GROUPS]
]


def builder() -> Any:
    module, _, name = APP.import_path.partition(":")
    return getattr(importlib.import_module(module), name)


def test_there_is_one_application_at_the_root_for_other_pods() -> None:
    assert (APP.name, APP.route_prefix) == (APPLICATION, "/")
    assert SERVICE.http_options.host == "0.0.0.0"
    assert all({"name": "serve", "containerPort": SERVICE.http_options.port} in pod["ports"] for pod in PODS)


def test_the_arguments_are_flags_of_the_job_and_their_files_on_shared_storage() -> None:
    config = ServeConfig(**ARGUMENTS)
    assert {"host", "port", "token", "num_cpus"}.isdisjoint(ARGUMENTS)
    assert all(path and path.startswith("/mnt/shared/") for path in (config.storage, config.tokenizer))


def test_an_argument_that_is_no_flag_is_found() -> None:
    with pytest.raises(TypeError, match="max_megabytes"):
        ServeConfig(**{**ARGUMENTS, "max_megabytes": 3})


def test_the_cluster_has_a_gpu_for_every_copy_of_the_model_and_none_beside() -> None:
    least, most = actor_range(ARGUMENTS["replicas"])
    (group,) = GROUPS
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == ARGUMENTS["gpus_per_replica"] == 1
    assert (group["minReplicas"], group["maxReplicas"]) == (least, most) == (1, 8)


def test_every_node_knows_the_token_of_the_clients() -> None:
    for pod in PODS:
        (variable,) = [one for one in pod["env"] if one["name"] == TOKEN]
        assert not variable["valueFrom"]["secretKeyRef"].get("optional")


def test_its_services_have_names_of_their_own() -> None:
    others = [
        yaml.safe_load(path.read_text(encoding="utf-8"))["metadata"]["name"]
        for path in (CLUSTER / "kuberay").glob("ray*.yaml")
    ]
    assert others.count(DOCUMENT["metadata"]["name"]) == 1
    assert f"http://{DOCUMENT['metadata']['name']}-serve-svc:" in (CLUSTER / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_ray_serve_builds_the_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "a token")
    own = {"checkpoint": str(tiny_checkpoint(tmp_path / "checkpoint")), "tokenizer": None, "gpus_per_replica": 0}
    assert isinstance(call_user_app_builder_with_args_if_necessary(builder(), ARGUMENTS | own), serve.Application)


def test_without_a_token_it_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    with pytest.raises(JobError, match=TOKEN):
        builder()(ARGUMENTS)
