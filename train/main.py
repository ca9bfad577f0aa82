"""Entry of every rank: torchrun --nproc_per_node=N train/main.py [key=value ...]

`phalanx evaluate`, `export` and `predict` put a word and a JSON object before these: see phalanx/deployment/job.py.
"""

import gc
import logging
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if not __package__:  # run as a file: become the module of the package that lies beside it
    _root = next(
        str(parent) for parent in Path(__file__).resolve().parents if (parent / "phalanx/__init__.py").exists()
    )
    if os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(__file__)):
        del sys.path[0]  # a script's own folder, where its modules would shadow others
    sys.path.insert(0, _root)
    from phalanx.system.module_path import move_root_back

    move_root_back(_root)
    from phalanx.exit.linux_only import require_linux

    require_linux()  # before phalanx/train is imported, which is a link, of which a checkout on Windows has none
    import phalanx.train.main as module

    sys.modules["__main__"] = module  # by which data workers are started
    from phalanx.exit.interpreter_exit import run_without_teardown

    run_without_teardown(module.main)

from phalanx.exit.linux_only import require_linux

require_linux()

from phalanx.common import stdio
from phalanx.exit import cause_file, folder_file
from phalanx.exit.codes import ConfigError, ExitCode, JoinFailed, Preempted
from phalanx.exit.interpreter_exit import run_without_teardown
from phalanx.exit.messages import end, exit_as_one, refuse, say
from phalanx.exit.rank_env import RankEnv, prints_errors
from phalanx.exit.signals import Signals
from phalanx.system import allocator
from phalanx.system.module_path import PACKAGE, hide_trees
from phalanx.system.parent_death import end_with_launcher

if TYPE_CHECKING:
    from phalanx.compose.compose import Composed


def main(composed: "Composed | None" = None, begun_s: float | None = None) -> None:
    """Train. Ends the process with one of the exit codes in `phalanx.exit.codes`.

    `composed` is the composed command line, if it is known already; `begun_s` is when the start began (time.monotonic()),
    if that was before this process.
    """
    end_with_launcher(os.environ)
    stdio.open_closed_streams()
    stdio.wrap_streams()
    try:
        code = _run(composed, begun_s or time.monotonic())
        _log_threads()
        sys.exit(code)
    except KeyboardInterrupt:
        say("interrupted before the run began")
        end(ExitCode.STOPPED)
    finally:
        stdio.drain()


def _log_threads() -> None:
    """Log what keeps a rank that is done from its end: Python waits for threads that are no daemons, also without end."""
    if waits_for := [thread.name for thread in threading.enumerate()[1:] if not thread.daemon]:
        logging.getLogger(__name__).info("waiting for threads that are no daemons: %s", ", ".join(waits_for))


def _run(composed: "Composed | None", started: float) -> ExitCode:
    gc.disable()  # collecting while tens of thousands of functions are imported costs half a second; trainer.run enables it
    try:
        rank_env = RankEnv.from_environment(os.environ)
        composed = prepare(sys.argv[1:], rank_env, composed)
    except ConfigError as error:
        refuse(error, prints_errors(os.environ))
    return ExitCode.FINISHED if composed is None else _train(composed, rank_env, started)


def prepare(argv: list[str], rank_env: RankEnv, composed: "Composed | None" = None) -> "Composed | None":
    """Compose and check the command line; None if it is a query such as --help, which is answered here.

    Imports no torch, and prints that torch is imported next. Raises ConfigError.
    """
    # Imported here, because data workers import this file, too, and have no use for Hydra.
    from phalanx.compose.compose import compose, is_query, multirun, print_answer
    from phalanx.compose.user_imports import import_modules
    from phalanx.config.limits import check
    from phalanx.config.run_root import folder_of_run
    from phalanx.deployment.checks import check_config
    from phalanx.deployment.job import job_of

    _check_temporary()
    job, argv = job_of(argv)
    if job is not None:
        composed = composed or compose(argv)
        import_modules(composed.config.run.imports)
        check_config(composed.config, job)
        return composed
    if not rank_env.launched and (words := multirun(argv)) is not None:
        _sweep(words)
    if is_query(argv):
        if rank_env.is_rank_zero:
            print_answer(argv)
        return None
    composed = composed or compose(argv)
    import_modules(composed.config.run.imports)  # also where another process has composed it
    check(composed.config, rank_env.size)
    if rank_env.is_rank_zero:
        assert composed.config.run.name is not None
        # Nobody knows yet whether what lies there is the run of this config, so nothing of it is trusted.
        folder_file.write(folder_of_run(composed.config.run.root, composed.config.run.name), ())
    if rank_env.is_rank_zero and "torch" not in sys.modules:
        print(f"{composed.config.run.name} on {_ranks(rank_env.size)}: importing torch", flush=True)
    return composed


