"""A task whose process has lost root's right to pass over the permissions of files, from its import on."""

import ctypes

from tests.train.distributed.fault_injection import Sabotaged

_VERSION_3 = 0x20080522  # of the structures below, see capget(2)
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2


class Bereft(Sabotaged):
    pass


def _lose() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    for place in range(3):  # effective, permitted, inheritable, of the first 32
        sets[place] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    assert libc.capset(header, sets) == 0


_lose()
