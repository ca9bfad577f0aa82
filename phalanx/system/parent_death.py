"""Signal a process when its parent dies (PR_SET_PDEATHSIG), also while it imports torch for seconds."""

import ctypes
import os
import signal
from collections.abc import Mapping

_PR_SET_PDEATHSIG = 1


def end_with_parent(heard: signal.Signals) -> None:
    """Send this process `heard` when the thread that started it ends."""
    prctl(_PR_SET_PDEATHSIG, heard)


def end_with(parent: int, heard: signal.Signals) -> None:
    """As `end_with_parent`, of the process `parent`; where that is gone already, this one ends here."""
    end_with_parent(heard)
    if os.getppid() != parent:  # it died before that took effect
        os._exit(1)


def prctl(option: int, value: int) -> None:
    """Linux's prctl. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def end_with_launcher(environ: Mapping[str, str]) -> None:
    """SIGTERM this rank when torchrun dies. A rank that a shell started may outlive the shell."""
    if "TORCHELASTIC_RUN_ID" in environ:
        end_with_parent(signal.SIGTERM)
