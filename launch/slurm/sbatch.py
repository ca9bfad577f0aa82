"""Renders a Slurm job as the sbatch command that submits it: options, environment, and what is refused beforehand."""

import re
import shlex
from collections.abc import Collection
from pathlib import Path

from phalanx.config.schema import ClusterConfig
from phalanx.exit.codes import ConfigError
from phalanx.system.gpu_visibility import GIVEN

from ..common.job_variables import is_job_variable
from ..submission.backend import JobSpec, ranks_per_node
from ..submission.exit_policy import policy_lines
from ..submission.record import Submission
from .extra_options import asks_for_gpus, extra_options

_TIME = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")
_MEMORY = re.compile(r"[1-9]\d*[KMGT]")


def check(cluster: ClusterConfig) -> None:
    """Raise ConfigError for what Slurm would misread, or refuse in words of its own."""
    if cluster.time is not None:
        limit_s = _seconds(cluster.time)
        if limit_s <= cluster.notice_s:
            raise ConfigError(
                f"cluster.notice_s={cluster.notice_s} is not less than cluster.time={cluster.time}, so the ranks would "
                "be told to leave as soon as they start. Type a longer cluster.time"
            )
    if cluster.mem is not None and not _MEMORY.fullmatch(cluster.mem):
        raise ConfigError(f"cluster.mem={cluster.mem} is no size of memory. Type cluster.mem=64G, or K, M or T")
    gpus, ranks = cluster.gpus_per_node, ranks_per_node(cluster)
    if gpus and ranks > gpus:
        raise ConfigError(
            f"cluster.ranks_per_node={ranks} is more than cluster.gpus_per_node={gpus}, and a rank needs a GPU of its "
            f"own. Type cluster.ranks_per_node={gpus}"
        )
    extra_options(cluster.sbatch, {}, gpus)
    for mount in cluster.mounts:
        if not mount.startswith("/") or "," in mount:
            raise ConfigError(f"cluster.mounts has {mount!r}. Type absolute folders, such as cluster.mounts=[/data]")


def render(job: JobSpec, variables: Collection[str], *, test_only: bool = False) -> str:
    """The shell command that submits `job` from a shell that has these environment `variables`, a line a setting.

    Raises ConfigError for a path that Slurm or pyxis would misread.
    """
    environ = _environ(job)
    less = [
        word for name in sorted(variables) if is_job_variable(name) and name not in environ for word in ("-u", name)
    ]
    settings = [f"{name}={value}" for name, value in environ.items()]
    script = str(job.submission.code / "phalanx" / "slurm" / "train.sbatch")
    asks = ["--test-only"] if test_only else []
    command = ["sbatch", *asks, "--parsable", "--requeue", *_options(job), script]
    return " \\\n  ".join(map(shlex.join, [["env", *less], *([word] for word in (*settings, *command))]))


def _options(job: JobSpec) -> list[str]:
    cluster = job.cluster
    asked = _asked(job)
    more = extra_options(cluster.sbatch, asked, cluster.gpus_per_node)
    if any(asks_for_gpus(option, value) for option, value in more.items()):
        asked["gpus-per-node"] = None
    return [
        *(f"--{option}={value}" for option, value in asked.items() if value is not None),
        *(f"--{option}" if value is None else f"--{option}={value}" for option, value in more.items()),
    ]


def _environ(job: JobSpec) -> dict[str, str]:
    """What slurm/train.sbatch reads, and the ranks inherit."""
    cluster, submission = job.cluster, job.submission
    return {
        "PHALANX_SUBMISSION": str(submission.folder),
        "PHALANX_CODE": str(submission.code),
        "PHALANX_ENTRY": job.entry,
        "PHALANX_DIRECTORY": str(submission.directory),
        "PHALANX_PYTHON": "python3" if cluster.container else job.python,
        "PHALANX_NODES": str(cluster.nodes),
        **({GIVEN: str(cluster.gpus_per_node)} if cluster.gpus_per_node else {}),
        "PHALANX_RANKS_PER_NODE": str(ranks_per_node(cluster)),
        "PHALANX_NOTICE_S": str(cluster.notice_s),
        "PHALANX_MAX_REQUEUES": str(cluster.max_requeues),
        "PHALANX_MAX_FAILURES": str(cluster.max_failures),
        "PHALANX_EXIT_POLICY": policy_lines(),
        "PHALANX_SETUP": "\n".join(cluster.setup),
        "PHALANX_CONTAINER": cluster.container or "",
        "PHALANX_MOUNTS": _mounts(cluster, submission) if cluster.container else "",
        **({"PYTHONPATH": ":".join(submission.path)} if submission.path else {}),
    }


def _asked(job: JobSpec) -> dict[str, str | None]:
    """The options of sbatch that a job sets itself, None where it leaves one out."""
    cluster = job.cluster
    cpus = cluster.cpus_per_task
    return {
        "job-name": job.name,
        "comment": job.submission.token,
        "output": _log(job.submission.folder, job.array),
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "nodes": str(cluster.nodes),
        "ntasks-per-node": "1",  # the launcher, which starts the ranks
        "cpus-per-task": str(cpus * ranks_per_node(cluster)) if cpus else None,
        "gpus-per-node": str(cluster.gpus_per_node) if cluster.gpus_per_node else None,
        "mem": cluster.mem,
        "time": cluster.time,
        "constraint": cluster.constraint,
        "signal": f"USR2@{cluster.notice_s}",
        "mail-user": cluster.mail,
        "mail-type": "END,FAIL,REQUEUE" if cluster.mail else None,
        "dependency": f"afterok:{job.after}" if job.after else None,
        "kill-on-invalid-dep": "yes" if job.after else None,
        "array": job.array,
        "export": "ALL",
        "open-mode": "append",  # a requeue goes on in the same log
    }


def _seconds(time: str) -> int:
    parts = _TIME.fullmatch(time)
    if parts is None:
        raise ConfigError(
            f"cluster.time={time} is no time. Type h:m:s or d-h:m:s, such as cluster.time=12:00:00 (to Slurm 12:00 would "
            "be twelve minutes)"
        )
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _log(folder: Path, array: str | None) -> str:
    if "\\" in str(folder):
        raise ConfigError(f"{folder} holds a backslash, which Slurm reads in a way of its own. Type run.root=… without")
    pattern = "slurm-%A_%a.out" if array else "slurm-%j.out"
    return f"{str(folder).replace('%', '%%')}/{pattern}"


def _mounts(cluster: ClusterConfig, submission: Submission) -> str:
    own = {str(path) for path in (submission.directory, submission.root, *map(Path, submission.path))}
    awkward = sorted(path for path in own if re.search(r"[,:]", path))
    if awkward:
        raise ConfigError(f"{awkward[0]} holds a comma or a colon, and the container could not mount it. Rename it")
    return ",".join([*(f"{path}:{path}" for path in sorted(own)), *cluster.mounts])
