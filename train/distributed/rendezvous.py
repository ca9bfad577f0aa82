"""Rendezvous of the ranks: open the store, agree on devices, start the process group."""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from phalanx.config.schema import Backend, Device, WorldConfig
from phalanx.exit.codes import ConfigError, ExitCode, JoinFailed
from phalanx.exit.rank_env import RankEnv
from phalanx.system.gpu_visibility import driver_fault, given_gpus, why_no_gpu
from phalanx.system.listening_sockets import non_loopback_addresses

from .network import choose_network
from .rank_errors import RankError, merge_messages
from .watchdog import Watchdog
from .world import World

_LONG_S = 20.0  # after which a wait for the other ranks is logged
_READ_S = 2.0  # timeout for the others to read the errors
# The watchdog times out waits for other ranks, as it knows what they do. NCCL's own timeout kills the process, so it must
# come later.
_NO_TIMEOUT = timedelta(days=365)
_NCCL_TIMEOUTS = 2  # times the watchdog's

logger = logging.getLogger(__name__)


def join(rank_env: RankEnv, config: WorldConfig, deterministic: bool) -> World:
    """Rendezvous of all ranks. All ranks call it.

    Raises ConfigError on every rank if a rank lacks its GPU, and JoinFailed if a rank does not come or exits meanwhile.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the GPU is first used
    if not rank_env.launched:
        watchdog = Watchdog(0, 1, config.timeout_s, None)
        return World(rank_env, _device(rank_env, config), None, "none", [socket.gethostname()], watchdog)
    if rank_env.one_machine:
        _keep_to_loopback()
        _warn_of_open_store(rank_env)
    try:
        return _join_world(rank_env, config, timedelta(seconds=config.timeout_s))
    except RuntimeError as error:
        raise JoinFailed(
            f"rank {rank_env.rank} of {rank_env.size} did not find the others at {rank_env.address}:{rank_env.port}: "
            f"{str(error).splitlines()[0]} Waited at most {config.timeout_s:g} s (world.timeout_s)"
        ) from error


def _join_world(rank_env: RankEnv, config: WorldConfig, timeout: timedelta) -> World:
    store = _store(rank_env, timeout)
    watchdog = Watchdog(rank_env.rank, rank_env.size, config.timeout_s, store)
    device, hosts = _agree_on_device(store, rank_env, config, watchdog)
    choose_network(store, rank_env)
    backend = "nccl" if device.type == "cuda" and config.backend is not Backend.gloo else "gloo"
    # All ranks take part.
    dist.init_process_group(
        backend,
        store=store,
        rank=rank_env.rank,
        world_size=rank_env.size,
        timeout=_NCCL_TIMEOUTS * timeout if backend == "nccl" else _NO_TIMEOUT,
        device_id=device if backend == "nccl" else None,
    )
    control = _gloo() if backend == "nccl" else None
    return World(rank_env, device, store, backend, hosts, watchdog, control)


def _gloo() -> dist.ProcessGroup:
    # All ranks take part.
    group = dist.new_group(backend="gloo", timeout=_NO_TIMEOUT)
    assert isinstance(group, dist.ProcessGroup)
    return group


def _keep_to_loopback() -> None:
    """Bind gloo and NCCL to the loopback, for ranks on one machine."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    for backend in ("GLOO", "NCCL"):
        if loopback is not None:
            os.environ[f"{backend}_SOCKET_IFNAME"] = loopback  # one set for the cluster's network would be listened on


def _warn_of_open_store(rank_env: RankEnv) -> None:
    """torchrun opens its store before this program's first line, and has no switch for where it listens."""
    if (
        rank_env.hosted
        and rank_env.is_rank_zero
        and (ports := sorted(port for _, port in non_loopback_addresses([os.getppid()])))
    ):
        logger.warning(
            "torchrun listens on port %s of every network of this machine, and whoever reaches that runs code as you; "
            "phalanx run in its place keeps to the loopback",
            ", ".join(map(str, ports)),
        )


