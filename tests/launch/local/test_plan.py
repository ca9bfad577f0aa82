"""What is run follows from what is asked, what the machine has and what the user has set; a dry run prints exactly that."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.launch.host.machine import Gpu, Machine, format_ranges, parse_ranges
from phalanx.launch.local.plan import plan_start
from phalanx.system.allocator import huge_pages
from tests.launch.command import Launcher, marked
from tests.ranks import ROOT

SIXTEEN = frozenset(range(16))
MACHINE = Machine(SIXTEEN, (), {0: frozenset(range(8)), 1: frozenset(range(8, 16))})
GPUS = (Gpu("GPU-a", 0, slice=False), Gpu("GPU-b", 1, slice=False))
ODD = [
    "a=b c",
    "a='b'",
    'a="b"',
    "a=$(touch x)",
    "a=b\nc",
    "a=$$",
    "a=${local_rank}",
    "a=$HOME",
    "~a",
    "+a.b@c=",
    "a=é\\",
]


@pytest.mark.parametrize(("ranks", "threads"), [(1, "16"), (3, "5"), (16, "1"), (40, "1")])
def test_ranks_share_the_cores(ranks: int, threads: str) -> None:
    assert plan_start([], ranks, [], MACHINE, {}, 1).environ["OMP_NUM_THREADS"] == threads


def test_what_the_user_has_set_is_kept_also_under_an_older_name() -> None:
    set_already = {"OMP_NUM_THREADS": "7", "TORCH_NCCL_DUMP_ON_TIMEOUT": "0", "TORCH_NCCL_TRACE_BUFFER_SIZE": "9"}
    assert plan_start([], None, GPUS, MACHINE, set_already, 5).environ == {
        **huge_pages({}),
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",
        "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b",
        "PHALANX_GPUS": "2",
    }


def test_without_gpus_nothing_is_said_about_nccl() -> None:
    assert plan_start([], 2, [], MACHINE, {}, 9).environ == {
        "OMP_NUM_THREADS": "8",
        **huge_pages({}),
    }


def test_with_gpus_there_is_a_rank_for_each() -> None:
    planned = plan_start([], None, GPUS, MACHINE, {"CUDA_VISIBLE_DEVICES": "0,1"}, 9)
    assert "--ranks=2" in planned.argv
    assert planned.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert planned.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "3"
    assert planned.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "1"
    assert planned.environ["TORCH_FR_BUFFER_SIZE"] == "2000"


@pytest.mark.parametrize(
    ("machine", "gpus", "cores"),
    [
        (MACHINE, GPUS, ["--cores=0-7:8-15"]),
        (MACHINE, (), []),
        (Machine(SIXTEEN, (), {0: SIXTEEN}), GPUS[:1], []),
        (Machine(frozenset(range(8)), (), MACHINE.nodes), GPUS, []),  # no core beside GPU-b is ours
        (Machine(frozenset(range(2, 8)), (), MACHINE.nodes), GPUS[:1], ["--cores=2-7"]),
    ],
)
def test_ranks_keep_to_the_cores_beside_their_gpu_where_that_can_be_done(
    machine: Machine, gpus: tuple[Gpu, ...], cores: list[str]
) -> None:
    argv = plan_start([], None, gpus, machine, {}, 1).argv
    assert [word for word in argv if word.startswith("--cores")] == cores


def test_ranges_are_read_as_the_kernel_writes_them() -> None:
    assert parse_ranges("0-2,5,8-9\n") == parse_ranges(format_ranges([0, 1, 2, 5, 8, 9])) == [0, 1, 2, 5, 8, 9]
    assert parse_ranges("\n") == parse_ranges(format_ranges([])) == []


def test_each_rank_keeps_to_its_own_cores(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    each = [cores[0], cores[-1]]
    script = tmp_path / "script.py"
    script.write_text("import os, sys\nopen(sys.argv[1] + os.environ['RANK'], 'w').write(str(os.sched_getaffinity(0)))")
    agent = [
        sys.executable,
        str(ROOT / "phalanx"),
        "-m",
        "launch.local.agent",
        "--ranks=2",
        "--grace=1",
        f"--cores={each[0]}:{each[1]}",
    ]
    environ = {**os.environ, "PYTHON_EXEC": sys.executable}
    subprocess.run([*agent, str(script), f"{tmp_path}/rank-"], env=environ, check=True)
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in range(2)] == [str({core}) for core in each]


def test_words_reach_ranks_as_they_were_typed(launcher: Launcher) -> None:
    tell = "tell('argv', json.dumps(sys.argv))\nfor name in ('MASTER_ADDR', 'TORCH_ELASTIC_SHUTDOWN_TIMEOUT'): "
    started = launcher.start("run", "--grace", "77", *ODD, body=f"{tell}tell(name, os.environ[name])")
    assert started.wait() == (0, "")
    assert started.told("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", 0) == "77", "so that a rank warns of a save that takes longer"
    assert started.told("MASTER_ADDR", 0) == "127.0.0.1", "ranks of one machine meet on its loopback"
    assert json.loads(started.told("argv", 0))[3:] == ODD


def test_a_dry_run_prints_exactly_what_is_run(launcher: Launcher) -> None:
    """The command, and all that its environment has beside the caller's."""
    unset = {"OMP_NUM_THREADS": None}
    code, text = launcher.run("run", "--dry-run", "-n", "2", *ODD, environ=unset)
    assert code == 0
    started = launcher.start("run", "-n", "2", *ODD, body="hear()\nsys.exit(7)", environ=unset)
    started.ready(2)
    argv, environ = argv_and_environ(started.agent)
    _, callers = argv_and_environ(started.process.pid)
    started.process.terminate()
    started.wait()
    added = {name: value for name, value in environ.items() if callers.get(name) != value}
    comments, first, rest = text.partition("OMP_NUM_THREADS=")
    *assigned, command = (first + rest).removesuffix("\n").split(" \\\n")
    assert shlex.split(command) == argv
    plain = dict(word.split("=", 1) for line in assigned for word in shlex.split(line))
    assert plain.items() <= added.items()
    of_each_start = {line.removeprefix("# each start: ").partition("=")[0] for line in comments.splitlines()}
    assert of_each_start == added.keys() - plain.keys()


def argv_and_environ(pid: int) -> tuple[list[str], dict[str, str]]:
    argv, environ = (Path(f"/proc/{pid}/{name}").read_text().split("\0")[:-1] for name in ("cmdline", "environ"))
    return argv, dict(entry.split("=", 1) for entry in environ)


def test_a_dry_run_can_be_pasted_into_a_shell(launcher: Launcher) -> None:
    _, text = launcher.run("run", "--dry-run", *ODD)
    shell = f"{shlex.quote(sys.executable)} -c 'import json, sys; print(json.dumps(sys.argv[1:]))'"
    pasted = subprocess.run(
        ["sh", "-c", text.replace(f"{sys.executable} ", f"{shell} ", 1)], capture_output=True, text=True, check=True
    )
    assert json.loads(pasted.stdout)[-len(ODD) :] == ODD


def test_a_dry_run_starts_nothing(launcher: Launcher) -> None:
    launcher.run("run", "--dry-run", body="tell('started')")
    assert not marked(launcher.mark)
    assert sorted(path.name for path in (launcher.folder / "start-0").iterdir()) == ["rank"]
