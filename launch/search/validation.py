"""Validates a search space before anything is trained: composes and checks points at its boundary."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from phalanx.config.schema import Config
from phalanx.exit.codes import ConfigError

from .space import Interval, SearchSpace

if TYPE_CHECKING:
    from phalanx.compose.compose import Composed


def validated_configs(space: SearchSpace, trial_overrides: Sequence[str]) -> list[Config]:
    """The configs of points that have, together, each choice and both ends of each interval; the first one at least.

    Raises ConfigError where one of them is none, or asks for what cannot be.
    """
    from phalanx.compose.compose import compose  # here, with Hydra

    try:
        first = compose([*space.words(next(space.boundary_points(), {})), *trial_overrides])
        return [_checked(space, point, first, trial_overrides) for point in space.boundary_points()] or [first.config]
    except ConfigError as error:
        raise _about_whole_numbers(space, error) or error from None


def _checked(space: SearchSpace, point: Mapping[str, Any], first: "Composed", trial_overrides: Sequence[str]) -> Config:
    from phalanx.compose.compose import compose
    from phalanx.config.limits import check

    config = _near(space, point, first)
    if config is None:
        config = compose([*space.words(point), *trial_overrides]).config
        check(config, config.sweep.ranks)
    return config


def _near(space: SearchSpace, point: Mapping[str, Any], first: "Composed") -> Config | None:
    """The config of a point that differs from the first one in plain values alone, where nothing is wrong with it: Hydra
    takes 0.1 s for a point, and a space may have thousands of values. None where Hydra has to say."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from phalanx.config.check import to_config
    from phalanx.config.limits import check

    parser, plain = OverridesParser.create(), dict(first.plain)
    at_first = space.chosen(next(space.boundary_points()))
    try:
        for word in space.chosen(point):
            if word in at_first:
                continue
            override = parser.parse_override(word)
            if not _set(plain, override.get_key_element(), override.value()):
                return None
        config = to_config(plain)
        check(config, config.sweep.ranks)
    except ConfigError:
        return None
    return config


def _set(plain: dict[str, Any], key: str, value: object) -> bool:
    """Put a plain value where there is one already; returns whether that could be done."""
    *path, last = key.split(".")
    for name in path:
        if not isinstance(plain.get(name), dict):
            return False
        plain[name] = plain = dict(plain[name])
    if not path or isinstance(plain.get(last, {}), dict | list) or not isinstance(value, bool | int | float):
        return False
    plain[last] = value
    return True


def _about_whole_numbers(space: SearchSpace, error: ConfigError) -> ConfigError | None:
    for dimension in space.dimensions:
        if isinstance(dimension, Interval) and not dimension.whole and str(error).startswith(f"{dimension.key}="):
            interval = f"interval({dimension.low:g},{dimension.high:g})"
            return ConfigError(
                f"{str(error).partition('. Type ')[0]}, and {interval} draws fractions. Type "
                f"'{dimension.key}=int({interval})'"
            )
    return None
