"""What `ray up` is given: valid to Ray, one Ray and Python, a head without tasks, token and storage on every node."""

import copy
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
FILES = {
    name: yaml.safe_load((CLUSTER / name).read_text(encoding="utf-8"))
    for name in ("local.yaml", "aws.yaml", "gcp.yaml")
}
CLOUDS = ("aws.yaml", "gcp.yaml")


@pytest.mark.parametrize("name", FILES)
def test_ray_takes_it(name: str) -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(FILES[name], schema)
    prepared = prepare_config(copy.deepcopy(FILES[name]))
    validate_config(prepared)
    assert prepared["max_workers"] == FILES[name]["max_workers"]


def test_ray_refuses_a_field_it_does_not_know() -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_minutes"):
        validate_config(prepare_config({**FILES["aws.yaml"], "idle_minutes": 5}))


@pytest.mark.parametrize("name", FILES)
def test_ray_adds_no_ray_of_its_own(name: str) -> None:
    prepared = prepare_config(copy.deepcopy(FILES[name]))
    assert "ray-wheels" not in json.dumps(prepared)


@pytest.mark.parametrize("name", FILES)
def test_the_head_runs_no_tasks_and_its_dashboard_is_its_own(name: str) -> None:
    (start,) = [line for line in FILES[name]["head_start_ray_commands"] if "ray start" in line]
    assert {"--head", "--num-cpus=0", "--num-gpus=0", "--dashboard-host=127.0.0.1"} <= set(start.split())
    if name in CLOUDS:
        assert FILES[name]["available_node_types"][FILES[name]["head_node_type"]]["resources"] == {"CPU": 0}


@pytest.mark.parametrize("name", FILES)
def test_every_node_has_the_token_and_asks_for_it(name: str) -> None:
    config = FILES[name]
    assert "~/.ray/auth_token" in config["file_mounts"].values()
    starts = [
        line for line in config["head_start_ray_commands"] + config["worker_start_ray_commands"] if "start" in line
    ]
    assert len(starts) == 2
    in_container = "-e RAY_AUTH_MODE=token" in config.get("docker", {}).get("run_options", [])
    assert all(in_container or "RAY_AUTH_MODE=token ray start" in start for start in starts)


@pytest.mark.parametrize("name", FILES)
def test_every_node_has_the_shared_storage(name: str) -> None:
    config = FILES[name]
    assert any(
        "mountpoint -q /mnt/shared" in line
        for line in config.get("initialization_commands", []) + config["setup_commands"]
    )
    if name in CLOUDS:
        assert "-v /mnt/shared:/mnt/shared" in config["docker"]["run_options"]


@pytest.mark.parametrize("name", CLOUDS)
def test_the_object_store_fits_into_shared_memory(name: str) -> None:
    (shm,) = [
        re.fullmatch(r"--shm-size=(\d+)g", option) for option in FILES[name]["docker"]["run_options"] if "shm" in option
    ]
    (start,) = [line for line in FILES[name]["worker_start_ray_commands"] if "ray start" in line]
    store = re.search(r"--object-store-memory=(\d+)", start)
    assert shm
    assert store
    assert int(store[1]) < int(shm[1]) * 2**30


def is_spot(node: dict[str, Any]) -> bool:
    scheduling, market = node.get("scheduling", {}), node.get("InstanceMarketOptions", {})
    return scheduling.get("provisioningModel") == "SPOT" or market.get("MarketType") == "spot"


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_are_spot_and_start_from_none_but_the_head_stays(name: str) -> None:
    config = FILES[name]
    for kind, node in config["available_node_types"].items():
        assert is_spot(node["node_config"]) == (kind != config["head_node_type"])
        assert node.get("min_workers", 0) == 0
    most = sum(node.get("max_workers", 0) for node in config["available_node_types"].values())
    assert config["max_workers"] == most, "some machines could never be started"


@pytest.mark.parametrize("name", CLOUDS)
def test_images_are_of_one_ray_and_have_cuda_where_there_are_gpus(name: str) -> None:
    project = tomllib.loads((CLUSTER.parent / "pyproject.toml").read_text())["project"]
    python = re.sub(r"[^\d]", "", project["requires-python"])
    (pin,) = [line for line in project["dependencies"] if line.startswith("ray[")]
    release = re.escape(pin.partition("==")[2].removesuffix("*")) + r"\d+"
    for node in FILES[name]["available_node_types"].values():
        image = node.get("docker", {}).get("worker_image", FILES[name]["docker"]["image"])
        device = "cuda" if node["resources"].get("GPU") else "cpu"
        wanted = rf"registry\.example\.com/sgmg:{re.escape(project['version'])}-ray{release}-py{python}-{device}"
        assert re.fullmatch(wanted, image), image


@pytest.mark.parametrize("name", FILES)
def test_no_secret_is_in_it(name: str) -> None:
    text = (CLUSTER / name).read_text(encoding="utf-8")
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|RAY_AUTH_TOKEN=|://[^/@\s]+:[^/@\s]+@", text)
    assert not re.search(r"(?i)\b\w*(password|secret|access_key)\w*\s*[:=]", text)
