"""Read which job of a cluster this process belongs to, and how often that job was begun again, from the environment.

A job's script of `phalanx submit` says both, whatever the cluster: PHALANX_JOB, the id by which the cluster's queue lists
the job, and PHALANX_JOB_RESTARTS, 0 at its first start. Without them Slurm's own are read, which scripts of the user's own
have.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from .codes import ConfigError


@dataclass(frozen=True)
class ClusterJob:
    """`id` is None outside of any job. `restarts` is how often the cluster or the job itself began it again."""

    id: str | None
    restarts: int

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "ClusterJob":
        """Raises ConfigError for a number of restarts that is none."""
        for job, restarts in (("PHALANX_JOB", "PHALANX_JOB_RESTARTS"), ("SLURM_JOB_ID", "SLURM_RESTART_COUNT")):
            if job in environ:
                return cls(environ[job], _count(environ, restarts))
        return cls(None, _count(environ, "SLURM_RESTART_COUNT"))


def _count(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "0")
    if not is_count(text):
        raise ConfigError(f"{name}={text} in the environment is no whole number")
    return int(text)


def is_count(text: str) -> bool:
    return text.isascii() and text.isdigit()
