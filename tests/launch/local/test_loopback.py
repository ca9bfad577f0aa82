"""Nothing that is started on one machine can be reached from another."""

import signal
import socket
from contextlib import suppress

import pytest

from phalanx.system.listening_sockets import listening_addresses, non_loopback_addresses
from tests.launch.command import Launcher, marked

STRANGERS_PLATFORM = {"PET_STANDALONE": "1", "PET_RDZV_ENDPOINT": "0.0.0.0:0"}


def test_launcher_and_its_store_are_not_reached_by_the_address_that_others_see(launcher: Launcher) -> None:
    """Torchrun's store unpickles what it is given, so whoever reaches it runs code as the user."""
    started = launcher.start("run", "-n", "2", body="wait()", environ=STRANGERS_PLATFORM)
    started.ready(2)
    processes = marked(launcher.mark)
    assert non_loopback_addresses(processes) == set()
    ports = [port for _, port in listening_addresses(processes)]
    assert ports, "the ranks' store"
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((own_address(), port), timeout=5).close()
    started.process.send_signal(signal.SIGINT)
    started.wait()


def own_address() -> str:
    """An address of this machine that others see; where it has none another one of the loopback. Nothing is sent."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return "127.0.0.2"
