"""Which rank failed first, agreed on by all ranks: that failure decides the message and the exit code of the run."""

import socket
from collections.abc import Sequence
from dataclasses import asdict, replace

from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError, ExitCode, Failure, GaveUp, Hung, NoRoom, ParityMissed, PeerFailed, Preempted
from phalanx.run_folder import names

from .peer_failure import FailureChannel
from .rank_errors import code_of, is_collective, is_timeout
from .watchdog import Watchdog

_ANSWER_S = 1.5  # how long a rank waits for the message of the one that failed first


class FirstFailure:
    """The failure that ends the run, seen from one rank."""

    def __init__(self, channel: FailureChannel | None, rank: int, hosts: Sequence[str], watchdog: Watchdog) -> None:
        """`channel` is None where there are no other ranks."""
        self.channel = channel
        self.silent: Sequence[int] = ()  # ranks that did not answer when this one told all that it fails
        self._rank = rank
        self._hosts = hosts
        self._watchdog = watchdog
        self._failure: Failure | None = None
        self._own: Failure | None = None

    def broadcast(self, error: BaseException) -> Failure:
        """Tell all ranks that this one failed, unless another did before; returns the failure that came first.

        If it is another rank's, that rank has printed it when this returns; if it is this rank's own, the others wait for
        `release`.
        """
        for_people = isinstance(error, ConfigError | GaveUp | Hung | NoRoom | ParityMissed | Preempted)
        said = str(error) if for_people else user_error.message(error)
        text, where = (said, "") if for_people else (user_error.user_traceback(error), user_error.headline(error))
        hang = asdict(error.hang) if isinstance(error, Hung) else None
        own = Failure(self._rank, socket.gethostname(), code_of(error), text, hang, said, where)
        self._own = own
        self._watchdog.close()
        if self.channel is None:
            self._failure = own
        elif isinstance(error, PeerFailed) or (_agreed(error) and self._rank != 0) or not self.channel.try_lock():
            self._failure = self.channel.peer_failure(_ANSWER_S) or own
        else:
            self.silent = self.channel.broadcast(own)
            self._failure = self._explained(error, own, self.silent)
        if self.channel is not None:
            self.channel.ignore()  # this rank is on its way out, and has its own limit for that
        return self._failure

    def release(self) -> None:
        """After `broadcast` on the first rank to fail: the error is printed, and the others may exit."""
        if self.channel is not None:
            assert self._failure is not None
            self.channel.release(self._failure)

    def give_up_on_others(self) -> Failure:
        """The failure of this rank when `broadcast` timed out."""
        if self._failure is None:
            assert self.channel is not None, "alone, `broadcast` asks nobody"
            hung = self._own if self._own is not None and self._own.hang is not None else None
            self._failure = self.channel.disconnected("does not answer", ExitCode.HUNG, hung)
            self.silent = [0] if self.channel.prints_errors else []
        return self._failure

    def _explained(self, error: BaseException, own: Failure, silent: Sequence[int]) -> Failure:
        """If ranks did not acknowledge, name them in place of the collective's own error, or of the launcher's SIGTERM."""
        if not silent or not (is_collective(error) or isinstance(error, Preempted)):
            return own
        who = ", ".join(f"rank {rank} on {self._hosts[rank]}" for rank in silent)
        what = (
            "did not take part in time" if is_timeout(error) else "is gone: it was killed, or its machine was cut off"
        )
        logs = ", ".join(names.rank_log_path(rank) for rank in silent)
        text = f"{who} {what}. Its own log may tell more ({logs}). Here it showed as: {str(error).splitlines()[0]}"
        code = ExitCode.BUG if own.code == ExitCode.PREEMPTED else own.code
        return replace(own, text=text, message=text, where="", code=code)


def _agreed(error: BaseException) -> bool:
    return isinstance(error, ConfigError) and error.agreed
