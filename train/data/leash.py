"""Imported by the server that data workers are forked from, and by nothing else: each ends when that server does.

The server ends with its rank. A worker that is still at its data set's imports, or is stuck, would not look.
"""

import os
import signal

from train.orphan import end_with_parent

os.register_at_fork(after_in_child=lambda: end_with_parent(signal.SIGKILL))
