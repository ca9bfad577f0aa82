"""The ranks: joining them, and the only door to collectives outside DistributedDataParallel."""

import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from train.alarm import Alarm, Failure
from train.config import Backend, Device, WorldConfig
from train.outcome import ConfigError, ExitCode, GaveUp, PeerFailed
from train.place import Place

Answer = TypeVar("Answer")
_PEER_WORD_S = 1.5  # how long a broken collective waits for word of why a peer left


@dataclass(frozen=True)
class _Trouble:
    """How one rank's part of a common act went wrong."""

    rank: int
    host: str
    config: str | None  # the message of a ConfigError
    text: str  # the traceback of anything else


class World:
    """All ranks of this run, seen from one of them. In a world of one every collective is a no-op."""

    def __init__(self, place: Place, device: torch.device, store: dist.Store | None, backend: str) -> None:
        self.place = place
        self.rank = place.rank
        self.size = place.size
        self.device = device
        self.backend = backend
        self._store = store
        self._control = None if store is None else dist.new_group(backend="gloo") if backend == "nccl" else dist.group.WORLD
        self._alarm = None if store is None else Alarm(store, place.rank, place.size)

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def gather(self, value: Answer) -> list[Answer]:
        """Every rank's value, in rank order, on every rank. All ranks call it. The values are pickled between ranks."""
        if self.size == 1:
            return [value]
        values: list[Answer | None] = [None] * self.size
        dist.all_gather_object(values, value, group=self._control)
        return values  # type: ignore[return-value]

    def from_leader(self, value: Answer | None) -> Answer:
        """Rank 0's value on every rank. All ranks call it; the others' values are ignored."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]  # type: ignore[return-value]

    def sum(self, table: torch.Tensor) -> torch.Tensor:
        """Elementwise sum of every rank's CPU tensor, added in rank order so that the bits do not depend on its size.

        All ranks call it with tensors of the same shape.
        """
        if self.size == 1:
            return table
        tables = [torch.empty_like(table) for _ in range(self.size)]
        dist.all_gather(tables, table.contiguous(), group=self._control)
        total = tables[0]
        for table in tables[1:]:
            total += table
        return total

    def sum_on_device(self, value: torch.Tensor) -> dist.Work | None:
        """Begin to add a device tensor up in place over all ranks. All ranks call it; wait on what it returns."""
        return dist.all_reduce(value, async_op=True) if self.size > 1 else None

    def share_from_leader(self, tensors: list[torch.Tensor]) -> None:
        """Overwrite device tensors with rank 0's. All ranks call it with tensors of the same shapes."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def together(self, act: Callable[[], Answer]) -> Answer:
        """Do `act` on every rank; if it raises on any, raise on all. All ranks call it.

        Raises ConfigError with every distinct message where all troubles are the user's to mend, else the rank's own
        exception, or PeerFailed with the first failing rank's traceback.
        """
        own: BaseException | None = None
        answer: Answer | None = None
        trouble: _Trouble | None = None
        try:
            answer = act()
        except Exception as error:
            own = error
            message = str(error) if isinstance(error, ConfigError) else None
            trouble = _Trouble(self.rank, socket.gethostname(), message, traceback.format_exc())
        troubles = [found for found in self.gather(trouble) if found is not None]
        if not troubles:
            return answer  # type: ignore[return-value]
        unexpected = [found for found in troubles if found.config is None]
        if not unexpected:
            raise ConfigError(_merged(troubles, self.size), agreed=True)
        if own is not None:
            raise own
        first = unexpected[0]
        raise PeerFailed(str(Failure(first.rank, first.host, ExitCode.BUG, first.text)))

    def fail(self, error: BaseException, code: int) -> Failure:
        """Tell all ranks that this one failed, unless another did before; returns the failure that came first."""
        for_people = isinstance(error, ConfigError | GaveUp)
        text = str(error) if for_people else "".join(traceback.format_exception(error))
        own = Failure(self.rank, socket.gethostname(), code, text)
        if self._alarm is None or self.size == 1:
            return own
        before = self._alarm.heard(_PEER_WORD_S if _is_collective(error) else 0.0)
        if before is not None:
            return before
        try:
            return self._alarm.sound(own)
        except RuntimeError:
            return own  # the launcher is gone: nobody is left to be told

    def wait_until_heard(self) -> None:
        """After `fail` on the first rank to fail: let the others hear before the launcher ends them."""
        if self._alarm is not None and self.size > 1:
            self._alarm.wait_until_heard()

    def leave(self) -> None:
        """End of the run. All ranks call it."""
        if self._alarm is not None:
            if self.size > 1:
                dist.barrier(group=self._control)
            self._alarm.close()
            dist.destroy_process_group()


