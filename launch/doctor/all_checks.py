"""The list of checks, in their order: cheap ones first, then those that need what the first ones checked."""

from pathlib import Path

from .checks.allreduce import AllReduce
from .checks.clocks import Clocks
from .checks.gpu.copies import HostToDevice
from .checks.gpu.health import Gpus
from .checks.gpu.matmul import Matmul
from .checks.listeners import Listeners
from .checks.pairs import Pairs
from .checks.ports import Ports
from .checks.resource_limits import ResourceLimits
from .checks.shared_folder import SharedFolder
from .checks.tracker_server import TrackerServer
from .checks.tracking import Tracking
from .checks.versions import Versions
from .protocol.check import Check
from .protocol.group import Group
from .protocol.ranks import DoctorRanks


def all_checks(ranks: DoctorRanks, folder: Path) -> list[Check]:
    """The same for one rank as for many: a check that takes two ranks says that it was not checked."""
    trackers = (
        Tracking(),
        TrackerServer("MLflow", "MLFLOW_TRACKING_URI"),
        TrackerServer("trackio", "TRACKIO_SERVER_URL"),
    )
    return [
        *(Versions(), ResourceLimits(), Gpus(), Ports(), Listeners(), SharedFolder(folder), *trackers),
        *(Matmul(), HostToDevice(), Group(), Clocks(), AllReduce(), Pairs()),
    ]
