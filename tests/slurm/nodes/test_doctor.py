"""The doctor on the machines that a job would get."""

from tests.slurm.queued_runs import TWO
from tests.slurm.slurm_lab import Desk


def test_doctor_checks_the_machines_of_the_job_and_trains_nothing(desk: Desk) -> None:
    root = f"run.root={desk.runs}"
    done = desk.phalanx("submit", "--doctor", "--wait", root, *TWO)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 ranks on 2 hosts" in done.stdout
    assert "shared folder" in done.stdout
    assert [path.name for path in desk.runs.iterdir() if path.name[0] != "."] == []
    hold = "cluster.sbatch=['--hold']"
    queued = desk.phalanx("submit", "--doctor", root, *TWO, hold)
    assert desk.phalanx("submit", "--doctor", root, *TWO, hold).returncode == 0, (
        "a doctor is no run, and may come twice"
    )
    assert queued.stdout.splitlines()[1].split(maxsplit=1)[0] == "report"


def test_doctor_that_finds_something_is_not_asked_again(desk: Desk) -> None:
    few = "cluster.setup=['ulimit -n 1000']"
    done = desk.phalanx("submit", "--doctor", "--wait", f"run.root={desk.runs}", *TWO, few)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "open files" in done.stdout
    assert "not requeued" in done.stdout


def test_doctor_is_no_array(desk: Desk) -> None:
    done = desk.phalanx("submit", "--doctor", "--array=0-3", *TWO)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--doctor checks machines once" in done.stderr
