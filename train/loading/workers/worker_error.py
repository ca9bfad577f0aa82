"""Send an exception of a data worker to its rank, with the worker's traceback."""

import builtins
import traceback
from dataclasses import dataclass
from typing import Any

from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError


@dataclass(frozen=True)
class WorkerFailure:
    """Sent in place of an answer. A user's exception class is not pickled: its constructor may take other arguments."""

    kind: str
    text: str
    facts: dict[str, Any]
    whole: str  # the traceback with every frame

    @classmethod
    def of(cls, error: Exception) -> "WorkerFailure":
        told = {
            "told": user_error.user_traceback(error),
            "said": user_error.message(error),
            "line": user_error.user_line(error),
        }
        kind = next(found.__name__ for found in type(error).__mro__ if found in (ConfigError, *_KINDS.values()))
        whole = "".join(traceback.format_exception(error))
        return cls(kind, str(error), {**user_error.context_of(error), **told}, whole)

    def error(self) -> Exception:
        """The exception to raise in the rank, of the nearest builtin class."""
        kind = ConfigError if self.kind == ConfigError.__name__ else _KINDS[self.kind]
        try:
            error = kind(self.text)
        except TypeError:  # such as UnicodeDecodeError, which takes more arguments
            error = RuntimeError(self.text)
        user_error.add_context(error, **self.facts)
        error.__cause__ = InWorkerError(f"in a data worker:\n{self.whole}")
        return error


class InWorkerError(Exception):
    """The cause: the worker's traceback with all frames."""


_KINDS: dict[str, type[Exception]] = {
    name: kind for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)
}
