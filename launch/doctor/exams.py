"""Which examinations there are, in their order: what costs nothing first, then what a wrong answer there would spoil."""

from pathlib import Path

from .checks.allreduce import AllReduce
from .checks.clocks import Clocks
from .checks.folder import Folder
from .checks.gpu_copies import HostToDevice
from .checks.gpus import Cards
from .checks.limits import Limits
from .checks.listeners import Listeners
from .checks.matmul import Matmul
from .checks.pairs import Pairs
from .checks.ports import Ports
from .checks.tracking import Tracking
from .checks.versions import Versions
from .protocol.exam import Exam
from .protocol.group import Group
from .protocol.ranks import Company


def exams(company: Company, folder: Path) -> list[Exam]:
    """Those of one rank are the same as those of many: what takes two says that it was not checked."""
    return [
        *(Versions(), Limits(), Cards(), Ports(), Listeners(), Folder(folder), Tracking()),
        *(Matmul(), HostToDevice(), Group(), Clocks(), AllReduce(), Pairs()),
    ]
