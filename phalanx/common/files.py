"""Write files atomically (temporary file, fsync, rename) and read files without following links."""

import errno
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str) -> None:
    """Put `content` at `path` by rename; a reader sees the old file or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_whole(path, as_text(value))


def as_text(value: Any) -> str:
    """What a JSON file of ours holds."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def opened(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file, which waits for nobody and follows no link. Raises OSError for anything else."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return descriptor


def read_bytes(path: Path) -> bytes:
    """All of a regular file, however long. Raises OSError as `opened` does."""
    with os.fdopen(opened(path), "rb") as file:
        return file.read()


def read_text(path: Path, limit_bytes: int = 2**26) -> str:
    """What a file of somebody else's holds. Raises OSError as `opened` does, ValueError for no text or too much of it."""
    with os.fdopen(opened(path), "rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise ValueError(f"{path} is larger than {limit_bytes} bytes")
    return content.decode()


def read_json(path: Path) -> Any:
    """What a file holds; None where there is none that can be read."""
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return None


def mode() -> int:
    """What the umask leaves of a file that all may read. Asked of the system: to ask by setting it is no thread's to do."""
    facts = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 0o666 & ~int(facts["Umask"], 8)


def sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames and deletions in `folder` last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
