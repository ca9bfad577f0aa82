"""`phalanx submit`: a run as a job of a cluster, from a copy of the code as it is now; or a sweep, or the doctor."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from phalanx.common.escaping import OPEN, deferred_env
from phalanx.config.schema import ClusterConfig, Config, as_plain
from phalanx.exit.codes import ConfigError
from phalanx.system.module_path import ROOT

from ..common.broken_pipe import ignore_broken_pipe
from ..common.job_variables import is_job_variable
from ..common.show import show
from ..search.spec import sweep_spec
from ..submission.array import array_indices
from ..submission.backend import Backend, JobSpec, QueuedJob, ranks_per_node
from ..submission.record import (
    Submission,
    entries,
    plan_submission,
    remove_old,
    run_root,
    submission_lock,
    write_record,
    write_submission,
)
from . import backend as backends
from .hydra_words import config_options, hydra_words

_DOCTOR = "doctor"  # the job's name


@dataclass(frozen=True)
class SubmitRequest:
    """What was typed: Hydra's words, and how to queue the job.

    `sweep`: each element works on the sweep that the words spell; `doctor`: check the machines, and train nothing.
    """

    words: tuple[str, ...]
    after: str | None
    array: str | None
    sweep: bool
    doctor: bool


@click.command()
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@config_options
@click.option("--after", metavar="JOB", help="Start once this job has ended well.")
@click.option(
    "--array", metavar="INDICES", help="A run an index, such as 0-3 or 0-99%10; %a in an override is the index."
)
@click.option("--sweep", is_flag=True, help="Search, as phalanx sweep does: each element of --array takes trials.")
@click.option("--doctor", is_flag=True, help="Check the machines of such a job, and train nothing.")
@click.option("--wait", is_flag=True, help="Return when the job has ended, with its exit code.")
@click.option("--test-only", is_flag=True, help="Ask the cluster when the job would start, and submit nothing.")
@click.option(*("--dry-run", "--dryrun"), is_flag=True, help="Print what would be submitted, and submit nothing.")
def submit(
    overrides: Sequence[str],
    config_dir: str | None,
    config_name: str | None,
    after: str | None,
    array: str | None,
    sweep: bool,
    doctor: bool,
    wait: bool,
    test_only: bool,
    dry_run: bool,
) -> None:
    """Train on a cluster.

    KEY=VALUE are Hydra overrides for train/main.py; those that begin with cluster. say what the job asks for.

    The job runs from a copy of the code as it is now and is requeued until the run has ended. A run that is queued or
    running is not submitted again.
    """
    ignore_broken_pipe()
    if doctor and array is not None:
        raise ConfigError(f"--doctor checks machines once, and --array={array} asks for runs. Leave one of them out")
    if doctor and sweep:
        raise ConfigError("--doctor trains nothing, and --sweep asks for trials. Leave one of them out")
    typed = tuple(hydra_words(config_dir, config_name, overrides))
    request = SubmitRequest(typed, after, array, sweep, doctor)
    runs = _runs(request)
    backend = _backend(_first(runs).cluster)
    if not doctor:
        _check_targets(runs)
    if dry_run:
        click.echo(backend.render(_job(request, runs, _layout(request, runs, backend.name))))
        return
    backend.check_live(_first(runs).cluster, after)
    if test_only:
        click.echo(_expected_start(request, runs, backend))
        return
    job, submission = _submitted(request, runs, backend)
    if wait:
        code = backend.wait(job, submission.runs or [""])
        if doctor:
            show(_log(backend, submission, job).read_text(encoding="utf-8", errors="replace").rstrip("\n"))
        sys.exit(code)


def _runs(request: SubmitRequest) -> dict[str, Config]:
    """Each element of the array with its run, or "" with the only one. Raises ConfigError."""
    from phalanx.compose.compose import compose  # here, for Hydra takes longer to import than all the rest
    from phalanx.config.limits import check as check_limits

    indices = [""] if request.array is None else [str(index) for index in array_indices(request.array)]
    if request.sweep:
        return dict.fromkeys(indices, _shared(request))
    runs = {}
    for index in indices:
        with deferred_env(is_job_variable):
            runs[index] = compose(
                [word.replace("%a", index) for word in request.words] if index else request.words
            ).config
        _check_named(runs[index], request.words)
        cluster = runs[index].cluster
        _backend(cluster).check(cluster)
        if request.doctor:
            continue
        check_limits(runs[index], cluster.nodes * ranks_per_node(cluster))
    if len(set(_folders(runs).values())) < len(runs):
        raise ConfigError(
            f"--array={request.array} starts {len(runs)} elements, and two of them would be the same run. Let a key hold "
            "the index: type seed=%a, for example"
        )
    return runs


def _check_targets(runs: Mapping[str, Config]) -> None:
    """Raise ConfigError for what a job would end with after its time in the queue."""
    from phalanx.targets.check_targets import check_targets  # here, as it takes time to import

    check_targets(as_plain(config) for config in runs.values())


def _check_named(config: Config, words: Sequence[str]) -> None:
    """Raise ConfigError where the name of a run would depend on what each job has anew."""
    from phalanx.compose.digest import deferred_keys, defining
    from phalanx.config.overrides import typed_for

    key = next(iter(deferred_keys(defining(config))), None)
    if key is not None and typed_for("run.name", words) is None:
        raise ConfigError(
            f"{key} is known to the job alone, and it is part of the name that a run has by default, so a "
            "requeue might be another run. Type run.name=…, under which a run goes on with the same data at another path"
        )


def _shared(request: SubmitRequest) -> Config:
    """A config of the sweep, under the sweep's own name. Raises ConfigError."""
    with deferred_env(is_job_variable):
        found = sweep_spec(request.words)
    cluster = found.config.cluster
    _backend(cluster).check(cluster)
    if cluster.nodes > 1:
        raise ConfigError(
            f"cluster.nodes={cluster.nodes}: the ranks of a trial are on one machine, and each job of a sweep is one. Type "
            f"cluster.nodes=1 --array=0-{cluster.nodes - 1} for {cluster.nodes} jobs that share the trials"
        )
    if found.sweep.ranks > ranks_per_node(cluster):
        raise ConfigError(
            f"sweep.ranks={found.sweep.ranks} is more than a machine of the job has room for: {ranks_per_node(cluster)}. "
            f"Type sweep.ranks={ranks_per_node(cluster)}"
        )
    return replace(found.config, run=replace(found.config.run, root=str(found.folder.parent), name=found.folder.name))


