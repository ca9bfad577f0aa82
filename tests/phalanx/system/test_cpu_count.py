"""Ranks compute on as many threads as there are CPUs for them: a container's quota and a typed OMP_NUM_THREADS hold."""

import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.launch.host.machine import Machine
from phalanx.launch.local.plan import plan_start
from phalanx.system.cpu_count import quota, typed
from tests.ranks import ROOT, Starter

OWN_V2 = "0::/pods/one\n"
OWN_V1 = "5:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n3:memory:/docker/abc\n"
TREES = {
    "none": (OWN_V2, {"pods/one/cpu.max": "max 100000\n"}, None),
    "v2": (OWN_V2, {"pods/one/cpu.max": "400000 100000\n"}, 4),
    "v2 above": (OWN_V2, {"pods/cpu.max": "250000 100000\n", "pods/one/cpu.max": "max 100000\n"}, 2),
    "v2 the least": (OWN_V2, {"pods/cpu.max": "300000 100000\n", "pods/one/cpu.max": "800000 100000\n"}, 3),
    "v2 in its own namespace": ("0::/\n", {"cpu.max": "150000 50000\n"}, 3),
    "v2 less than one": (OWN_V2, {"pods/one/cpu.max": "50000 100000\n"}, 0),
    "v1": (
        OWN_V1,
        {
            "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "200000\n",
            "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
        },
        2,
    ),
    "v1 seen from within": (OWN_V1, {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "10000\n"}, 5),
    "v1 none": (OWN_V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
    "other controllers": ("3:memory:/a\n4:cpuset:/a\n", {"cpuset/a/cpu.max": "100000 100000\n"}, None),
    "nonsense": (OWN_V2, {"pods/one/cpu.max": "what?\n"}, None),
}


@pytest.mark.parametrize("tree", TREES)
def test_the_quota_is_that_of_the_container_and_of_what_it_lies_in(tree: str, tmp_path: Path) -> None:
    groups, files, expected = TREES[tree]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert quota(groups, tmp_path) == expected


def test_the_launcher_shares_the_quota() -> None:
    held = Machine(frozenset(range(64)), (), {}, quota=8)
    assert held.cpus == 8
    assert Machine(frozenset(range(4)), (), {}, quota=8).cpus == 4
    assert Machine(frozenset(range(4)), (), {}, quota=0).cpus == 1
    assert plan_start([], 2, [], held, {}, 1).environ["OMP_NUM_THREADS"] == "4"


AGENT = """
import os, subprocess, sys
os.environ.update(OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "1"), TORCHELASTIC_RUN_ID="none")
rank = "import os; from phalanx.system.cpu_count import typed; print(typed(os.environ))"
sys.exit(subprocess.run([sys.executable, "-c", rank]).returncode)
"""


@pytest.mark.parametrize(("typed_by_user", "found"), [({}, "None"), ({"OMP_NUM_THREADS": "1"}, "1")])
def test_the_1_that_torchrun_sets_is_not_the_users(typed_by_user: dict[str, str], found: str) -> None:
    agent = subprocess.run(
        [sys.executable, "-c", AGENT], env=typed_by_user, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert agent.stdout.strip() == found


@pytest.mark.parametrize(
    ("value", "found"), [("3", 3), ("3,2", 3), (" 4 ", 4), ("", None), ("many", None), ("0", None)]
)
def test_what_is_typed_is_read_as_openmp_does(value: str, found: int | None) -> None:
    assert typed({"OMP_NUM_THREADS": value}) == found


def test_a_typed_number_of_threads_holds_where_the_config_says_auto(starter: Starter) -> None:
    starter.train(
        1,
        *("data.train._target_=tests.zoo.datasets.Threaded", "~data.train.split", "+data.train.samples=8"),
        *("+data.train.threads=3", "data.eval=null", "data.augment=null", "train.epochs=1", "train.global_batch=8"),
        *("model=mlp", "model.inputs=12", "model.hidden=[8]", "train.threads=auto"),
        name="typed",
        environ={"OMP_NUM_THREADS": "3"},
    )
