"""What Kubernetes is given: known fields alone, nothing as root, no secrets, a head without tasks."""

import json
import re
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from mlflow.server.security_utils import is_allowed_host_header

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
FIELDS: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("kubernetes_fields.json").read_text())
DOCUMENTS: dict[str, Any] = {
    f"{path.name}:{document['kind']}/{document['metadata']['name']}": document
    for path in [CLUSTER / "mlflow.yaml", *sorted((CLUSTER / "kuberay").glob("*.yaml"))]
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
}
SERVICES = {name: document["spec"] for name, document in DOCUMENTS.items() if document["kind"] == "RayService"}
COMMON = {name: spec for name, document in DOCUMENTS.items() if (spec := document["spec"].get("rayClusterSpec"))} | {
    name: document["spec"] for name, document in DOCUMENTS.items() if document["kind"] == "RayCluster"
}
CLUSTERS = COMMON | {name: service["rayClusterConfig"] for name, service in SERVICES.items()}
JOBS = {name: document["spec"] for name, document in DOCUMENTS.items() if document["kind"] == "RayJob"}
UNITS = {"": 1, "m": 1e-3, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def amount(quantity: Any) -> float:
    """A quantity of Kubernetes as a number: cores, bytes, devices."""
    match = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(quantity))
    assert match, f"{quantity!r} is no quantity"
    return float(match[1]) * UNITS[match[2]]


def mistakes(value: Any, kind: str, where: str) -> Iterator[str]:
    """Where a value is not of its kind: a name in FIELDS, [kind] for lists, {kind} for maps, words a|b, or plain."""
    inner = kind[1:-1]
    if kind.startswith("["):
        if not isinstance(value, list):
            yield f"{where} is no list"
        else:
            for place, item in enumerate(value):
                yield from mistakes(item, inner, f"{where}[{place}]")
    elif kind in FIELDS or kind.startswith("{"):
        if not isinstance(value, dict):
            yield f"{where} is no mapping"
            return
        for name, item in value.items():
            expected = FIELDS[kind].get(name) if kind in FIELDS else inner
            if expected is None:
                yield f"{where}.{name} is no field of {kind}"
            else:
                yield from mistakes(item, expected, f"{where}.{name}")
    elif kind == "quantity":
        if not re.fullmatch(r"[\d.]+(m|Mi|Gi|Ti)?", str(value)):
            yield f"{where} = {value!r} is no quantity"
    elif kind in ("str", "int", "bool"):
        if type(value).__name__ != kind:
            yield f"{where} = {value!r} is no {kind}"
    elif value not in kind.split("|"):
        yield f"{where} = {value!r} is none of {kind}"


def pods(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """All pod specs in a document."""
    if isinstance(value, dict):
        if "containers" in value:
            yield where, value
        for name, item in value.items():
            yield from pods(item, f"{where}.{name}")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from pods(item, f"{where}[{place}]")


PODS = {f"{name}{where}": pod for name, document in DOCUMENTS.items() for where, pod in pods(document)}
RAY_PODS = {name: pod for name, pod in PODS.items() if pod["containers"][0]["name"] in ("ray-head", "ray-worker")}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_field_is_one_of_its_kind(name: str) -> None:
    document = DOCUMENTS[name]
    assert list(mistakes(document, document["kind"], name)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [(("spec", "shutDownAfterJobFinishes"), True), (("spec", "rayClusterSpec", "rayVersion"), 2.6),
     (("spec", "rayClusterSpec", "authOptions", "mode"), "tokens"), (("spec", "backoffLimit"), "2"),
     (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0)],
)  # fmt: skip
def test_a_mistyped_field_and_a_value_of_another_type_are_found(path: tuple[str, ...], value: object) -> None:
    document = deepcopy(DOCUMENTS["rayjob-pretrain.yaml:RayJob/sgmg-pretrain"])
    inside = document
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = value
    (mistake,) = mistakes(document, "RayJob", "job")
    assert path[-1] in mistake


@pytest.mark.parametrize("name", PODS)
def test_no_container_is_root_and_each_has_limits(name: str) -> None:
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    # The service named mlflow would set MLFLOW_PORT to what is no port.
    assert pod["enableServiceLinks"] is False
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert {"cpu", "memory"} <= set(limits) == set(requests)
        assert all(amount(requests[what]) <= amount(limits[what]) for what in limits)


@pytest.mark.parametrize("name", PODS)
def test_all_that_is_mounted_is_there(name: str) -> None:
    pod = PODS[name]
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    assert {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])} == volumes


@pytest.mark.parametrize("name", PODS)
def test_passwords_and_keys_come_by_reference(name: str) -> None:
    for container in PODS[name]["containers"]:
        for variable in container.get("env", []):
            secret = re.search(r"PASS|TOKEN|SECRET|KEY|USERNAME", variable["name"])
            assert ("valueFrom" in variable) == bool(secret), variable["name"]
        assert not re.search(r"://[^/@ ]+:[^/@ ]+@", json.dumps(container)), "a password in an address"


