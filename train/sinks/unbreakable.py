"""A text stream whose reader may go away, and whose encoding may not know every character."""

import contextlib
import io
import os
from typing import TextIO, final


@final
class Unbreakable(io.TextIOBase):
    """Passes text on to `stream` at once. No failure there is raised; once its reader is gone, it is silent.

    A reader is gone for the whole process, so what else is printed there then goes to the null device. So does what is
    still buffered, which would otherwise make the interpreter end with code 120.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute in the base class
        return self._stream.encoding or "ascii"

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> int:
        if not self._gone:
            try:
                self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
                self._stream.flush()
            except BlockingIOError:
                pass  # a slow reader of a pipe that somebody made non-blocking: this text is lost, the next may fit
            except (OSError, ValueError):
                self._give_up()
        return len(text)

    def _give_up(self) -> None:
        self._gone = True
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
