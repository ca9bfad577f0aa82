"""World: the collectives outside DistributedDataParallel, and how ranks raise, fail and leave together."""

import errno
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import HashStore, Store  # type: ignore[attr-defined]

from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError, ExitCode, Failure, GaveUp, Hung, NoRoom, PeerFailed, Preempted
from phalanx.exit.rank_env import RankEnv
from phalanx.run_folder import names

from .peer_failure import FailureChannel
from .rank_errors import RankError, merged
from .shared_memory import SharedMemoryReducer, connect_ranks
from .watchdog import Watchdog

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
_WORD_S = 1.5  # how long a rank waits for the word of the one that failed first


class World:
    """All ranks of this run, seen from one of them. In a world of one every collective is a no-op."""

    def __init__(
        self,
        place: RankEnv,
        device: torch.device,
        store: Store | None,
        backend: str,
        hosts: Sequence[str],
        watchdog: Watchdog,
        control: dist.ProcessGroup | None = None,
    ) -> None:
        """`control` is the group for what is no tensor of the device's; None where the default group serves."""
        self.place = place
        self.rank = place.rank
        self.size = place.size
        self.device = device
        self.backend = backend
        self.reducer: SharedMemoryReducer | None = None
        self.store = HashStore() if store is None else store
        self.hosts = hosts  # by rank
        self.watchdog = watchdog
        self._failure: Failure | None = None
        self._own: Failure | None = None
        self.silent: Sequence[int] = ()  # ranks that did not answer when this one told all that it fails
        self.control = control
        self._failure_channel = None
        if store is not None:
            self._failure_channel = FailureChannel(
                store, place.rank, hosts, None if place.hosted else 0, watchdog.close
            )

    @property
    def is_rank_zero(self) -> bool:
        return self.rank == 0

    def share_memory(self, timeout_s: float) -> None:
        """Let the ranks of one machine sum CPU tensors in shared memory from now on. All ranks call it.

        Where one rank cannot have the memory all fall back to gloo: the sums have the same bits, and take longer.
        """
        if self.size == 1 or not self.place.one_machine:
            return
        self.reducer, why = connect_ranks(self.rank, self.size, self.gather, timeout_s)
        if self.reducer is not None:
            self.watchdog.awaited = self.reducer.awaited
        elif self.is_rank_zero:
            logger.warning(
                "the ranks share no memory on this machine (%s) and sum through %s in its place, which takes longer",
                why,
                self.backend,
            )

    def gather(self, value: Answer) -> list[Answer]:
        """Every rank's value, in rank order, on every rank. All ranks call it. The values are pickled between ranks."""
        if self.size == 1:
            return [value]
        values: list[Answer | None] = [None] * self.size
        # All ranks of the world take part.
        dist.all_gather_object(values, value, group=self.control)
        return values  # type: ignore[return-value]

    def broadcast_object(self, value: Answer | None) -> Answer:
        """Rank 0's value on every rank. All ranks call it; the others' values are ignored."""
        box = [value]
        if self.size > 1:
            # All ranks take part: rank 0 sends, the others receive.
            dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]  # type: ignore[return-value]

    def sum(self, table: torch.Tensor) -> torch.Tensor:
        """Elementwise sum of every rank's CPU tensor, added in rank order so that the bits do not depend on its size.

        All ranks call it with tensors of the same shape, and do not use theirs any more.
        """
        if self.size == 1:
            return table
        if self.reducer is not None:
            self.reducer.all_reduce(table.view(-1))
            return table
        tables = [torch.empty_like(table) for _ in range(self.size)]
        # All ranks take part. Not all_reduce, whose order of addition depends on the number of ranks.
        dist.all_gather(tables, table, group=self.control)
        total = tables[0]
        for table in tables[1:]:
            total += table
        return total

    def sum_on_device(self, value: torch.Tensor) -> dist.Work | None:
        """Begin to add a device tensor up in place over all ranks. All ranks call it; wait on what it returns."""
        # All ranks take part, each in the same order of calls.
        return dist.all_reduce(value, async_op=True) if self.size > 1 else None

    def collectives(self) -> int:
        """How many collectives the ranks began so far in the default group, the users' own included."""
        return int(dist.group.WORLD._get_sequence_number_for_group()) if self.size > 1 else 0  # type: ignore[union-attr]

    def broadcast_tensors(self, tensors: list[torch.Tensor]) -> None:
        """Overwrite device tensors with rank 0's. All ranks call it with tensors of the same shapes."""
        if self.size > 1:
            for tensor in tensors:
                # All ranks take part: rank 0 sends, the others receive.
                dist.broadcast(tensor, src=0)

    def raise_on_all(self, act: Callable[[], Answer]) -> Answer:
        """Do `act` on every rank; if it raises on any, raise on all. All ranks call it.

        Raises ConfigError with every distinct message where all rank_errors are the user's to mend, else the rank's own
        exception, or PeerFailed with the first failing rank's traceback.
        """
        own: BaseException | None = None
        answer: Answer | None = None
        rank_error: RankError | None = None
        try:
            answer = act()
        except Exception as error:
            own = error
            message = str(error) if isinstance(error, ConfigError) else None
            told = (user_error.user_traceback(error), user_error.message(error), user_error.headline(error))
            told = (str(error), str(error), "") if isinstance(error, NoRoom) else told
            rank_error = RankError(self.rank, socket.gethostname(), message, code_of(error), *told)
        rank_errors = [found for found in self.gather(rank_error) if found is not None]
        if not rank_errors:
            return answer  # type: ignore[return-value]
        unexpected = [found for found in rank_errors if found.config is None]
        if not unexpected:
            raise ConfigError(merged(rank_errors, self.size), agreed=True)
        first = unexpected[0]
        if first.rank == self.rank and own is not None:
            raise own
        raise PeerFailed(Failure(first.rank, first.host, first.code, first.text, None, first.message, first.where))

    def fail(self, error: BaseException) -> Failure:
        """Tell all ranks that this one failed, unless another did before; returns the failure that came first.

        Where it is another rank's, that rank has spoken when this returns; where it is this rank's own, the others wait
        for `release`.
        """
        for_people = isinstance(error, ConfigError | GaveUp | Hung | NoRoom | Preempted)
        said = str(error) if for_people else user_error.message(error)
        text, where = (said, "") if for_people else (user_error.user_traceback(error), user_error.headline(error))
        hang = asdict(error.hang) if isinstance(error, Hung) else None
        own = Failure(self.rank, socket.gethostname(), code_of(error), text, hang, said, where)
        self._own = own
        self.watchdog.close()
        if self._failure_channel is None:
            self._failure = own
        elif (
            isinstance(error, PeerFailed)
            or (_agreed(error) and not self.is_rank_zero)
            or not self._failure_channel.claim()
        ):
            self._failure = self._failure_channel.peer_failure(_WORD_S) or own
        else:
            self.silent = self._failure_channel.broadcast(own)
            self._failure = self._explained(error, own, self.silent)
        if self._failure_channel is not None:
            self._failure_channel.ignore()  # this rank is on its way out, and has its own limit for that
        return self._failure

    def release(self) -> None:
        """After `fail` on the first rank to fail: it has spoken, and the others may go."""
        if self._failure_channel is not None:
            assert self._failure is not None
            self._failure_channel.release(self._failure)

    def give_up_on_others(self) -> Failure:
        """What ended this rank, when `fail` does not come to its end."""
        if self._failure is None:
            assert self._failure_channel is not None, "alone, `fail` asks nobody"
            hung = self._own if self._own is not None and self._own.hang is not None else None
            self._failure = self._failure_channel.disconnected("does not answer", ExitCode.HUNG, hung)
            self.silent = [0] if self._failure_channel.speaks else []
        return self._failure

    def _explained(self, error: BaseException, own: Failure, silent: Sequence[int]) -> Failure:
        """Why it is another rank's failure: in place of a collective's own words, or of the launcher's wish to stop,
        which ranks did not answer then."""
        if not silent or not (_is_collective(error) or isinstance(error, Preempted)):
            return own
        who = ", ".join(f"rank {rank} on {self.hosts[rank]}" for rank in silent)
        what = (
            "did not take part in time" if _is_timeout(error) else "is gone: it was killed, or its machine was cut off"
        )
        logs = ", ".join(names.rank_log_path(rank) for rank in silent)
        text = f"{who} {what}. Its own log may tell more ({logs}). Here it showed as: {str(error).splitlines()[0]}"
        code = ExitCode.BUG if own.code == ExitCode.PREEMPTED else own.code
        return replace(own, text=text, message=text, where="", code=code)

    def leave(self) -> None:
        """End of a run that went well. All ranks call it."""
        self.watchdog.close()
        self.watchdog.join()
        if self._failure_channel is None:
            return
        if self.size > 1:
            # All ranks take part. A rank may still fail while it closes its sinks, and the others must be there to read it.
            dist.barrier(group=self.control)
        self._failure_channel.ignore()
        if self.reducer is not None:
            self.reducer.close()
        self._failure_channel.close()
        dist.destroy_process_group()