def _backend(cluster: ClusterConfig) -> Backend:
    return backends.choose_backend(cluster, os.environ)


def _first(runs: Mapping[str, Config]) -> Config:
    return next(iter(runs.values()))


def _folders(runs: Mapping[str, Config]) -> dict[str, str]:
    return {index: str(run_root(run.run) / str(run.run.name)) for index, run in runs.items()}


def _layout(request: SubmitRequest, runs: Mapping[str, Config], backend: str) -> Submission:
    config = _first(runs)
    if request.doctor:
        bare = plan_submission(backend, replace(config.run, name=_DOCTOR), [], {}, Path.cwd(), os.environ)
        return replace(bare, words=[f"--folder={bare.root}"])
    words = list(request.words)
    if not any(word.startswith("stop.grace_s=") for word in words):
        words.append(f"stop.grace_s={config.cluster.notice_s}")
    found = plan_submission(backend, config.run, words, _folders(runs), Path.cwd(), os.environ)
    if not request.sweep:
        return found
    from phalanx.config.overrides import quoted  # here, as it imports Hydra

    # What is added is no part of what the sweep is, and its trials get it all the same.
    added = [f"--trial-override={word}" for word in found.words[len(request.words) :]]
    added += [f"--job-variable={name}" for name in _job_variables(config)]
    return replace(found, words=[*request.words, f"run.name={quoted(str(config.run.name))}", *added])


def _job_variables(config: Config) -> list[str]:
    """The environment variables that were left for the jobs to look up."""
    from phalanx.compose.digest import deferred_keys

    return sorted(
        {
            name
            for value in deferred_keys(as_plain(config)).values()
            for name in re.findall(re.escape(OPEN) + r"(\w+)\}", value)
        }
    )


def _job(request: SubmitRequest, runs: Mapping[str, Config], submission: Submission) -> JobSpec:
    config = _first(runs)
    cluster, name, entry = config.cluster, str(config.run.name), "train/main.py"
    if request.doctor:
        cluster, name, entry = replace(cluster, max_requeues=0, max_failures=0), _DOCTOR, "launch/doctor/main.py"
    if request.sweep:
        entry = "sweep"
    return JobSpec(name, entry, cluster, submission, sys.executable, request.after, request.array)


def _expected_start(request: SubmitRequest, runs: Mapping[str, Config], backend: Backend) -> str:
    """A cluster may read the job's script even then, so it gets the one that lies here; nothing of it is kept."""
    return backend.expected_start(_job(request, runs, replace(_layout(request, runs, backend.name), code=ROOT)))


def _submitted(request: SubmitRequest, runs: Mapping[str, Config], backend: Backend) -> tuple[str, Submission]:
    """Submit, unless one of the runs waits or runs already, and tell where it is. Nothing is left of a refused job."""
    with submission_lock(_first(runs).run):
        if (queue := backend.query()) is None:
            raise ConfigError(f"The queue of {backend.name} cannot be read from here. Type the command on a login node")
        if not request.doctor:
            _refuse_live(runs, queue)
        submission = _layout(request, runs, backend.name)
        rendered = backend.render(_job(request, runs, submission))
        try:
            write_submission(submission, os.environ)
            number = backend.submit(rendered)
        except BaseException:
            shutil.rmtree(submission.folder, ignore_errors=True)
            raise
        write_record(submission, number)
        remove_old(submission.root, {queued.token for queued in queue})
    folders = list(submission.runs.values())
    click.echo(f"job {number}  {submission.folder}")
    if request.doctor:
        click.echo(f"  report  {_log(backend, submission, number)}")
    else:
        click.echo(f"  run   {folders[0]}" + (f" and {len(folders) - 1} more" if len(folders) > 1 else ""))
    return number, submission


def _log(backend: Backend, submission: Submission, job: str) -> Path:
    return submission.folder / backend.log_name(job)


def _refuse_live(runs: Mapping[str, Config], queue: Sequence[QueuedJob]) -> None:
    before = {(each.token, each.element): each.run for each in entries(run_root(_first(runs).run))}
    wanted = {Path(folder) for folder in _folders(runs).values()}
    for queued in queue:
        folder = before.get((queued.token, queued.element))
        if folder in wanted:
            raise ConfigError(
                f"{folder} is job {queued.job} already ({queued.state.lower()}), so it is not submitted twice. Wait for "
                f"it, type phalanx cancel {shlex.quote(str(folder))} to end it, or run.name=… for another run"
            )
