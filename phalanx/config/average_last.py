"""train.average_last: which checkpoints are averaged at the end of a run."""

from ..exit.codes import ConfigError
from .schema import Config


def steps_averaged(last: int, every: int, begin: int, end: int) -> list[int]:
    """The `last` newest of the checkpoints of a run that goes from step `begin` to `end`, ascending.

    These are of multiples of `every` and of `end` itself.
    """
    newest = (end - 1) // every
    oldest = max(begin // every + 1, newest - last + 2)
    return [*(every * number for number in range(oldest, newest + 1)), end]


def check_average_last(config: Config) -> None:
    """Raise ConfigError where what is to be averaged cannot be."""
    last, every = config.train.average_last, config.checkpoint.every
    if last is None:
        return
    if every is None:
        raise ConfigError(
            f"train.average_last={last} averages checkpoints of every checkpoint.every steps, and checkpoint.every=null. "
            "Type checkpoint.every=100"
        )
    if config.train.ema_decay is not None:
        raise ConfigError(
            f"train.average_last={last} and train.ema_decay={config.train.ema_decay:g} are both set, and a run has one "
            "average. Type train.ema_decay=null, or train.average_last=null"
        )
    if config.train.steps is not None and config.train.extend_from is None:
        check_enough(config, 0, config.train.steps)


def check_enough(config: Config, begin: int, end: int) -> None:
    """Raise ConfigError where a run from step `begin` to `end` will not have the checkpoints that are to be averaged."""
    last, every = config.train.average_last, config.checkpoint.every
    if last is None or every is None:
        return
    found = len(steps_averaged(last, every, begin, end))
    if found == last:
        return
    often = (end - begin) // last
    raise ConfigError(
        f"train.average_last={last} averages more checkpoints than the run will have: {end - begin} steps with "
        f"checkpoint.every={every} make {found}. Type "
        + (f"checkpoint.every={often}" if often else f"train.average_last=null, or more than {end - begin} steps")
        + (f", or train.average_last={found}" if found > 1 and often else "")
    )
