"""Retries calls to an Optuna storage whose database does not answer, as when it restarts; trials train on meanwhile."""

import functools
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from phalanx.common.redaction import redact
from phalanx.exit.codes import ConfigError
from phalanx.exit.messages import say

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

RETRY_FOR_S = 120.0
_TELL_S = 5.0  # of waiting, after which it is said
_RETRY_EVERY_S = 0.5  # between two attempts


class StorageUnavailable(ConfigError):  # noqa: N818
    """The storage did not answer in time, or a signal ended the wait."""


def retry_calls(storage: "BaseStorage", url: str, retry_for_s: float = RETRY_FOR_S) -> None:
    """From now on each call of `storage` is made again until it is answered, for `retry_for_s` seconds at most, or until a
    signal waits to be heard; raises StorageUnavailable then."""
    from optuna.storages import BaseStorage

    for name in sorted(BaseStorage.__abstractmethods__):
        setattr(storage, name, _retrying(getattr(storage, name), url, retry_for_s))


def _retrying(call: Callable[..., Any], url: str, retry_for_s: float) -> Callable[..., Any]:
    from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
    from sqlalchemy.exc import DBAPIError

    @functools.wraps(call)
    def wait_for(*given: Any, **named: Any) -> Any:
        began, told, tries = time.monotonic(), False, 0
        while True:
            try:
                return call(*given, **named)
            except UpdateFinishedTrialError:
                if not tries:
                    raise
                return True  # it was told, and only the answer got lost
            except (StorageInternalError, DBAPIError) as error:
                reason = " ".join(str(error.__cause__ or error).split()).partition(" (Background on")[0]
            tries += 1
            waited_s, where = time.monotonic() - began, f"sweep.storage={redact(url)}"
            if waited_s > retry_for_s or signal.sigpending():
                raise StorageUnavailable(
                    f"{where} has not answered for {waited_s:.0f} s: {redact(reason)}. What is under way is saved; the "
                    "same command continues when it is back"
                ) from None
            if waited_s > _TELL_S and not told:
                say(
                    f"phalanx: {where} does not answer and is waited for, {retry_for_s:.0f} s at most: {redact(reason)}"
                )
                told = True
            time.sleep(_RETRY_EVERY_S)

    return wait_for
