"""The private names of Ray that training uses exist in the pinned version."""

import logging

from ray._private import state, worker
from ray.data._internal.logging import SessionFileHandler
from ray.train.v2._internal import constants
from ray.train.v2._internal.execution import context

from pack import ROOT


def test_every_private_name_of_ray_exists() -> None:
    assert callable(state.state.get_max_resources_from_cluster_config)
    assert hasattr(worker, "_global_node")
    assert isinstance(constants.ENV_VARS_TO_PROPAGATE, set)
    assert context.__file__
    # `quiet` leaves handlers of Ray's files alone, by their type.
    assert not issubclass(SessionFileHandler, logging.StreamHandler)


def users_of(*names: str) -> set[str]:
    """Returns the modules of ours whose text holds one of the names."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in ("sgmg", "pipelines", "jobs")
        for path in (ROOT / package).rglob("*.py")
        if any(name in path.read_text(encoding="utf-8") for name in names)
    }


def test_one_module_uses_private_names_of_ray() -> None:
    private = users_of("ray._private", "ray.data._internal import", "ray.data._internal.logging import", "ray.train.v2")
    assert private == {"pipelines/training/ray_train.py"}


def test_only_training_imports_ray_train() -> None:
    users = users_of("import ray.train", "from ray.train", "from ray import train")
    assert users
    assert all(user.startswith("pipelines/training/") for user in users)
