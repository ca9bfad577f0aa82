"""Detect that srun, mpirun or an indexed job started this command several times, each as a separate world of one."""

from collections.abc import Mapping

from .codes import ConfigError

_TASKS = {  # who starts tasks -> the variables that tell a task's number and how many there are
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),  # a batch script, which is one, has no step
    "mpirun (Open MPI)": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "mpirun": ("PMI_RANK", "PMI_SIZE"),
}


def check_alone(environ: Mapping[str, str]) -> None:
    """Raise ConfigError where this process, which nobody has given a rank, is one of several tasks of one job."""
    for starter, (rank, size) in _TASKS.items():
        tasks = environ.get(size, "")
        if rank in environ and tasks.isdecimal() and int(tasks) > 1:
            raise ConfigError(
                f"{starter} started this command {tasks} times ({size}={tasks}), and each would be a world of one that "
                "trains the same run. Type phalanx submit … to train on a cluster, or let it start one task a node: srun "
                "--ntasks-per-node=1 torchrun --nnodes=… --nproc_per_node=… train/main.py. Where each task shall train a "
                f"run of its own, type env -u {rank} before the command",
                agreed=True,
            )


def check_one_machine(environ: Mapping[str, str]) -> None:
    """Raise ConfigError where this launcher, which starts ranks on one machine, is one of several of one job."""
    nodes = environ.get("PET_NNODES", "")
    if nodes not in ("", "1", "1:1"):
        raise ConfigError(
            f"PET_NNODES={nodes}: this machine is one of several of one job, and phalanx run trains on one, so each would "
            "train apart. Type torchrun train/main.py, which reads PET_*, or env -u PET_NNODES before the command to "
            "train here alone"
        )
    if not nodes and "JOB_COMPLETION_INDEX" in environ:
        raise ConfigError(
            f"JOB_COMPLETION_INDEX={environ['JOB_COMPLETION_INDEX']}: this pod is one of an indexed job, and phalanx run "
            "trains on one machine, so each would train apart. Type torchrun --nnodes=… "
            "--node-rank=$JOB_COMPLETION_INDEX --master-addr=… train/main.py, or env -u JOB_COMPLETION_INDEX before the "
            "command where each pod trains a run of its own"
        )
    check_alone(environ)


def is_first(environ: Mapping[str, str]) -> bool:
    """Whether this process is task 0 of srun or mpirun, or was started by neither."""
    return all(environ.get(rank, "0") == "0" for rank, _ in _TASKS.values())
