"""A cluster of several nodes in processes of this machine."""

from typing import Any

from ray import cluster_utils

from pipelines.session import in_attempts


class Cluster(cluster_utils.Cluster):
    """A cluster of Ray whose nodes are started again where a busy machine took longer than Ray gives them.

    A failed attempt also ends the workers that other nodes have started meanwhile; Ray starts those again.
    """

    def add_node(self, *args: Any, **kwargs: Any) -> Any:
        """Adds a node; the first one is the head."""
        return in_attempts(lambda: super(Cluster, self).add_node(*args, **kwargs))
