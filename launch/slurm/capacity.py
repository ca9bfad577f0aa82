"""Refuses a job for more machines or GPUs than the cluster has, which would wait for ever where Slurm accepts it."""

from collections.abc import Mapping

from phalanx.config.schema import ClusterConfig
from phalanx.exit.codes import ConfigError

from . import client


def check_capacity(cluster: ClusterConfig, environ: Mapping[str, str]) -> None:
    """Raise ConfigError where the partition of `cluster` could never run it."""
    there = client.find_machines(cluster.partition, environ)
    if there is None:
        return
    where = "the cluster" if cluster.partition is None else f"partition {cluster.partition}"
    gpus = there.most_gpus
    if (cluster.gpus_per_node or 0) > gpus:
        instead = f"cluster.gpus_per_node={gpus}" if gpus else "cluster.gpus_per_node=null cluster.ranks_per_node=4"
        raise ConfigError(
            f"cluster.gpus_per_node={cluster.gpus_per_node} is more than any machine of {where} has: {gpus}. "
            f"Type {instead}"
        )
    if cluster.nodes > there.count:
        raise ConfigError(
            f"cluster.nodes={cluster.nodes} is more than {where} has: {there.count}. Type cluster.nodes={there.count}"
        )
