"""What `phalanx status` tells of runs that Slurm has, and how `phalanx cancel` takes them from it."""

from tests.paced_task import TASK, Pace
from tests.slurm.queued_runs import ONE, TINY, held, told
from tests.slurm.slurm_lab import Desk, first_on_path, program

PACED = (TASK, *TINY, *ONE, "log.every=1")


def test_run_is_queued_then_starting_then_running_then_queued_again_then_finished(desk: Desk) -> None:
    pace = Pace(after=2, gate=str(desk.folder / "gate"))
    with held(desk) as before:
        words = (*PACED, "train.steps=30", "run.name=r", f"--after={before}")
        job = desk.submit(*words, environ=pace.environ())
        waiting = told(desk)["r"]
        assert (waiting["state"], waiting["job"], waiting["why"]) == ("queued", job.job, "Dependency")
        assert told(desk, "r") == {"r": waiting}, "it can be named, although it has no folder yet"
    job.until_state("RUNNING")
    seen = {"queued": 0, "starting": 0, "running": 0}
    desk.cluster.until(lambda: seen.update({told(desk)["r"]["state"]: 1}) or seen["running"] == 1)
    assert told(desk)["r"]["job"] == job.job
    assert seen["starting"]
    job.until_step(2)
    desk.cluster.ask("scontrol", "requeuehold", job.job)
    pace.open()
    desk.cluster.until(lambda: told(desk)["r"]["state"] == "queued")
    assert told(desk)["r"]["why"] == "job requeued in held state"
    desk.cluster.ask("scontrol", "release", job.job)
    job.finish()
    assert told(desk)["r"]["state"] == "finished"


def test_run_that_never_began_has_failed_and_its_log_is_named(desk: Desk) -> None:
    job = desk.submit(*TINY, *ONE, "run.name=r", "cluster.setup=['false']")
    job.until_state("FAILED")
    found = told(desk)["r"]
    assert (found["state"], found["why"]) == ("failed", f"its job has ended, see {job.folder / f'slurm-{job.job}.out'}")


def test_without_an_answer_of_slurm_the_files_are_told(desk: Desk) -> None:
    with held(desk) as before:
        desk.submit(*TINY, *ONE, "run.name=r", f"--after={before}")
        program(
            desk.folder / "bin",
            "squeue",
            "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1",
        )
        words = ("status", f"--root={desk.runs}")
        done = desk.phalanx(*words, environ=first_on_path(desk.folder / "bin"))
        assert (done.returncode, done.stderr.count("\n")) == (0, 2)
        assert "Slurm does not answer" in done.stderr
        assert done.stdout.splitlines()[1].split()[:2] == ["r", "submitted"]


def test_queued_run_is_cancelled_before_it_begins(desk: Desk) -> None:
    with held(desk) as before:
        job = desk.submit(*TINY, *ONE, "run.name=r", f"--after={before}")
        done = desk.phalanx("cancel", "r", f"--root={desk.runs}")
        assert (done.returncode, done.stdout) == (0, f"asked Slurm to end job {job.job}, which was pending\n")
        job.until_state("CANCELLED")
    assert (told(desk)["r"]["state"], told(desk)["r"]["why"]) == ("stopped", "its job was cancelled")
    again = desk.phalanx("cancel", "r", f"--root={desk.runs}")
    assert again.returncode == 2
    assert "There is nothing to cancel" in again.stderr


def test_run_whose_queued_job_was_ended_with_scancel_is_told_as_cancelled(desk: Desk) -> None:
    """Also by the accounting, once the controller has forgotten it."""
    with held(desk) as before:
        job = desk.submit(*TINY, *ONE, "run.name=r", f"--after={before}")
        desk.cluster.ask("scancel", job.job)
        job.until_state("CANCELLED")
    assert (told(desk)["r"]["state"], told(desk)["r"]["why"]) == ("stopped", "its job was cancelled")
    forgets = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    program(desk.folder / "bin", "scontrol", forgets)
    forgotten = first_on_path(desk.folder / "bin")
    desk.cluster.until(lambda: told(desk, environ=forgotten)["r"]["state"] == "stopped")


def test_one_element_of_an_array_is_cancelled_and_the_others_go_on(desk: Desk) -> None:
    pace = Pace(after=2, gate=str(desk.folder / "gate"))
    job = desk.submit(*PACED, "seed=%a", "run.name=r-%a", "--array=0-1", environ=pace.environ())
    for index in range(2):
        job.until_step(2, job.element(index))
    done = desk.phalanx("cancel", "r-0", f"--root={desk.runs}")
    assert done.returncode == 0, done.stderr
    job.until_state("CANCELLED", f"{job.job}_0")
    pace.open()
    job.until_state("COMPLETED", f"{job.job}_1")
