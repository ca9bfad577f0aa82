"""Imported in the fork server of data workers: it is killed when its rank dies (PR_SET_PDEATHSIG), and they with it.

A worker that still imports, or is stuck and holds the interpreter's lock, would not see that its rank is gone.

Garbage collection is disabled in the server, and frozen objects are not scanned in workers: a collection while torch is
imported takes half a second, and would copy pages that all share.
"""

import atexit
import gc
import os
import signal

from phalanx.system.parent_death import end_with_parent


def _begin() -> None:
    end_with_parent(signal.SIGKILL)
    gc.freeze()
    gc.enable()


end_with_parent(signal.SIGKILL)
gc.disable()
atexit.register(os._exit, 0)  # the server has nothing to tidy up at its end, and to free torch takes half a second
os.register_at_fork(after_in_child=_begin)
