"""NVML, the library of NVIDIA's driver: the only way in which GPUs are counted without torch."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

CONTROL = Path("/dev/nvidiactl")  # there once the driver is loaded, in a container where it was given GPUs
PCI = Path("/sys/bus/pci/devices")
_VENDOR = "0x10de"
_DISPLAY = "0x03"  # the PCI class of graphics cards, also of those without a display
_ANSWER_S = 30.0  # a driver that is loaded for this one question, with eight GPUs, takes up to ten

Found = TypeVar("Found")


class DriverError(Exception):
    """This machine has an NVIDIA driver, and NVML cannot be asked. The text says why."""


@contextmanager
def opened() -> Iterator[Any]:
    """NVML (the module pynvml), or None on a machine without an NVIDIA driver.

    Raises DriverError where there is a driver that cannot be asked, also for what NVML answers to the questions within.
    """
    nvml = _initialised()
    if nvml is None:
        yield None
        return
    try:
        yield nvml
    except nvml.NVMLError as error:
        raise DriverError(f"NVML says {str(error)!r}") from None
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


@contextmanager
def library() -> Iterator[Any]:
    """NVML for optional facts: None also if it cannot be initialised."""
    try:
        nvml = _initialised()
    except DriverError:
        nvml = None
    try:
        yield nvml
    finally:
        if nvml is not None:
            with suppress(nvml.NVMLError):
                nvml.nvmlShutdown()


def ask(question: Callable[[Any], Found], answer_s: float = _ANSWER_S) -> Found | None:
    """What `question` finds out from NVML, which it is called with; None on a machine without an NVIDIA driver.

    Raises DriverError where there is a driver and no answer: a driver that has lost a GPU may never return.
    """
    answers: list[Found | None] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            with opened() as nvml:
                answers.append(None if nvml is None else question(nvml))
        except Exception as error:  # raised below, in the thread of whoever asks
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(answer_s)
    if errors:
        raise errors[0]
    if not answers:
        raise DriverError(f"NVML has not answered for {answer_s:.0f} s")
    return answers[0]


def has_driver() -> bool:
    """Whether this machine has an NVIDIA driver, working or not."""
    try:
        with opened() as nvml:
            return nvml is not None
    except DriverError:
        return True


def driver_version() -> str | None:
    """The version of the GPU driver; None where there is none or it does not tell."""
    try:
        with opened() as nvml:
            return None if nvml is None else text(nvml.nvmlSystemGetDriverVersion())
    except DriverError:
        return None


def text(answer: str | bytes) -> str:
    """What NVML answers as text: before nvidia-ml-py 12 it was bytes."""
    return answer.decode() if isinstance(answer, bytes) else answer


def _initialised() -> Any:
    try:
        import pynvml  # here, for most commands ask for no GPU
    except ImportError as error:
        if CONTROL.exists():
            raise DriverError(f"{error}: type pip install nvidia-ml-py") from None
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if _has_driver(pynvml, error):
            raise DriverError(f"NVML says {str(error)!r}") from None
        return None
    return pynvml


def _has_driver(nvml: Any, error: Any) -> bool:
    """Whether a machine where NVML does not start, for `error`, has an NVIDIA driver all the same."""
    if error.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return CONTROL.exists()
    if error.value == nvml.NVML_ERROR_DRIVER_NOT_LOADED:  # as on a login node, and where a new kernel has no module yet
        return CONTROL.exists() or _has_card()
    return True


def _has_card() -> bool:
    """Whether the PCI bus has an NVIDIA GPU, with a driver or without."""
    for device in PCI.glob("*"):
        with suppress(OSError):
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
            if vendor == _VENDOR and kind.startswith(_DISPLAY):
                return True
    return False