def _check_temporary() -> None:
    """Raise ConfigError if there is no folder for temporary files, which torch needs at import."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise ConfigError(f"{error.strerror}. Set TMPDIR to a folder that can be written to") from None


def _ranks(size: int) -> str:
    return "1 rank" if size == 1 else f"{size} ranks"


def _sweep(words: list[str]) -> NoReturn:
    """Become `phalanx sweep`, which is what Hydra's -m means here."""
    os.execv(sys.executable, [sys.executable, str(PACKAGE), "sweep", *words])


def _train(composed: "Composed", rank_env: RankEnv, started: float) -> ExitCode:
    """Rendezvous and train. torch is imported only here, so that a bad command line fails at once."""
    signals = Signals(rank_env.rank, lambda _: end(ExitCode.PREEMPTED))
    signals.open()
    allocator.keep_freed_memory(os.environ)
    from phalanx.deployment.job import job_of
    from phalanx.run_folder import rank_logs

    from .distributed.failure_exit import exit_on_failure
    from .distributed.rendezvous import join
    from .engine import trainer
    from .loading.workers.fork_server import fork_server

    if composed.config.data.workers and not composed.config.run.imports:
        fork_server()
    rank_logs.to_console(rank_env.is_rank_zero, os.environ)
    job, _ = job_of(sys.argv[1:])
    try:
        _check_targets(composed, rank_env.is_rank_zero, trains=job is None)
        world = join(rank_env, composed.config.world, composed.config.train.deterministic)
    except ConfigError as error:
        refuse(error, rank_env.is_rank_zero)
    except JoinFailed as error:
        say(f"error: {error}")
        cause_file.write(ExitCode.BUG, rank_env.rank, str(error))
        end(ExitCode.BUG)
    with exit_on_failure(world) as failure_exit:
        signals.leave = lambda why: failure_exit.leave(Preempted(why))
        if job is not None:
            from .deploy import jobs

            jobs.run(job, composed, world, failure_exit.afterwards)
            code = ExitCode.FINISHED
        else:
            code = trainer.run(composed, world, signals, started, failure_exit.afterwards)
        words = code.name.lower() + ("" if code is ExitCode.FINISHED else ", all saved; the same command continues")
        if rank_env.is_rank_zero:
            cause_file.write(code, rank_env.rank, words)
    if code is not ExitCode.FINISHED:
        cause_file.report_to_torchrun(words, rank_env.rank)
    return code


def _check_targets(composed: "Composed", is_rank_zero: bool, *, trains: bool) -> None:
    """Import what the config names, and exit where that raises. A finished run needs none of it. Raises ConfigError."""
    from phalanx.exit import user_error

    from .checkpoint.open_run import finished
    from .engine.parts.config_targets import check_evaluated_targets, check_targets, targets

    try:
        check = check_targets if trains else check_evaluated_targets
        check(composed.config, targets(composed.config, composed.foreign))
    except Exception as error:  # whatever the user's own modules raise
        if trains and finished(composed.config) is not None:
            return
        if isinstance(error, ConfigError):
            raise
        line, said = user_error.user_line(error), user_error.message(error)
        frames = said if isinstance(error, SyntaxError) else user_error.user_traceback(error)
        key = user_error.context_of(error).get("imported")
        places = "".join(f", {word} {place}" for word, place in (("for", key), ("at", line)) if place)
        text = f"error while the classes of the config were imported{places}:\n{frames}"
        exit_as_one(ExitCode.BUG, text, said, is_rank_zero, agreed=False)


if __name__ in ("__main__", "__mp_main__"):  # the latter in a data worker that was spawned
    hide_trees()
if __name__ == "__main__":
    run_without_teardown(main)
