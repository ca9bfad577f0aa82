"""Further options reach sbatch exactly, and none contradicts what a job sets itself."""

from collections.abc import Mapping

import pytest

from phalanx.compose.compose import compose
from phalanx.exit.codes import ConfigError
from phalanx.launch.slurm.extra_options import extra_options

ASKED: Mapping[str, str | None] = {"comment": "x", "mail-type": "END", "mem": None}
GOOD = ["--exclude=node[3,7]", "exclusive", "reservation=it's mine", "gres=gpu:a100:4", "constraint-like=1"]
WRONG = {
    "-x n1": "is no long option of sbatch. Type such as cluster.sbatch=",
    "exclude n1": "is no long option",
    "exclude=": "is no long option",
    "a=\n--wrap=id": "is no long option",
    "--wrap=id": "--wrap is set by phalanx submit itself",
    "comment=mine": "--comment is set by phalanx submit itself",
    "partition=gpu": "for which there is cluster.partition. Type that",
    "array=0-3": "for which there is --array",
    "mail-type=NONE": "the job has --mail-type=END already",
    "gres=gpu:2": "Type cluster.gpus_per_node=2 beside it",
    "gres=lustre:1,gpu:a100": "Type cluster.gpus_per_node=1 beside it",
    "gpus-per-node=h100:8": "Type cluster.gpus_per_node=8 beside it",
}


def test_options_are_read_exactly() -> None:
    words = compose([f"cluster.sbatch={[*GOOD]}"]).config.cluster.sbatch
    assert words == GOOD
    assert extra_options(words, ASKED, 4) == {
        "exclude": "node[3,7]",
        "exclusive": None,
        "reservation": "it's mine",
        "gres": "gpu:a100:4",
        "constraint-like": "1",
    }


@pytest.mark.parametrize("word", WRONG)
def test_options_that_contradict_the_job_are_refused(word: str) -> None:
    with pytest.raises(ConfigError) as found:
        extra_options([word], ASKED, 4)
    assert WRONG[word] in str(found.value)
    with pytest.raises(ConfigError, match="is there twice"):
        extra_options(["exclusive", "--exclusive=user"], ASKED, None)
