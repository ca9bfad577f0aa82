"""Whether a port of a machine can be reached, and why not."""

import socket

_ANSWER_S = 3.0


def why_closed(address: str, port: int) -> str:
    """Empty where it is open."""
    try:
        socket.create_connection((address, port), timeout=_ANSWER_S).close()
    except TimeoutError:
        return f"no answer within {_ANSWER_S:g} s, as behind a firewall"
    except ConnectionRefusedError:
        return "the machine answers, but nobody listens on this port"
    except OSError as error:
        return str(error.strerror or error)
    return ""
