"""Write files atomically (temporary file, fsync, rename) and read files without following links."""

import errno
import hashlib
import json
import math
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` by temporary file, fsync and rename: a reader sees the old file or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, default_mode())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, as_json(value))


def as_json(value: Any) -> str:
    """`value` as the text of a JSON file."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def finite(value: object) -> object:
    """`value` with every number that JSON cannot hold (nan, inf) replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file without following links and without blocking. Raises OSError for anything else."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return descriptor


def read_bytes(path: Path) -> bytes:
    """All bytes of a regular file. Raises OSError as `open_regular` does."""
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read()


def read_text(path: Path, limit_bytes: int = 2**26) -> str:
    """The text of a file. Raises OSError as `open_regular` does, ValueError if no UTF-8 or longer than `limit_bytes`."""
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise ValueError(f"{path} is larger than {limit_bytes} bytes")
    return content.decode()


def read_json(path: Path) -> Any:
    """The JSON value of a file; None if it is missing, unreadable or no JSON."""
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return None


def default_mode() -> int:
    """0o666 less the umask. Read from /proc, because os.umask() can only be read by setting it, for all threads."""
    facts = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 0o666 & ~int(facts["Umask"], 8)


def sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """fsync a folder, which makes renames and deletions in it durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
