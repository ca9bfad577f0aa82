"""What only a job has, such as its own scratch folder, is left for the job to look up."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from phalanx.launch.commands.submit import submit
from phalanx.launch.search.spec import sweep_spec

MNIST = ("data=mnist", "data.train.root=${oc.env:SLURM_TMPDIR}/mnist", "cluster.ranks_per_node=1")


def test_a_path_of_the_job_goes_with_it_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", "/of/this/shell")
    words = ["--dry-run", *MNIST, f"run.root={tmp_path}"]
    refused = CliRunner().invoke(submit, words)
    assert "data.train.root is known to the job alone" in str(refused.exception)
    assert "Type run.name=…" in str(refused.exception)
    given = CliRunner().invoke(submit, [*words, "run.name=mine"])
    assert given.exit_code == 0, given.output
    assert "/of/this/shell" not in given.output


SWEPT = ("data=mnist", "data.train.root=${oc.env:NODE_DISK}/${oc.env:SLURM_TMPDIR}", "optim.lr=1,2", "~data.eval.root")


def test_a_sweep_is_submitted_though_only_its_jobs_know_where_the_data_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", "/of/this/shell")
    words = ["--sweep", "--array=0-1", "--dry-run", *SWEPT, f"run.root={tmp_path}", "cluster.ranks_per_node=1"]
    given = CliRunner().invoke(submit, words)
    assert given.exit_code == 0, given.output + str(given.exception)


def test_a_sweep_is_the_same_one_in_all_of_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for job in ("1", "2"):
        monkeypatch.setenv("SLURM_TMPDIR", f"job{job}")
        monkeypatch.setenv("NODE_DISK", f"/disk{job}")
        found.append(sweep_spec(SWEPT, job_variables=["NODE_DISK"]))
        assert found[-1].config.data.train["root"] == f"/disk{job}/job{job}"
    assert found[0].identities == found[1].identities
    assert found[0].deferred == {"data.train.root": "${oc.env:NODE_DISK}/${oc.env:SLURM_TMPDIR}"}
    other = sweep_spec(("data=mnist", "data.train.root=/disk1/job1", "optim.lr=1,2", "~data.eval.root"))
    assert other.identities[0] != found[0].identities[0]
    assert other.deferred == {}
