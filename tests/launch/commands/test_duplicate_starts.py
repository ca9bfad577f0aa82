"""Where a platform starts the command more than once, no process trains apart from the others."""

from collections.abc import Mapping

import pytest

from phalanx.exit.codes import ConfigError
from phalanx.exit.duplicate_starts import check_one_machine
from phalanx.exit.rank_env import RankEnv, prints_errors
from tests.launch.command import Launcher

TASKS = [
    {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"},
    {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
    {"PMI_RANK": "1", "PMI_SIZE": "2"},
]
PODS = [{"PET_NNODES": "2"}, {"PET_NNODES": "1:4"}, {"JOB_COMPLETION_INDEX": "0"}]
ALONE = [
    {},
    {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"},  # the batch script itself
    {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
    {"PET_NNODES": "1", "JOB_COMPLETION_INDEX": "0"},
]


@pytest.mark.parametrize("environ", TASKS)
def test_tasks_without_ranks_are_no_worlds_of_one(environ: Mapping[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"started this command 2 times .* Type phalanx submit .* env -u "):
        RankEnv.from_environment(environ)
    assert not prints_errors(environ), "one of them says so"
    assert prints_errors({name: "0" if value == "1" else value for name, value in environ.items()})


@pytest.mark.parametrize("environ", [*TASKS, *PODS])
def test_a_launcher_of_one_machine_trains_nothing_apart(environ: Mapping[str, str]) -> None:
    with pytest.raises(ConfigError, match="env -u "):
        check_one_machine(environ)


@pytest.mark.parametrize("environ", ALONE)
def test_what_is_alone_trains(environ: Mapping[str, str]) -> None:
    check_one_machine(environ)
    assert RankEnv.from_environment(environ).size == 1


def test_pods_of_one_job_are_told_so_before_anything_is_started(launcher: Launcher) -> None:
    code, output = launcher.run("run", body="sys.exit(0)", environ={"PET_NNODES": "2"})
    assert (code, output.count("\n")) == (2, 1)
    assert output.startswith("error: PET_NNODES=2: ")
