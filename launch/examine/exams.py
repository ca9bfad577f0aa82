"""Which examinations there are, in their order: what costs nothing first, then what a wrong answer there would spoil."""

from pathlib import Path

from launch.examine.allreduce import AllReduce
from launch.examine.cards import Cards
from launch.examine.clocks import Clocks
from launch.examine.company import Company
from launch.examine.copies import HostToDevice
from launch.examine.exam import Exam
from launch.examine.folder import Folder
from launch.examine.group import Group
from launch.examine.limits import Limits
from launch.examine.listeners import Listeners
from launch.examine.matmul import Matmul
from launch.examine.pairs import Pairs
from launch.examine.ports import Ports
from launch.examine.tracking import Tracking
from launch.examine.versions import Versions


def exams(company: Company, folder: Path) -> list[Exam]:
    """Those of one rank are the same as those of many: what takes two says that it was not checked."""
    return [
        *(Versions(), Limits(), Cards(), Ports(), Listeners(), Folder(folder), Tracking()),
        *(Matmul(), HostToDevice(), Group(), Clocks(), AllReduce(), Pairs()),
    ]
