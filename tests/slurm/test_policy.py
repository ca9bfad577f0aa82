"""Which starts are followed by another. The launcher is a stand-in that ends as it is told; all the rest is real."""

import json
import sys
from collections.abc import Mapping

import pytest

from tests.ranks import ROOT, quoted
from tests.slurm.slurm_lab import Desk, LabJob, first_on_path, program

AGAIN = "[[ -z ${SLURM_RESTART_COUNT:-} ]] || exit 0\n"  # all is well at the second start


def cause(code: int, message: str = "") -> str:
    """What the ranks leave when they end with `code`, and how torchrun ends then."""
    told = json.dumps({"code": code, "rank": 0, "host": "HOST", "message": message})
    hosts = 'scontrol show hostnames "$SLURM_JOB_NODELIST"'
    spelt = f"s/HOST/$(hostname).cluster.example/; s/LAST/$({hosts} | tail -n 1)/"
    return f"""echo '{told}' | sed "{spelt}" >"$PHALANX_CAUSE_FILE"; exit 1"""


PASSING = {
    "preempted": cause(3),
    "hung": cause(5),
    "a bug": cause(1, 'said "code": 7 and died'),
    "killed": "kill -KILL $$",
    "no word": "exit 1",
}
NEVER = {2: "bad config", 4: "gave up", 6: "out of memory", 7: "stopped by a person"}


def submit(
    desk: Desk, name: str, act: str, *words: str, nodes: int = 1, environ: Mapping[str, str] | None = None
) -> LabJob:
    """A job whose launcher does `act`."""
    program(desk.folder / name, "python", act)
    line = f'PHALANX_PYTHON="{desk.folder}/{name}/python"'
    return desk.submit(
        f"cluster.setup=[{quoted(line)}]",
        "cluster.ranks_per_node=1",
        f"cluster.nodes={nodes}",
        f"run.name={name}",
        *words,
        environ=environ,
    )


def ended(job: LabJob, state: str) -> tuple[str, str]:
    """How often it was requeued, and exit code:signal."""
    job.until_state(state)
    facts = job.cluster.facts(job.job)
    return facts["Restarts"], facts["ExitCode"]


def test_start_that_another_may_get_past_is_requeued(desk: Desk) -> None:
    jobs = {name: submit(desk, name, AGAIN + act) for name, act in PASSING.items()}
    assert {name: ended(job, "COMPLETED") for name, job in jobs.items()} == dict.fromkeys(PASSING, ("1", "0:0"))


def test_start_that_would_end_the_same_is_not_requeued(desk: Desk) -> None:
    jobs = {code: submit(desk, f"ends-{code}", cause(code)) for code in NEVER}
    assert {code: ended(job, "FAILED") for code, job in jobs.items()} == {code: ("0", f"{code}:0") for code in NEVER}


def test_requeues_are_bounded(desk: Desk) -> None:
    often = submit(desk, "often", cause(3), "cluster.max_requeues=1")
    failing = submit(desk, "failing", cause(1), "cluster.max_failures=1")
    by_slurm = submit(desk, "by-slurm", "sleep 600", "cluster.max_requeues=0")
    by_slurm.until_state("RUNNING")
    desk.cluster.ask("scontrol", "requeue", by_slurm.job)
    assert ended(often, "FAILED") == ("1", "3:0")
    assert "after 1 requeues (cluster.max_requeues)" in often.log
    assert ended(failing, "FAILED") == ("1", "1:0")
    assert "start 2 was failure 2 (cluster.max_failures)" in failing.log
    assert ended(by_slurm, "FAILED") == ("1", "4:0")


@pytest.mark.parametrize("told", ["USR2", "TERM"])
def test_start_that_is_told_to_leave_before_it_listens_has_not_failed(desk: Desk, told: str) -> None:
    job = submit(desk, "deaf", f"{AGAIN}kill -{told} $$", "cluster.max_failures=0")
    assert ended(job, "COMPLETED") == ("1", "0:0")


def test_failure_outweighs_the_signal_that_it_sends_to_the_other_nodes(desk: Desk) -> None:
    """For srun it is the other way round."""
    (desk.folder / "fails.py").write_text("raise ValueError")
    act = f"""[[ $SLURM_NODEID == 1 ]] || exec sleep 60
exec {sys.executable} {ROOT}/phalanx -m launch.local.agent --ranks=1 --grace=30 {desk.folder}/fails.py"""
    job = submit(desk, "mixed", act, "cluster.max_requeues=0", "cluster.max_failures=0", nodes=2)
    assert ended(job, "FAILED") == ("0", "1:0")
    assert "start 1 was failure 1" in job.log


def test_node_without_the_python_says_so(desk: Desk) -> None:
    line = f"PHALANX_PYTHON={desk.folder}/gone"
    job = desk.submit(f"cluster.setup=[{quoted(line)}]", "cluster.ranks_per_node=1")
    assert ended(job, "FAILED") == ("0", "2:0")
    assert f"error: {job.nodes()[0]} cannot execute {desk.folder}/gone" in job.log
    told = desk.phalanx("logs", "-f", job.results.folder.name, "--root", str(desk.runs))
    assert (told.returncode, told.stdout) == (0, job.log), "what a job says that never came to a run"
    assert "this is its job's log" in told.stderr