def code_of(error: BaseException) -> ExitCode:
    """The exit code that an exception ends the run with."""
    if isinstance(error, PeerFailed):
        return ExitCode(error.failure.code)
    if isinstance(error, ConfigError):
        return ExitCode.CONFIG
    if isinstance(error, GaveUp):
        return ExitCode.GAVE_UP
    if isinstance(error, Preempted):
        return ExitCode.PREEMPTED
    if isinstance(error, Hung):
        return ExitCode.HUNG
    if isinstance(error, NoRoom):
        return ExitCode.NO_ROOM
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.STOPPED
    if _lacks_memory(error):
        return ExitCode.OUT_OF_MEMORY
    return ExitCode.HUNG if _is_collective(error) and _is_timeout(error) else ExitCode.BUG


def _lacks_memory(error: BaseException) -> bool:
    """Whether memory was asked for that there is not, of the host or of a GPU, in whichever words."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = ("can't allocate memory", "DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and not isinstance(error, PeerFailed)
        and any(word in str(error) for word in words)
    )


def _agreed(error: BaseException) -> bool:
    return isinstance(error, ConfigError) and error.agreed


def _is_collective(error: BaseException) -> bool:
    """Whether an exception is what a collective raises when a peer is gone or late."""
    words = ("gloo", "Connection closed by peer", "Connection reset", "Broken pipe", "NCCL")
    return isinstance(error, RuntimeError) and (
        isinstance(error, dist.DistError) or any(word in str(error) for word in words)
    )


def _is_timeout(error: BaseException) -> bool:
    return "imed out" in str(error) or "timeout" in str(error)
