"""Whether a host name is this machine's, and whether a port of a host can be reached, and why not."""

import socket

_ANSWER_S = 3.0


def why_closed(address: str, port: int) -> str:
    """Why a port cannot be connected to; empty where it can."""
    try:
        socket.create_connection((address, port), timeout=_ANSWER_S).close()
    except TimeoutError:
        return f"no answer within {_ANSWER_S:g} s, as behind a firewall"
    except ConnectionRefusedError:
        return "the machine answers, but nobody listens on this port"
    except OSError as error:
        return str(error.strerror or error)
    return ""


def is_ours(host: str) -> bool:
    """Whether this machine has the address of `host`. Raises socket.gaierror where it has none."""
    family, kind, _, _, (address, *_) = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