def _store(rank_env: RankEnv, timeout: timedelta) -> Store:
    """The ranks' store, with a key prefix for this attempt. All ranks call it.

    torchrun keeps one store over its restarts: without the prefix an attempt would read keys of the one before.
    """
    address, listener = rank_env.address, None
    if rank_env.one_machine and not rank_env.hosted:
        address = "127.0.0.1"  # a store that finds its own address listens on all of them
        listener = _listen(rank_env.port).detach() if rank_env.is_rank_zero else None
    with _warn_if_slow(rank_env):
        store = TCPStore(
            address,
            rank_env.port,
            rank_env.size,
            is_master=rank_env.is_rank_zero and not rank_env.hosted,
            timeout=timeout,
            master_listen_fd=listener,
        )
    return PrefixStore(f"phalanx/{rank_env.attempt}", store)


@contextmanager
def _warn_if_slow(rank_env: RankEnv) -> Iterator[None]:
    """Log one line if the other ranks do not come for long, such as when a machine was never started."""
    words = (
        f"waiting for all {rank_env.size} ranks to come to {rank_env.address}:{rank_env.port}, for {_LONG_S:g} s so far"
    )
    late = threading.Timer(_LONG_S, logger.warning, [words])
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ConfigError(
            f"Port {port} of this machine cannot be used: {error.strerror}. Set MASTER_PORT to a free one"
        ) from None


def _agree_on_device(
    store: Store, rank_env: RankEnv, config: WorldConfig, watchdog: Watchdog
) -> tuple[torch.device, list[str]]:
    """This rank's device, once every rank has said through the store that it has one, and all ranks' hosts.

    All ranks call it.
    """
    device, message = torch.device("cpu"), ""
    try:
        device = _device(rank_env, config)
        if device.type == "cuda":
            torch.cuda.set_device(device)
    except ConfigError as error:
        message = str(error)
    watchdog.at("join", 0)
    store.set(f"device/{rank_env.rank}", f"{socket.gethostname()}\n{device.type}\n{message}")
    words = [store.get(f"device/{rank}").decode().split("\n", 2) for rank in range(rank_env.size)]
    hosts = [host for host, _, _ in words]
    errors = [RankError(rank, host, text, ExitCode.CONFIG, "") for rank, (host, _, text) in enumerate(words) if text]
    kinds = {kind for _, kind, _ in words}
    if errors or len(kinds) > 1:
        _wait_until_read(store, rank_env)
    if not errors and len(kinds) > 1:
        without = ", ".join(sorted({host for host, kind, _ in words if kind == "cpu"}))
        raise ConfigError(f"{without} has no GPU and other hosts have. Type world.device=cpu", agreed=True)
    if errors:
        raise ConfigError(merge_messages(errors, rank_env.size), agreed=True)
    return device, hosts


def _wait_until_read(store: Store, rank_env: RankEnv) -> None:
    """Wait until all have read the errors, before rank 0 exits and with it the store. All ranks call it."""
    store.set(f"read/{rank_env.rank}", "")
    if rank_env.is_rank_zero and not rank_env.hosted:
        with suppress(RuntimeError):
            store.wait([f"read/{rank}" for rank in range(rank_env.size)], timedelta(seconds=_READ_S))


def _device(rank_env: RankEnv, config: WorldConfig) -> torch.device:
    """The device of this rank. Raises ConfigError when it is asked for and absent."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wants_gpu = config.device is Device.cuda or config.backend is Backend.nccl
    if wants_gpu and not gpus:
        asked = "world.device=cuda" if config.device is Device.cuda else "world.backend=nccl"
        why = why_no_gpu()
        raise ConfigError(
            f"{asked} needs a GPU, and torch sees none here: {why}. Type world.device=cpu world.backend=auto"
        )
    if config.device is Device.cpu:
        return torch.device("cpu")
    if not gpus and (given := given_gpus(os.environ)):
        raise ConfigError(
            f"The launcher gave the ranks of this machine {given} GPUs, and torch sees none: {why_no_gpu()}. Mend that "
            "(phalanx doctor tells more), or type world.device=cpu to train on the CPU"
        )
    if not gpus and (fault := driver_fault(os.environ)):
        raise ConfigError(
            f"This machine has an NVIDIA driver that cannot be asked for GPUs: {fault}. See what nvidia-smi says; a driver "
            "that was updated needs a restart of the machine. Type world.device=cpu to train on the CPU"
        )
    if not gpus:
        return torch.device("cpu")
    if rank_env.local_rank >= gpus:
        raise ConfigError(
            f"{rank_env.local_size} ranks were started here and torch sees {gpus} GPUs, one a rank. "
            f"Type --nproc_per_node={gpus}, or world.device=cpu"
        )
    return torch.device("cuda", rank_env.local_rank)