@pytest.mark.parametrize("name", RAY_PODS)
def test_rays_pods_see_shared_storage_and_hold_their_object_store_in_shared_memory(name: str) -> None:
    (container,) = RAY_PODS[name]["containers"]
    volumes = {volume["name"]: volume for volume in RAY_PODS[name]["volumes"]}
    at = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    claim = at["/mnt/shared"]["persistentVolumeClaim"]["claimName"]
    assert DOCUMENTS[f"storage.yaml:PersistentVolumeClaim/{claim}"]["spec"]["accessModes"] == ["ReadWriteMany"]
    assert at["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    assert amount(at["/dev/shm"]["emptyDir"]["sizeLimit"]) < amount(container["resources"]["limits"]["memory"]) / 2


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_object_store_fits_into_shared_memory(name: str) -> None:
    spec = CLUSTERS[name]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        (shm,) = [volume for volume in group["template"]["spec"]["volumes"] if volume["name"] == "shared-mem"]
        assert int(group["rayStartParams"]["object-store-memory"]) < amount(shm["emptyDir"]["sizeLimit"])


@pytest.mark.parametrize("name", RAY_PODS)
def test_rays_pods_are_probed_where_ray_answers_without_a_token(name: str) -> None:
    (container,) = RAY_PODS[name]["containers"]
    head = container["name"] == "ray-head"
    dashboard = "dashboard/http_server_head.py" if head else "dashboard/http_server_agent.py"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked, port, source = container[probe]["httpGet"], 8265 if head else 52365, dashboard
        if probe == "readinessProbe" and not head and name.startswith("rayservice"):
            port, source = 8000, "serve/_private/proxy_request_response.py"  # as KubeRay's own
        assert asked["port"] == port
        assert f'"{asked["path"]}"' in (Path(ray.__file__).parent / source).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_head_runs_no_tasks_and_only_the_token_opens_it(name: str) -> None:
    spec = CLUSTERS[name]
    head = spec["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == head["rayStartParams"]["num-gpus"] == "0"
    assert head["serviceType"] == "ClusterIP"
    assert spec["authOptions"] == {"mode": "token"}
    assert "nvidia.com/gpu" not in head["template"]["spec"]["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize("name", CLUSTERS)
def test_images_are_of_one_ray_and_have_cuda_where_there_are_gpus(name: str) -> None:
    spec = CLUSTERS[name]
    project = tomllib.loads((CLUSTER.parent / "pyproject.toml").read_text())["project"]
    python = re.sub(r"[^\d]", "", project["requires-python"])
    (pin,) = [line for line in project["dependencies"] if line.startswith("ray[")]
    assert spec["rayVersion"].startswith(pin.partition("==")[2].removesuffix("*"))
    for _, pod in pods(spec):
        (container,) = pod["containers"]
        device = "cuda" if "nvidia.com/gpu" in container["resources"]["limits"] else "cpu"
        tag = f"{project['version']}-ray{spec['rayVersion']}-py{python}-{device}"
        assert container["image"] == f"registry.example.com/sgmg:{tag}"


@pytest.mark.parametrize("name", JOBS)
def test_a_job_ends_its_cluster_and_is_tried_again(name: str) -> None:
    job = JOBS[name]
    assert job["shutdownAfterJobFinishes"] is True
    assert job["ttlSecondsAfterFinished"] > 0
    assert job["backoffLimit"] > 0
    assert job["activeDeadlineSeconds"] > 3600
    (submitter,) = job["submitterPodTemplate"]["spec"]["containers"]
    assert submitter["image"] == job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]


def test_all_clusters_for_jobs_are_of_the_same_pods() -> None:
    first, *others = [
        {name: pod for name, pod in pods(spec) if "workerGroupSpecs" in name or "headGroupSpec" in name}
        for spec in COMMON.values()
    ]
    assert len(first) == 3
    assert all(other == first for other in others)


def test_mlflow_is_found_by_the_name_that_the_jobs_use() -> None:
    service = DOCUMENTS["mlflow.yaml:Service/mlflow"]
    server = DOCUMENTS["mlflow.yaml:Deployment/mlflow"]["spec"]["template"]
    assert service["spec"]["selector"].items() <= server["metadata"]["labels"].items()
    (container,) = server["spec"]["containers"]
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    addresses = {
        variable["value"]
        for pod in RAY_PODS.values()
        for variable in pod["containers"][0]["env"]
        if variable["name"] == "MLFLOW_TRACKING_URI"
    }
    host = f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert addresses == {f"http://{host}"}
    allowed = flags["allowed-hosts"].split(",")
    # Behind port-forward it is called by this machine's name; a page of somebody else's calls it by theirs.
    assert is_allowed_host_header(allowed, host)
    assert is_allowed_host_header(allowed, "localhost:5000")
    assert not is_allowed_host_header(allowed, "evil.example.com:5000")


def test_mlflow_and_its_database_cannot_be_reached_from_outside() -> None:
    services = [document for document in DOCUMENTS.values() if document["kind"] == "Service"]
    assert {service["spec"]["type"] for service in services} == {"ClusterIP"}
    for service in services:
        policy = DOCUMENTS[f"mlflow.yaml:NetworkPolicy/{service['metadata']['name']}"]["spec"]
        assert policy["podSelector"]["matchLabels"] == service["spec"]["selector"]
        assert all(rule["from"] for rule in policy["ingress"])


def test_prometheus_reads_ports_that_the_head_has() -> None:
    asked = {end["port"] for end in DOCUMENTS["podmonitor.yaml:PodMonitor/sgmg-ray"]["spec"]["podMetricsEndpoints"]}
    (container,) = CLUSTERS["raycluster.yaml:RayCluster/sgmg"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert asked <= {port["name"] for port in container["ports"]}
