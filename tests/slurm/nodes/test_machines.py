"""Several machines without Slurm: torchrun on each, typed by hand. The cluster's nodes are the machines."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.paced_task import TASK, Pace
from tests.ranks import QUIET, ROOT, SMALL, Results, Starter, quoted, until
from tests.slurm.slurm_lab import Cluster

pytestmark = pytest.mark.xdist_group("slurm, disturbed")

RUN = (TASK, "model=mlp", "model.hidden=[8]", "train.steps=20", "log.every=1", "world.timeout_s=10")


class Machines:
    """A torchrun with one rank on each of two nodes."""

    def __init__(self, cluster: Cluster, folder: Path, pace: Pace) -> None:
        self._outputs = [folder / f"output-{number}" for number in (1, 2)]
        self._started = [self._start(cluster, folder, pace, number) for number in (1, 2)]

    def _start(self, cluster: Cluster, folder: Path, pace: Pace, number: int) -> "subprocess.Popen[bytes]":
        words = (f"run.root={quoted(str(folder / 'runs'))}", "run.name=r", *SMALL, *RUN)
        world = (
            "--nnodes=2",
            f"--node-rank={number - 1}",
            "--nproc-per-node=1",
            "--master-addr=n1",
            "--master-port=9000",
        )
        environ = {**QUIET, **pace.environ(), "PYTHONPATH": str(ROOT)}
        settings = (f"{name}={value}" for name, value in environ.items())
        command = (sys.executable, "-m", "torch.distributed.run", *world, str(ROOT / "train" / "main.py"), *words)
        return cluster.start_on(number, self._outputs[number - 1], "env", *settings, *command)

    def wait(self) -> list[tuple[int, str]]:
        """Each machine's exit code and output."""
        codes = [process.wait() for process in self._started]
        return [(code, output.read_text()) for code, output in zip(codes, self._outputs, strict=True)]

    def close(self) -> None:
        for process in self._started:
            process.terminate()
            process.wait()


def test_two_machines_train_the_weights_of_one(cluster: Cluster, starter: Starter, tmp_path: Path) -> None:
    pace = Pace(after=20, gate="/nowhere")
    here = starter.train(2, *RUN, name="here", environ=pace.environ())
    with closing(Machines(cluster, tmp_path, pace)) as machines:
        ended = machines.wait()
    assert [code for code, _ in ended] == [0, 0], ended
    assert Results(tmp_path / "runs" / "r").sha256 == here.sha256


def test_cut_cable_is_noticed_and_the_lost_machine_named(cluster: Cluster, tmp_path: Path) -> None:
    pace = Pace(after=9, gate=str(tmp_path / "gate"))
    metrics = tmp_path / "runs" / "r" / "metrics.jsonl"
    with closing(Machines(cluster, tmp_path, pace)) as machines:
        until(lambda: metrics.exists() and '{"step":9,' in metrics.read_text())
        cluster.command("cut-node", "2")
        pace.open()
        (first, said), (second, _) = machines.wait()
    assert (first, second) == (1, 1)
    assert "rank 1 on n2 did not take part in time" in said
