"""Entry of every rank of `phalanx doctor`, in the place of train/main.py, under our agent, torchrun or srun.

    torchrun --nproc_per_node=N launch/doctor/main.py [--folder DIR] [--limit SECONDS] [--json] [--report FILE]

Without --report rank 0 prints the findings, and all ranks end with 1 when one is a failure. With it the first rank of
each node writes them there for its launcher.
"""

import argparse
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

if not __package__:  # run as a file: become the module of the package that lies beside it
    _root = next(str(parent) for parent in Path(__file__).resolve().parents if (parent / "phalanx" / "train").is_dir())
    if os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(__file__)):
        del sys.path[0]  # a script's own folder, where its modules would shadow others
    sys.path.insert(0, _root)
    from phalanx.system.module_path import move_root_back

    move_root_back(_root)
    import phalanx.launch.doctor.main as module

    module.main()

from phalanx.common.columns import terminal_width
from phalanx.common.files import write_atomic
from phalanx.exit import cause_file
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.messages import end, refuse, say
from phalanx.exit.rank_env import RankEnv, prints_errors
from phalanx.system.garbage_collection import gc_paused

from .finding import Finding, Verdict, as_json, failed, passes, table


def main() -> None:
    """Check all. Ends with 0, 1 when a finding is a failure, 2 for bad input, 5 when a rank hung."""
    asked = _arguments()
    report = Report(asked.json, asked.report)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before there are threads, which inherit it
    try:
        rank_env = RankEnv.from_environment(os.environ)
    except ConfigError as error:
        refuse(error, prints_errors(os.environ))
    threading.Thread(target=report.told_to_leave, args=(rank_env,), daemon=True).start()
    _check_ranks(rank_env, asked, report)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("launch/doctor/main.py", allow_abbrev=False)
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where run folders will be")
    parser.add_argument("--limit", type=float, default=60.0, metavar="SECONDS", help="longest check")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--report", type=Path, help="a file for the launcher of this node")
    return parser.parse_args()


class Report:
    """Collects the findings, for a launcher or for the console of rank 0."""

    def __init__(self, json: bool, file: Path | None) -> None:
        self._json, self._file = json, file
        self._findings: list[Finding] = []

    def add(self, findings: Sequence[Finding], rank_env: RankEnv) -> None:
        self._findings += findings
        if self._file and rank_env.local_rank == 0:
            write_atomic(self._file, as_json(self._findings))

    def close(self, rank_env: RankEnv) -> ExitCode:
        """Print the findings on the console of rank 0, unless a launcher does."""
        if self._file:
            return ExitCode.FINISHED
        if rank_env.is_rank_zero:
            text = as_json(self._findings) if self._json else table(self._findings, terminal_width(sys.stdout))
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        return ExitCode.BUG if failed(self._findings) else ExitCode.FINISHED

    def told_to_leave(self, rank_env: RankEnv) -> None:
        """Report what was found until SIGTERM, which ranks get when a peer died."""
        signal.sigwait({signal.SIGTERM})
        text = "the ranks were ended before all was checked, as they are when one of them died"
        advice = "see what is said above of the rank that died first, and look at that rank's host"
        if self._file is None:
            self.add([Finding("ranks", Verdict.FAIL, text, "every rank answers", advice)], rank_env)
            self.close(rank_env)
        end(128 + signal.SIGTERM)


def _check_ranks(rank_env: RankEnv, asked: argparse.Namespace, report: Report) -> NoReturn:
    with gc_paused():
        from .all_checks import all_checks
        from .protocol.check import run_check
        from .protocol.ranks import SilentRanks, join_ranks  # torch is imported only now
    speaks_for_all = rank_env.is_rank_zero
    try:
        ranks = join_ranks(rank_env if rank_env.launched else _alone(rank_env), asked.limit)
        hosts = len(set(ranks.hosts))
        report.add([passes("rendezvous", f"{rank_env.size} ranks on {hosts} hosts", "every rank comes")], rank_env)
        for check in all_checks(ranks, asked.folder):
            report.add(run_check(check, ranks), rank_env)
        code = report.close(rank_env)
        ranks.leave()
        end(code)
    except SilentRanks as error:
        text, advice = str(error), "look at the hosts of these ranks, and at what they last printed"
        speaks_for_all = rank_env.rank == min({*range(rank_env.size)} - {*error.ranks}, default=0)
    except (OSError, RuntimeError) as error:  # the store's port is taken, nobody holds it, or who held it is gone
        said = " ".join(str(error).split())[:300]
        text = f"rank {rank_env.rank} of {rank_env.size} lost the store at {rank_env.address}:{rank_env.port}: {said}"
        advice = "see that the first node's port is free and can be reached from the other nodes"
    report.add([Finding("ranks", Verdict.FAIL, text, "every rank comes and answers", advice)], rank_env)
    if speaks_for_all:
        cause_file.write(ExitCode.HUNG, rank_env.rank, text)
        say(f"phalanx doctor: {text}")
    report.close(rank_env)
    end(ExitCode.HUNG)


def _alone(rank_env: RankEnv) -> RankEnv:
    """A plain `python launch/doctor/main.py` is a world of one, with a store of its own on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return replace(rank_env, address="127.0.0.1", port=probe.getsockname()[1])


if __name__ == "__main__":
    main()
