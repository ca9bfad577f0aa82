"""`phalanx bench`: trains the same steps on several devices, compares their numbers, and says how fast each is."""

import json
import os
import sys
from collections.abc import Sequence

import click

from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.messages import say

from ...common.show import show
from ...host.machine import this_machine
from ..hydra_words import config_options, hydra_words
from .comparison import Difference, Measured, difference, table
from .device_run import WINDOWS, train

CPU, CUDA = "cpu", "cuda"
_FIRST = 10  # steps whose numbers are compared; later ones drift apart by rounding alone


@click.command()
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--devices", default=f"{CPU},{CUDA}", show_default=True, help="What is compared, with the first one.")
@click.option("--steps", type=click.IntRange(min=WINDOWS), default=120, show_default=True, help="Steps of a turn.")
@click.option("--turns", type=click.IntRange(min=1), default=3, show_default=True, help="Turns of each device.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON a device.")
@config_options
def bench(
    overrides: Sequence[str],
    devices: str,
    steps: int,
    turns: int,
    as_json: bool,
    config_dir: str | None,
    config_name: str | None,
) -> None:
    """Train the same steps of a config on each device, one rank each, and print how fast each of them is.

    KEY=VALUE are the words of the run, such as experiment=mnist train.precision=fp32. The first steps are compared one by
    one: where losses or norms of gradients, of the weights or of their change differ by more than the precisions explain,
    the exit code is 1. Then the devices take turns, so that whatever else the machine does meets all alike; a step's time
    is the median, without the first part of each turn. Nothing is evaluated, and no trace of the runs is left.
    """
    words = hydra_words(config_dir, config_name, overrides)
    asked = _available(devices)
    first = [train(words, device, _FIRST, 1, saved=True) for device in asked]
    for device, run in zip(asked[1:], first[1:], strict=True):
        _compare((asked[0], device), difference(first[0], run))
    timed = [[train(words, device, steps, steps // WINDOWS) for device in asked] for _ in range(turns)]
    found = [Measured(device, first[i], [turn[i] for turn in timed]) for i, device in enumerate(asked)]
    rows = [each.row(found[0].step_s) for each in found]
    show("\n".join(map(json.dumps, rows)) if as_json else table(rows))


def _compare(devices: tuple[str, str], worst: Difference) -> None:
    """Say how far apart they are; exits with code 1 where rounding does not explain it."""
    if worst.is_rounding:
        both = " and ".join(devices)
        say(f"{both} took the same {_FIRST} steps, within {worst.relative:.2g} (of {worst.tolerance:g})")
        return
    say(
        f"error: {worst.told(devices)}. Look for what draws at random in the model, such as dropout, which each kind of "
        "device draws in its own way, and for what depends on the device"
    )
    sys.exit(ExitCode.BUG)


def _available(devices: str) -> list[str]:
    """Those of `devices` that this machine has; what it lacks is said. Raises ConfigError."""
    asked = [word.strip() for word in devices.split(",") if word.strip()]
    if not asked or (unknown := [word for word in asked if word not in (CPU, CUDA)]):
        found = "nothing" if not asked else unknown[0]
        raise ConfigError(f"--devices={devices}: {found} is no kind of device. Type {CPU}, {CUDA} or both")
    if CUDA not in asked or this_machine(os.environ, wants_gpus=True).gpus:
        return asked
    there = [device for device in asked if device != CUDA]
    lacking = f"--devices={devices}: there is no GPU here, or none that CUDA_VISIBLE_DEVICES shows"
    if not there:
        raise ConfigError(f"{lacking}. Type --devices {CPU}, or the same on a machine that has one")
    say(f"{lacking}: {CUDA} is not measured")
    return there
