"""Plans a start on this machine, as plain data: command and environment. A dry run prints exactly what is started."""

import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from phalanx.common.suggest import nearest
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.system.allocator import huge_pages
from phalanx.system.gpu_visibility import GIVEN
from phalanx.system.module_path import PACKAGE

from ..host.machine import Gpu, Machine, format_ranges
from . import exit_cause, nccl_traces

FOLDER = "phalanx-start-"  # prefix of a start's temporary folder


@dataclass(frozen=True)
class StartPlan:
    """The agent's command, and what its environment has in addition to the caller's."""

    argv: tuple[str, ...]
    environ: Mapping[str, str]

    def of_start(self, folder: Path, restarts: int, launch: str, environ: Mapping[str, str]) -> dict[str, str]:
        """What one start's environment has in addition to the plan's: `folder` is its own, empty and private.

        `launch` is the same for all starts of one launcher.
        """
        own = {
            name: value for name, value in nccl_traces.trace_variables(folder, environ).items() if name not in environ
        }
        told = {"PHALANX_RESTART_COUNT": str(restarts), "PHALANX_LAUNCH": launch}
        return {**own, **exit_cause.file_variables(folder), **told}

    def text(self, environ: Mapping[str, str]) -> str:
        """As a shell command, with what each start adds as comments."""
        added = self.of_start(Path(tempfile.gettempdir()) / f"{FOLDER}XXXXXXXX", 0, "XXXXXXXX", environ)
        comments = [f"# each start: {name}={shlex.quote(value)}\n" for name, value in added.items()]
        assigned = [f"{name}={shlex.quote(value)}" for name, value in self.environ.items()]
        return "".join(comments) + " \\\n".join([*assigned, shlex.join(self.argv)])


def plan_start(
    words: Sequence[str],
    ranks: int | None,
    gpus: Sequence[Gpu],
    machine: Machine,
    environ: Mapping[str, str],
    grace_s: int,
) -> StartPlan:
    """Start `train/main.py words` on `ranks`, where that is None on one rank a GPU of `gpus` or on one without any.

    What `environ` has already is kept. Raises ConfigError where the GPUs cannot serve as many ranks.
    """
    size = ranks or len(gpus) or 1
    if size > 1 and any(gpu.slice for gpu in gpus):
        raise ConfigError(
            f"{size} ranks on slices of a GPU (MIG): CUDA shows a process one slice alone, and NCCL joins none. Type -n 1"
        )
    added = {
        "OMP_NUM_THREADS": str(max(1, machine.cpus // size)),
        **huge_pages(environ),
    }
    if gpus:
        added |= _NCCL
    added = {
        name: value for name, value in added.items() if name not in environ and _OLDER.get(name, name) not in environ
    }
    if gpus:
        added |= {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in gpus), GIVEN: str(len(gpus))}
    argv = [
        *(sys.executable, "-u", str(PACKAGE), "-m", "launch.local.agent", f"--ranks={size}", f"--grace={grace_s}"),
        *([f"--cores={beside}"] if (beside := _beside(gpus[:size], machine)) else []),
        *(str(PACKAGE / "train" / "main.py"), *words),
    ]
    return StartPlan(tuple(argv), added)


# Variables that only NCCL's process group reads.
_NCCL = {
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",  # as torch does by itself: 1 aborts before traces are read
    "TORCH_FR_BUFFER_SIZE": "2000",  # collectives that the flight recorder remembers
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
}
_OLDER = {  # deprecated names that torch still reads
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "NCCL_ASYNC_ERROR_HANDLING",
    "TORCH_FR_BUFFER_SIZE": "TORCH_NCCL_TRACE_BUFFER_SIZE",
}


def _beside(gpus: Sequence[Gpu], machine: Machine) -> str:
    """For each rank the cores beside its GPU; empty where there is no choice, or where none of them is this process's."""
    cores = [machine.nodes.get(gpu.node, frozenset()) & machine.cores for gpu in gpus]
    if len(machine.nodes) < 2 or not all(cores):
        return ""
    return ":".join(format_ranges(each) for each in cores)


def replay_words(source: Path, words: Sequence[str]) -> list[str]:
    """The words that replay the config of the run folder `source`. Raises ConfigError when it is none."""
    if clash := [word for word in words if word.startswith(("--config-dir", "--config-name"))]:
        raise ConfigError(f"--from={source} and {clash[0]} both say where the config is. Leave one of them out")
    if not (source / names.RESOLVED).is_file():
        raise ConfigError(_no_run(source))
    return [f"--config-dir={source}", "--config-name=resolved", *words]


def _no_run(source: Path) -> str:
    what = f"is no run folder: it has no {names.RESOLVED}" if source.exists() else "does not exist"
    beside = source if source.is_dir() else source.parent
    there = sorted(str(found.parent) for found in beside.glob(f"*/{names.RESOLVED}"))
    if not there:
        return f"--from={source} {what}. There is none beside it"
    more = f" and {len(there) - 3} more" if there[3:] else ""
    return f"--from={source} {what}. {nearest(str(source), there)}There is {', '.join(there[:3])}{more}"
