"""The Slurm backend: what submission/backend.py asks for, by sbatch, squeue, scancel, scontrol and sacct."""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from phalanx.config.schema import ClusterConfig

from ..submission.backend import JobSpec, QueuedJob
from . import client, sbatch, wait
from .capacity import check_capacity


@dataclass(frozen=True)
class Slurm:
    """The cluster that the Slurm programs on the PATH of `environ` belong to."""

    environ: Mapping[str, str]
    name: str = "Slurm"

    def check(self, cluster: ClusterConfig) -> None:
        sbatch.check(cluster)

    def check_live(self, cluster: ClusterConfig, after: str | None) -> None:
        client.require(self.environ)
        check_capacity(cluster, self.environ)
        if after is not None:
            client.check_known(after, self.environ)

    def render(self, job: JobSpec) -> str:
        return sbatch.render(job, list(self.environ))

    def submit(self, rendered: str) -> str:
        return client.submit(rendered, self.environ)

    def expected_start(self, job: JobSpec) -> str:
        return client.expected_start(sbatch.render(job, list(self.environ), test_only=True), self.environ)

    def query(self) -> list[QueuedJob] | None:
        if shutil.which("squeue", path=self.environ.get("PATH")) is None:
            return None
        return client.queued_jobs(self.environ)

    def cancel(self, job: str) -> None:
        client.cancel(job, self.environ)

    def wait(self, job: str, elements: Collection[str]) -> int:
        return wait.wait_for_job(job, elements, self.environ)

    def cancelled(self, job: str) -> dict[str, bool]:
        return wait.cancelled(job, self.environ)

    def log_name(self, job: str) -> str:
        return f"slurm-{job}.out"
