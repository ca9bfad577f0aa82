"""World: the collectives outside DistributedDataParallel, and how all ranks raise together."""

import logging
import socket
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import HashStore, Store  # type: ignore[attr-defined]

from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError, Failure, NoRoom, PeerFailed
from phalanx.exit.rank_env import RankEnv

from .first_failure import FirstFailure
from .peer_failure import FailureChannel
from .rank_errors import RankError, code_of, merge_messages
from .shared_memory import SharedMemoryReducer, connect_ranks
from .watchdog import Watchdog

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class World:
    """The ranks of this run and their collectives. In a world of one every collective is a no-op."""

    def __init__(
        self,
        rank_env: RankEnv,
        device: torch.device,
        store: Store | None,
        backend: str,
        hosts: Sequence[str],
        watchdog: Watchdog,
        control: dist.ProcessGroup | None = None,
    ) -> None:
        """`control` is the group for objects and CPU tensors; None: the default group."""
        self.rank_env = rank_env
        self.rank = rank_env.rank
        self.size = rank_env.size
        self.device = device
        self.backend = backend
        self.reducer: SharedMemoryReducer | None = None
        self.store = HashStore() if store is None else store
        self.hosts = hosts  # by rank
        self.watchdog = watchdog
        self.control = control
        channel = None
        if store is not None:
            channel = FailureChannel(store, rank_env.rank, hosts, None if rank_env.hosted else 0, watchdog.close)
        self.failure = FirstFailure(channel, rank_env.rank, hosts, watchdog)

    @property
    def is_rank_zero(self) -> bool:
        return self.rank == 0

    def share_memory(self, timeout_s: float) -> None:
        """Let the ranks of one machine sum CPU tensors in shared memory from now on. All ranks call it.

        Where one rank cannot have the memory all fall back to gloo: the sums have the same bits, and take longer.
        """
        if self.size == 1 or not self.rank_env.one_machine:
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

        Raises ConfigError with every distinct message where all errors are ConfigErrors, else the rank's own
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
            raise ConfigError(merge_messages(rank_errors, self.size), agreed=True)
        first = unexpected[0]
        if first.rank == self.rank and own is not None:
            raise own
        raise PeerFailed(Failure(first.rank, first.host, first.code, first.text, None, first.message, first.where))

    def leave(self) -> None:
        """End of a run that succeeded. All ranks call it."""
        self.watchdog.close()
        self.watchdog.join()
        if self.failure.channel is None:
            return
        if self.size > 1:
            # All ranks take part. A rank may still fail while it closes its sinks; the others must not have exited by then.
            dist.barrier(group=self.control)
        self.failure.channel.ignore()
        if self.reducer is not None:
            self.reducer.close()
        self.failure.channel.close()
        dist.destroy_process_group()
