"""Remove temporary files and semaphores that killed ranks left on this machine.

Their names hold pid, process start and machine. Files with other names, of other users, or of live processes are not
touched.
"""

import atexit
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import process
from pathlib import Path

from ..system.process_identity import machine_id, process_start
from . import names

_NAME = re.compile(r"(?:sem\.)?phalanx-([0-9a-f]{8})-(\d+)-(\d+)-.*")
_LOOKS = (".look-*", ".now-*")  # files that phalanx/run_folder/lease.py makes for a moment
_OLD_S = 60.0


def sweep_and_mark(shared: Path = Path("/dev/shm")) -> None:
    """Remove leftovers, and give multiprocessing's temporary names of this process the prefix `process_prefix`."""
    for path in _dead(Path(tempfile.gettempdir()), shared):
        _remove(path)
    names = process.current_process()._config  # type: ignore[attr-defined]  # where multiprocessing keeps both names
    if "phalanx" not in names["semprefix"]:
        names["semprefix"] = f"/{process_prefix()}"
        names["tempdir"] = tempfile.mkdtemp(prefix=process_prefix())
        atexit.register(shutil.rmtree, names["tempdir"], ignore_errors=True)


def process_prefix() -> str:
    """The prefix of temporary files that are to be removed after this process, however it ends."""
    return f"phalanx-{_here()}-{os.getpid()}-{process_start(os.getpid())}-"


def sweep_run(run: Path) -> None:
    """Remove old probe files in lease/, and files that a killed start had begun to write.

    Only the holder of the lease calls it.
    """
    begun = (f".{name}.*" for name in (names.RESOLVED, names.ENVIRONMENT, names.SUMMARY))
    for pattern in (*begun, f"{names.PREDICTIONS}/.*", f"{names.SHOWN}/*/.*"):
        for path in run.glob(pattern):
            with suppress(OSError):
                path.unlink()
    for pattern in _LOOKS:
        for path in (run / names.LEASE).glob(pattern):
            with suppress(OSError):
                if time.time() - path.lstat().st_mtime > _OLD_S:
                    path.unlink()


def _dead(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                found = _NAME.fullmatch(entry.name)
                if found is None or entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                    continue
                if found[1] == _here() and process_start(int(found[2])) != int(found[3]):
                    yield Path(entry.path)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _here() -> str:
    return hashlib.sha256(machine_id().encode()).hexdigest()[:8]
