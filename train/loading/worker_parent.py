"""Preloaded by the fork server of data workers: each worker ends when that server does.

The server ends with its rank. A worker that is still at its data set's imports, or is stuck, would not look.

Garbage is collected in workers alone, and what they share with the server is not looked at: collecting while torch is
imported takes half a second, and would copy memory that is the same in all of them.
"""

import gc
import os
import signal

from phalanx.system.parent_death import end_with_parent


def _begin() -> None:
    end_with_parent(signal.SIGKILL)
    gc.freeze()
    gc.enable()


gc.disable()
os.register_at_fork(after_in_child=_begin)
