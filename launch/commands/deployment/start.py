"""Starts the ranks that evaluate or export a run, as `phalanx run` starts those that train, and reads what they answer."""

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from phalanx.deployment.job import ANSWER, Job
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.duplicate_starts import check_one_machine

from ...common.find_run import find_run
from ...common.show import show
from ...host.gpu_locks import lock_gpus
from ...host.gpu_use import gpus_in_use_elsewhere
from ...local.plan import plan_start
from ...local.supervisor import supervise
from ..run import machine_of

_GRACE_S = 30  # for ranks that are told to leave, which have nothing to save
_STDERR = 2


def start(
    verb: str, run: str, root: Path, which: str, words: Sequence[str], ranks: int | None, **options: object
) -> None:
    """Print what rank 0 answers, on standard output, where nothing else goes. Exits with the code of the cause."""
    show(answered(verb, find_run(run, root), which, words, ranks, **options).removesuffix("\n"))
    sys.exit(ExitCode.FINISHED)


def answered(verb: str, run: Path, which: str, words: Sequence[str], ranks: int | None, **options: object) -> str:
    """What rank 0 answers, lines of JSON. Exits with the code of the cause where the ranks fail."""
    from phalanx.deployment.checks import check_which, check_words  # here, as it imports Hydra

    check_one_machine(os.environ)
    check_which(which)
    check_words(verb, words)
    folder = run.absolute()
    if (found := str(folder)) != found.strip() or not found.isprintable():
        raise ConfigError(f"The path of {folder!r} holds characters that no command line carries. Rename it")
    typed = Job(verb, str(folder), which, options).words(words)
    with tempfile.TemporaryDirectory(prefix="phalanx-answer-") as aside:
        answer = Path(aside, "answer.jsonl")
        machine = machine_of(typed[2:])
        with lock_gpus(machine.gpus, ranks, gpus_in_use_elsewhere(machine.gpus, os.environ)) as locked:
            planned = plan_start(typed, ranks, locked.gpus, machine, os.environ, _GRACE_S)
            planned = replace(planned, environ={**planned.environ, ANSWER: str(answer)})
            ended = supervise(planned, locked.descriptors, 0, _GRACE_S, _STDERR)
        if ended.code is not ExitCode.FINISHED:
            sys.exit(ended.code)
        return answer.read_text(encoding="utf-8")
