"""Save checkpoints in a process that is killed just before its n-th change of the file system, for every n in turn.

Run as a program: each n has a folder of its own, named by it, below the one given. Nothing here imports torch, so that
forking is cheap and safe.
"""

import itertools
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phalanx.run_folder.checkpoints import Checkpoints

ROOT = Path(__file__).resolve().parents[3]
KEEP, BEST = 2, 2
STEPS = range(1, 6)
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "shutil.rmtree"}
FILES = {"model.safetensors": b"weights", "state.pt": b"state", "progress.json": b"{}"}


def save(run: Path, step: int) -> None:
    from phalanx.run_folder.checkpoints import Checkpoints

    checkpoints = Checkpoints(run)
    commit(checkpoints, step)
    (run / f"said_{step}").touch()
    checkpoints.retain(KEEP, BEST if step >= BEST else None)


def commit(checkpoints: "Checkpoints", step: int) -> None:
    staging = checkpoints.staging(step)
    staging.mkdir(parents=True)
    for name, content in FILES.items():
        (staging / name).write_bytes(content + str(step).encode())
    checkpoints.commit(step, {"config_digest": "d", "best_step": BEST})


def crash_at_every_change(folder: Path) -> None:
    import phalanx.run_folder.checkpoints  # noqa: F401 - once, and not in each process that is forked

    for n in itertools.count():
        pid = os.fork()
        if pid == 0:
            try:
                _save_all_but_die(folder / str(n), n)
                os._exit(0)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code == 0:
            return
        assert code == -signal.SIGKILL, code


def _save_all_but_die(run: Path, last: int) -> None:
    changes = itertools.count()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and str(run) in _where(event, arguments) and next(changes) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    run.mkdir()
    sys.addaudithook(hook)
    for step in STEPS:
        save(run, step)


def _where(event: str, arguments: tuple[Any, ...]) -> str:
    """The path of an event; that of a deletion may be relative to a descriptor of its folder."""
    relative = event in ("os.remove", "os.rmdir") and arguments[1] >= 0
    return f"{os.readlink(f'/proc/self/fd/{arguments[1]}')}/{arguments[0]}" if relative else str(arguments[0])


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    crash_at_every_change(Path(sys.argv[1]))