def join(place: Place, config: WorldConfig, deterministic: bool) -> World:
    """Join the ranks. All ranks call it. Raises ConfigError on every rank when a rank lacks its GPU."""
    timeout = timedelta(seconds=config.timeout_s)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the GPU is first used
    if not place.launched:
        return World(place, _device(place, config), None, "none")
    store, _, _ = next(iter(dist.rendezvous("env://", timeout=timeout)))
    device = _agree_on_device(store, place, config)
    backend = "nccl" if device.type == "cuda" and config.backend is not Backend.gloo else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend,
        store=store,
        rank=place.rank,
        world_size=place.size,
        timeout=timeout,
        device_id=device if backend == "nccl" else None,
    )
    return World(place, device, store, backend)


def _agree_on_device(store: dist.Store, place: Place, config: WorldConfig) -> torch.device:
    """This rank's device, once every rank has said through the store that it has one. All ranks call it."""
    device, message = torch.device("cpu"), ""
    try:
        device = _device(place, config)
    except ConfigError as error:
        message = str(error)
    host = socket.gethostname()
    store.set(f"phalanx/device/{place.rank}", f"{host}\n{device.type}\n{message}")
    words = [store.get(f"phalanx/device/{rank}").decode().split("\n", 2) for rank in range(place.size)]
    troubles = [_Trouble(rank, host, text, "") for rank, (host, _, text) in enumerate(words) if text]
    kinds = {kind for _, kind, _ in words}
    if not troubles and len(kinds) > 1:
        without = sorted({host for host, kind, _ in words if kind == "cpu"})
        troubles = [_Trouble(0, host, f"{', '.join(without)} has no GPU and other hosts have. Type world.device=cpu", "")]
    if troubles:
        raise ConfigError(_merged(troubles, place.size), agreed=True)
    return device


def _device(place: Place, config: WorldConfig) -> torch.device:
    """The device of this rank. Raises ConfigError when it is asked for and absent."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wants_gpu = config.device is Device.cuda or config.backend is Backend.nccl
    if wants_gpu and not gpus:
        asked = "world.device=cuda" if config.device is Device.cuda else "world.backend=nccl"
        raise ConfigError(f"{asked} needs a GPU, and torch sees none here. Type world.device=cpu world.backend=auto")
    if config.device is Device.cpu or not gpus:
        return torch.device("cpu")
    if place.local_rank >= gpus:
        raise ConfigError(
            f"{place.local_size} ranks were started here and torch sees {gpus} GPUs, one a rank. "
            f"Type --nproc_per_node={gpus}, or world.device=cpu"
        )
    return torch.device("cuda", place.local_rank)


def _merged(troubles: list[_Trouble], size: int) -> str:
    """One message of many ranks' troubles; who has them is named unless all have the same."""
    messages: dict[str, list[_Trouble]] = {}
    for trouble in troubles:
        messages.setdefault(trouble.config or "", []).append(trouble)
    if len(messages) == 1 and len(troubles) in (1, size) and (size == 1 or len(troubles) == size):
        return next(iter(messages))
    return "; ".join(f"{_who(found)}: {text}" for text, found in messages.items())


def _who(troubles: list[_Trouble]) -> str:
    ranks = ", ".join(str(trouble.rank) for trouble in troubles)
    hosts = ", ".join(sorted({trouble.host for trouble in troubles}))
    return f"rank {ranks} on {hosts}"


def _is_collective(error: BaseException) -> bool:
    """Whether an exception is what a collective raises when a peer is gone."""
    words = ("Connection closed by peer", "Connection reset", "Broken pipe", "gloo", "NCCL", "Socket")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)
