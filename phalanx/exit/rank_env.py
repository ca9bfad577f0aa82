"""Read this process's rank and world size from the environment variables of torchrun."""

from collections.abc import Mapping
from dataclasses import dataclass

from .cluster_job import ClusterJob, is_count
from .codes import ConfigError
from .duplicate_starts import check_alone, is_first

_START = "Start with: torchrun --nproc_per_node=N train/main.py"


@dataclass(frozen=True)
class RankEnv:
    """Rank, world size and store address of one rank. `launched` is False for `python train/main.py`, a world of one.

    The ranks' TCPStore listens at `address`:`port`: in the launcher if `hosted`, else in rank 0.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    attempt: int
    launched: bool
    address: str
    port: int
    hosted: bool

    @property
    def is_rank_zero(self) -> bool:
        return self.rank == 0

    @property
    def one_machine(self) -> bool:
        return self.size == self.local_size

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "RankEnv":
        """Read torchrun's variables.

        Raises ConfigError if only some are set, if they contradict each other, or if none is set and srun or mpirun
        started several tasks.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        missing = [name for name in names if name not in environ]
        if "RANK" in missing and "LOCAL_RANK" in missing:
            check_alone(environ)
            return cls(0, 1, 0, 1, _restarts(environ), launched=False, address="", port=0, hosted=False)
        if missing:
            raise ConfigError(
                f"The environment names a rank but lacks {', '.join(missing)}, so the ranks cannot find each other. "
                f"{_START}"
            )
        rank, size, local_rank, local_size = (_count(environ, name) for name in names[:4])
        for name, value, of, limit in (
            ("RANK", rank, "WORLD_SIZE", size),
            ("LOCAL_RANK", local_rank, "LOCAL_WORLD_SIZE", local_size),
        ):
            if value >= limit:
                raise ConfigError(f"{name}={value} is not below {of}={limit} in the environment. {_START}")
        address, port = environ["MASTER_ADDR"], _count(environ, "MASTER_PORT")
        hosted = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return cls(rank, size, local_rank, local_size, _restarts(environ), True, address, port, hosted)


def prints_errors(environ: Mapping[str, str]) -> bool:
    """Whether this process prints config errors while RANK is not validated yet: all but ranks above 0."""
    if "RANK" not in environ:
        return is_first(environ)
    rank = environ["RANK"]
    return not is_count(rank) or int(rank) == 0


def _restarts(environ: Mapping[str, str]) -> int:
    """How often torchrun, a job and `phalanx run` restarted this command, summed."""
    names = ("TORCHELASTIC_RESTART_COUNT", "PHALANX_RESTART_COUNT")
    own = sum(_count(environ, name) for name in names if name in environ)
    return own + ClusterJob.from_environment(environ).restarts


def _count(environ: Mapping[str, str], name: str) -> int:
    text = environ[name]
    if not is_count(text):
        raise ConfigError(f"{name}={text} in the environment is no whole number. {_START}")
    return int(text)
