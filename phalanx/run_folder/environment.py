"""Describe versions, hardware and the git state of the code behind a run, as plain JSON."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from ..common.redaction import redact, redact_argv, secrets_of
from ..system.git import git
from ..system.nvml import driver_version

GIT_TIMEOUT_S = 5.0
DIFF_LIMIT_BYTES = 2**20
PACKAGES_NAMED = 8

_VARIABLES = re.compile(
    r"(NCCL|TORCH|TORCHELASTIC|PYTORCH|GLOO|CUDA|CUDNN|CUBLAS|NVIDIA|OMP|MKL|KMP|OPENBLAS|UCX|FI)_\w+"
    r"|PHALANX_JOB(_RESTARTS)?|SLURM_(JOB_ID|JOB_PARTITION|NNODES|NTASKS|CPUS_PER_TASK|GPUS_ON_NODE|RESTART_COUNT)"
    r"|WORLD_SIZE|LOCAL_WORLD_SIZE|PYTHONHASHSEED|LD_PRELOAD"
)
_COMPARED = {
    "python": "Python",
    "torch": "torch",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "nccl": "NCCL",
    "driver": "GPU driver",
    "gpus": "GPUs",
    "cpu": "CPU",
    "cores": "CPU cores",
}
_DIFF = (  # runs no command of the checkout's config
    *("diff", "--no-ext-diff", "--no-textconv", "--submodule=short", "--ignore-submodules=dirty"),
    *("--no-color", "--no-relative", "--src-prefix=a/", "--dst-prefix=b/", "HEAD", "--"),
)


def describe(argv: Sequence[str], environ: Mapping[str, str], root: Path) -> dict[str, Any]:
    """What is about to run, as JSON without secrets; `root` lies in the checkout to describe.

    Memory is in GiB. What a machine lacks is None (`git`, `driver`, `cuda`) or empty (`gpus`). Call it on one rank, after
    it has set its device: asking for a GPU's name initialises CUDA.
    """
    secrets = secrets_of(environ)
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "command": redact(redact_argv(argv), secrets),
        "directory": redact(os.getcwd(), secrets),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **_torch(),
        **_processor(),
        "packages": _packages(sys.path),
        "git": redact(_checkout(root, environ), secrets),
        "environment": redact({k: v for k, v in sorted(environ.items()) if _VARIABLES.fullmatch(k)}, secrets),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each version or piece of hardware that is another than before; code, time and place don't count."""
    lines = [
        f"{label}: {_shown(before[key])} before, {_shown(now.get(key))} now"
        for key, label in _COMPARED.items()
        if key in before and before[key] != now.get(key)
    ]
    return lines + _package_differences(before.get("packages", {}), now.get("packages", {}))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        counts = Counter(f"{gpu['name']} ({gpu['memory_gib']} GiB)" for gpu in value)
        return ", ".join(f"{count} x {name}" for name, count in counts.items()) or "none"
    return "none" if value is None else str(value)


def _package_differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names = sorted((before.keys() & now.keys()) - {"torch"})  # torch has its own line
    moved = [f"{name} {before[name]} -> {now[name]}" for name in names if before[name] != now[name]]
    rest = len(moved) - PACKAGES_NAMED
    more = f" and {rest} more" if rest > 0 else ""
    return [f"packages: {', '.join(moved[:PACKAGES_NAMED])}{more}"] if moved else []


def _torch() -> dict[str, Any]:
    torch: Any = import_module("torch")  # here, for those who only compare; Any, for its version functions are untyped
    with_gpu = torch.cuda.is_available()
    with_nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    gpus = range(torch.cuda.device_count()) if with_gpu else ()
    return {
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "cudnn": _cudnn(torch) if with_gpu else None,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if with_nccl else None,
        "driver": driver_version() if with_gpu else None,
        "gpus": [_gpu(torch.cuda.get_device_properties(index)) for index in gpus],
    }


def _cudnn(torch: Any) -> int | None:
    """The version of the cuDNN found, 92100 for 9.21.0; loading the library takes 0.1 s from a cold disk."""
    try:
        version: int | None = torch.backends.cudnn.version()
    except RuntimeError:  # not the one torch was built with, or too new for the GPU; a model may do without it
        return None
    return version


