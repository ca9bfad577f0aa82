"""Phalanx runs on Linux only, and says so before it imports what other systems do not have."""

import sys

from .codes import ExitCode


def require_linux() -> None:
    """End with code 2 and a line on any other system."""
    if sys.platform != "linux":
        print(
            f"error: Phalanx runs on Linux only, and this is {sys.platform}. On Windows type it in WSL", file=sys.stderr
        )
        sys.exit(ExitCode.CONFIG)
