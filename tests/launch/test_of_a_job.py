"""What only a job has, such as its own scratch folder, is left for the job to look up."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from launch.submit import submit

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
