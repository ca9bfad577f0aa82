"""`submit --wait` remembers how each element ended, whatever Slurm has forgotten since, and waits for Slurm itself."""

from collections.abc import Mapping

import pytest

from phalanx.exit.codes import ConfigError
from phalanx.launch.slurm import client, wait


def line(element: str, state: str, code: str = "0:0") -> str:
    return f"JobId=7 ArrayTaskId={element} JobName=JobState=x JobState={state} Reason=None ExitCode={code} A=b\n"


def test_each_element_counts_as_it_ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [
        line("0-3%2", "PENDING"),
        line("2-3%2", "PENDING") + line("0", "FAILED", "4:0") + line("1", "RUNNING"),
        None,  # the controller is restarted
        line("3", "PENDING") + line("2", "FAILED", "9:0") + line("1", "COMPLETING"),  # 0 is older than MinJobAge
        line("2", "PENDING") + line("1", "COMPLETED") + line("3", "RUNNING"),  # 2 is requeued
        line("2", "COMPLETED") + line("3", "COMPLETED"),
    ]

    def told(job: str, environ: Mapping[str, str]) -> str:
        answer = answers.pop(0)
        if answer is None:
            raise ConfigError("Unable to contact slurm controller")
        return answer

    monkeypatch.setattr(wait, "_POLL_S", 0.0)
    monkeypatch.setattr(client, "job_facts", told)
    assert wait.wait_for_job("5", ["0", "1", "2", "3"], {}) == 4
    assert not answers
    assert capsys.readouterr().err.count("Slurm does not answer, and is asked again until it does") == 1


def test_what_slurm_has_forgotten_is_asked_of_its_accounting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wait, "_POLL_S", 0.0)
    monkeypatch.setattr(client, "job_facts", lambda job, environ: "")
    monkeypatch.setattr(
        client, "accounted_ends", lambda job, environ: {"5": ("COMPLETED", 0, 0), "6": ("CANCELLED", 0, 15)}
    )
    assert [wait.wait_for_job(job, [""], {}) for job in ("5", "6", "7")] == [0, 128 + 15, 1]
    assert "Slurm does not remember how job 7 ended, which counts as a failure" in capsys.readouterr().err


def test_a_comment_with_line_breaks_is_no_job_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "5_0|0|RUNNING|n1|phalanx:a\n8|N/A|PENDING|(None)|my\ncomment | of | lines\n"
    monkeypatch.setattr(client, "_ask", lambda *_: text)
    assert [(job.job, job.token) for job in client.queued_jobs({})] == [("5_0", "phalanx:a"), ("8", "my")]