def _gpu(properties: Any) -> dict[str, Any]:
    return {
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
    }


def _processor() -> dict[str, Any]:
    return {
        "cpu": _cpu_model(Path("/proc/cpuinfo")) or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }


def _cpu_model(cpuinfo: Path) -> str | None:
    try:
        with cpuinfo.open() as lines:  # read no further than needed: the kernel asks each core for its part
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
    except OSError:
        return None


def _packages(folders: Iterable[str]) -> dict[str, str]:
    """Normalised name -> version of each distribution, the first on the path counting, as in an import.

    The folders' names say it all; parsing each METADATA file, as importlib.metadata does, takes 40 times longer.
    """
    versions: dict[str, str] = {}
    for name, version in (found for folder in folders for found in _distributions(Path(folder))):
        versions.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return dict(sorted(versions.items()))


def _distributions(folder: Path) -> Iterator[tuple[str, str]]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # a path entry may be absent, a zip file or unreadable; imports pass over it, too
        return
    for entry in (name for name in names if name.endswith((".dist-info", ".egg-info")) and name[0] != "~"):
        stem = re.sub(r"(-py\d[\d.]*)?\.[a-z]+-info$", "", entry)
        name, dash, version = stem.rpartition("-")
        yield (name, version) if dash else (stem, _egg_version(folder / entry / "PKG-INFO"))


def _egg_version(info: Path) -> str:
    """The version that the folder name of a source checkout's egg-info leaves out."""
    text = info.read_text("utf-8", errors="replace") if info.is_file() else ""
    found = re.search(r"^Version: *(\S+)", text, re.MULTILINE)
    return found[1] if found else "unknown"


def _checkout(root: Path, environ: Mapping[str, str]) -> dict[str, Any] | None:
    """The git checkout that holds `root`, or None where there is none, no git, no commit yet or one that git refuses.

    `branch` is None where HEAD is detached. `diff` and `dirty` speak of tracked files alone (a listing of all others
    could walk a whole data folder) and are None where git took longer than `GIT_TIMEOUT_S`. No filter runs: a touched
    LFS file counts as changed.
    """
    commit = _git(root, environ, {}, "rev-parse", "--verify", "--quiet", "HEAD")
    if commit is None:
        return None
    # Not `--abbrev-ref`, whose answer is another one or none where a tag or another branch is called the same.
    head = _git(root, environ, {}, "symbolic-ref", "--quiet", "HEAD")
    branch = None if head is None else head.strip("\n").removeprefix("refs/heads/")
    diff = _diff(root, environ)
    dirty = None if diff is None else diff != ""
    return {"commit": commit.strip("\n"), "branch": branch, "dirty": dirty, "diff": diff}


def _diff(root: Path, environ: Mapping[str, str]) -> str | None:
    listed = _git(root, environ, {}, "config", "--list", "--name-only", "--null")
    if listed is None:
        return None
    filters = [name for name in listed.split("\0") if name.startswith("filter.")]
    if any("=" in name for name in filters):  # `-c` would split it elsewhere and leave the filter on
        return None
    return _git(root, environ, dict.fromkeys(filters, ""), *_DIFF)


def _git(root: Path, environ: Mapping[str, str], settings: Mapping[str, str], *arguments: str) -> str | None:
    """What git prints, cut with a note after the last whole line within `DIFF_LIMIT_BYTES`; None where it fails."""
    output = git(root, environ, *arguments, settings=settings, timeout_s=GIT_TIMEOUT_S, limit_bytes=DIFF_LIMIT_BYTES)
    if output is not None and len(output) > DIFF_LIMIT_BYTES:
        whole_lines = output[:DIFF_LIMIT_BYTES].rpartition(b"\n")[0]  # half a line could end in half a secret
        return whole_lines.decode(errors="replace") + f"\n[cut: more than {DIFF_LIMIT_BYTES} bytes]\n"
    return None if output is None else output.decode(errors="replace")
