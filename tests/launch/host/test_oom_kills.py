"""A process that the kernel killed for memory ends the run with code 6, wherever that is written down."""

from pathlib import Path

import pytest

from phalanx.exit.codes import ExitCode
from phalanx.launch.host.oom_kills import kills
from phalanx.launch.local.exit_cause import ExitCause, cause_with_oom_kills


def system(folder: Path, cgroup: str, files: dict[str, str]) -> tuple[Path, Path]:
    for name, content in {"proc/self/cgroup": cgroup, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder / "proc", folder / "cgroups"


@pytest.mark.parametrize(
    ("cgroup", "files", "count"),
    [
        ("0::/job\n", {"cgroups/job/memory.events": "low 0\noom 3\noom_kill 2\n"}, 2),
        ("0::/host/path\n", {"cgroups/memory.events": "oom_kill 4\n"}, 4),  # within a container
        (
            "5:cpu:/\n4:memory:/job\n0::/\n",
            {"cgroups/memory/job/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"},
            7,
        ),
        ("0::/\n", {"proc/vmstat": "nr_free_pages 5\noom_kill 1\n"}, 1),
        ("", {}, 0),
    ],
    ids=["version 2", "version 2 in a container", "version 1", "no group", "nothing is told"],
)
def test_kernel_is_asked_where_it_counts(tmp_path: Path, cgroup: str, files: dict[str, str], count: int) -> None:
    assert kills(*system(tmp_path, cgroup, files)) == count


def test_kill_for_memory_is_the_cause_where_no_better_one_is_known() -> None:
    killed = ExitCause(ExitCode.BUG, "rank 1 was killed by SIGKILL", said=False)
    found = cause_with_oom_kills(killed, 1)
    assert found.code == ExitCode.OUT_OF_MEMORY
    assert not found.worth_a_restart
    assert "rank 1 was killed by SIGKILL; the kernel killed 1 process" in found.message
    assert "train.micro_batch" in found.message
    assert cause_with_oom_kills(killed, 0) == killed
    gave_up = ExitCause(ExitCode.GAVE_UP, "", said=True)
    assert cause_with_oom_kills(gave_up, 3) == gave_up
