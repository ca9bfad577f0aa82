"""Which cluster `phalanx submit`, `cancel`, `status` and `logs` speak to: here alone a cluster is chosen."""

from collections.abc import Mapping

from phalanx.config.schema import ClusterConfig
from phalanx.exit.codes import ConfigError

from ..slurm.backend import Slurm
from ..submission.backend import Backend


def choose_backend(cluster: ClusterConfig, environ: Mapping[str, str]) -> Backend:
    """The cluster that a job which asks for this goes to, from a shell with this environment."""
    return Slurm(environ)


def backend_named(name: str, environ: Mapping[str, str]) -> Backend:
    """The cluster that was submitted to, by its name in the submission's record. Raises ConfigError."""
    slurm = Slurm(environ)
    if name != slurm.name:
        raise ConfigError(f"A run was submitted to {name}, which this version of Phalanx does not know. Update it")
    return slurm
