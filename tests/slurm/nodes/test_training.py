"""A job on several nodes trains as ranks at hand do."""

import uuid
from pathlib import Path

from phalanx.system.listening_sockets import listening_addresses, non_loopback_addresses
from tests.launch.command import marked
from tests.paced_task import TASK, Pace
from tests.ranks import Starter
from tests.slurm.slurm_lab import Desk

TINY = ("model=mlp", "model.hidden=[8]", "train.steps=20")
FOUR = ("cluster.nodes=2", "cluster.ranks_per_node=2")


def test_two_nodes_of_two_ranks_train_the_weights_of_four_local_ranks(desk: Desk, starter: Starter) -> None:
    here = starter.train(4, *TINY, name="here")
    there = desk.submit(*TINY, *FOUR, "run.name=there").finish()
    assert there.summary["world_sizes"] == [4]
    assert there.sha256 == here.sha256


def test_two_jobs_share_a_node(desk: Desk) -> None:
    """Each with a port of its own, and GPUs of its own."""
    one = (*TINY, "cluster.ranks_per_node=1", "cluster.gpus_per_node=1", "world.device=cpu")
    jobs = [desk.submit(*one, f"seed={seed}") for seed in (1, 2)]
    assert {job.finish().summary["steps"] for job in jobs} == {20}
    first, second = (job.cluster.facts(job.job) for job in jobs)
    assert first["NodeList"] == second["NodeList"] != ""
    assert max(first["StartTime"], second["StartTime"]) < min(first["EndTime"], second["EndTime"]), (
        "one after the other"
    )


def test_config_that_only_a_node_can_refuse_ends_the_job_for_good(desk: Desk) -> None:
    job = desk.submit(*TINY, *FOUR, "world.device=cuda")
    job.until_state("FAILED")
    facts = job.cluster.facts(job.job)
    assert (facts["ExitCode"], facts["Restarts"]) == ("2:0", "0"), job.log
    assert job.log.count("world.device=cuda needs a GPU") == 1


def test_job_of_one_node_listens_nowhere_but_on_its_loopback(desk: Desk) -> None:
    pace, mark = Pace(after=9, gate=str(desk.folder / "gate")), uuid.uuid4().hex
    words = (*TINY, TASK, "checkpoint.every=4", "log.every=1", "cluster.ranks_per_node=2")
    job = desk.submit(*words, environ={**pace.environ(), "MARK": mark})
    job.until_step(8)
    # srun itself, which Slurm's daemons call back, checks who calls.
    ours = [pid for pid in marked(mark) if Path(f"/proc/{pid}/comm").read_text() != "srun\n"]
    assert listening_addresses(ours)
    assert non_loopback_addresses(ours) == set()
    pace.open()
    assert job.finish().summary["steps"] == 20
