"""How a rank leaves when something went wrong: who speaks, which exit code, and that nobody is left waiting."""

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from train.outcome import ConfigError, ExitCode, GaveUp, PeerFailed
from train.refusal import end, refuse, say
from train.world import World

logger = logging.getLogger(__name__)


@contextmanager
def ending(world: World) -> Iterator[None]:
    """Leave the world in good order, or end the process with the code of what went wrong."""
    try:
        yield
        world.leave()
    except ConfigError as error:
        if error.agreed:
            refuse(error, world.leads)
        _fail(world, error)
    except BaseException as error:
        _fail(world, error)


def _fail(world: World, error: BaseException) -> None:
    """End with the code of the first failure of any rank; the rank that failed first speaks."""
    failure = world.fail(error, code_of(error))
    if failure.rank == world.rank:
        say(_words(error))
        logger.info("%s", failure)
        world.wait_until_heard()
    else:
        logger.info("leaving because %s", failure)
    end(failure.code)


def code_of(error: BaseException) -> ExitCode:
    if isinstance(error, ConfigError):
        return ExitCode.CONFIG
    if isinstance(error, GaveUp):
        return ExitCode.GAVE_UP
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return ExitCode.OUT_OF_MEMORY
    return ExitCode.BUG


def _words(error: BaseException) -> str:
    if isinstance(error, ConfigError | GaveUp):
        return f"error: {error}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command continues from the newest checkpoint"
    if isinstance(error, PeerFailed):
        return str(error)
    rank = os.environ.get("RANK", "0")
    return f"error on rank {rank}:\n" + "".join(traceback.format_exception(error))
