"""Which cluster `phalanx submit`, `cancel`, `status` and `logs` speak to: the one place that names Slurm."""

from collections.abc import Mapping

from ..slurm.backend import Slurm
from ..submission.backend import Backend


def choose_backend(environ: Mapping[str, str]) -> Backend:
    """The cluster that jobs go to from a shell with this environment."""
    return Slurm(environ)