SUSPECTS = [
    (1, 5, "hung"),
    (1, 1, "CUDA error: uncorrectable ECC error encountered"),
    (0, 5, "rank 1 on LAST did not take part in time. Its own log may tell more"),
]


@pytest.mark.parametrize(("teller", "code", "message"), SUSPECTS)
def test_requeue_keeps_away_from_the_node_that_the_cause_names(
    desk: Desk, teller: int, code: int, message: str
) -> None:
    seen = desk.folder / "seen"
    act = f"[[ $SLURM_NODEID == {teller} ]] || exec sleep 60\nuntil [[ -e {seen} ]]; do sleep 0.1; done\n"
    job = submit(desk, "suspect", f"{AGAIN}{act}{cause(code, message)}", nodes=2)
    job.until_state("RUNNING")
    _, suspect = job.nodes()
    seen.touch()
    assert ended(job, "COMPLETED") == ("1", "0:0")
    assert desk.cluster.facts(job.job)["ExcNodeList"] == suspect
    assert suspect not in job.nodes()


def test_job_whose_folder_a_node_does_not_see_says_so(desk: Desk) -> None:
    desk.runs.mkdir()
    assert desk.cluster.node(2, "mount", "-t", "tmpfs", "tmpfs", str(desk.runs)).returncode == 0
    try:
        job = submit(desk, "unshared", "exit 0", nodes=2)
        assert ended(job, "FAILED") == ("0", "2:0")
    finally:
        desk.cluster.node(2, "umount", str(desk.runs))
    assert job.log.count("error: n2 does not see") == 1
    assert "Type run.root=" in job.log


def test_head_node_is_found_without_scontrol(desk: Desk) -> None:
    """As where a job's script itself runs in a container."""
    program(desk.folder / "bin", "scontrol", "exit 127")
    act = 'echo "$@"'
    job = submit(desk, "alone", act, nodes=2, environ=first_on_path(desk.folder / "bin"))
    assert ended(job, "COMPLETED") == ("0", "0:0")
    assert job.log.count(f"--head={job.nodes()[0]} ") == 2


def test_container_is_asked_of_srun_for_the_ranks_alone(desk: Desk) -> None:
    """srun of this cluster has no pyxis, so a stand-in takes the flags away; the batch script stays outside."""
    record = f"""printf '%s\\n' "$@" >>{desk.folder}/flags; echo end >>{desk.folder}/flags
for word; do case $word in --container-*) ;; *) words+=("$word") ;; esac; done; exec /usr/bin/srun "${{words[@]}}\""""
    program(desk.folder / "bin", "srun", record)
    image = "cluster.container='nvcr.io#nvidia/pytorch:26.05-py3'"
    words = (image, "cluster.mounts=[/data:/inside]")
    job = submit(desk, "boxed", "exit 0", *words, environ=first_on_path(desk.folder / "bin"))
    assert ended(job, "COMPLETED") == ("0", "0:0")
    muster, ranks = (desk.folder / "flags").read_text().split("end\n")[:-1]
    assert "--container" not in muster
    assert "--container-image=nvcr.io#nvidia/pytorch:26.05-py3\n" in ranks
    (mounts,) = [line for line in ranks.splitlines() if line.startswith("--container-mounts=")]
    assert mounts.endswith(",/data:/inside")
    assert f"{desk.runs}:{desk.runs}" in mounts


def test_container_that_nothing_here_can_start_is_said_and_not_tried_again(desk: Desk) -> None:
    """srun of this cluster has no pyxis, and there is no Apptainer."""
    images = {"registry": "nvcr.io#nvidia/pytorch:26.05-py3", "file": "/images/mine.sif"}
    jobs = {name: submit(desk, name, "exit 0", f"cluster.container={quoted(image)}") for name, image in images.items()}
    assert {name: ended(job, "FAILED") for name, job in jobs.items()} == dict.fromkeys(images, ("0", "2:0"))
    for name, job in jobs.items():
        assert f"not started: cluster.container={images[name]} needs pyxis" in job.log


def test_container_is_apptainers_where_the_cluster_has_that(desk: Desk) -> None:
    """A stand-in for it, which runs what it is given where it is."""
    record = f"""printf '%s\\n' "$@" >>{desk.folder}/given; shift
while [[ $1 == --* ]]; do [[ $1 == --nv ]] || shift; shift; done; shift; exec "$@\""""
    program(desk.folder / "bin", "apptainer", record)
    on_path = first_on_path(desk.folder / "bin")
    words = (
        "cluster.container='nvcr.io#nvidia/pytorch:26.05-py3'",
        "cluster.mounts=[/data]",
        "cluster.gpus_per_node=1",
    )
    job = submit(desk, "boxed", "exit 0", *words, environ=on_path)
    assert ended(job, "COMPLETED") == ("0", "0:0")
    given = (desk.folder / "given").read_text().splitlines()
    assert given[:2] == ["exec", "--bind"]
    assert given[2].endswith(",/data")
    assert f"{desk.runs}:{desk.runs}" in given[2]
    assert given[3:6] == ["--nv", "docker://nvcr.io/nvidia/pytorch:26.05-py3", "bash"]
