"""The search space: parses the overrides of a command line in Hydra's sweep grammar, and spells a point as overrides."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phalanx.exit.codes import ConfigError

from .grammar import LOG, check_readable, check_tags

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override, Sweep

_KEPT = ("sweep", "run", "cluster", "hydra")  # sections that are not the trials' to differ in


@dataclass(frozen=True)
class Choice:
    """One of `values`, as Hydra reads them."""

    key: str
    values: tuple[str, ...]

    def read(self, text: str) -> str:
        """The value that a word of a command line spells."""
        return text


@dataclass(frozen=True)
class Interval:
    """A number from `low` to `high`, both included; whole where both are."""

    key: str
    low: float
    high: float
    log: bool

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def read(self, text: str) -> float:
        """The value that a word of a command line spells."""
        return int(text) if self.whole else float(text)


@dataclass(frozen=True)
class SearchSpace:
    """`typed` are the words as they were typed, options of Hydra's among them: the later one of two holds. The number of a
    dimension stands where a point has a word of its own."""

    typed: tuple[str | int, ...]
    dimensions: tuple[Choice | Interval, ...]

    def words(self, point: Mapping[str, Any]) -> list[str]:
        """The command line of a point, which has a value for the key of every dimension."""
        return words_in_order(self.typed, self.chosen(point))

    def chosen(self, point: Mapping[str, Any]) -> list[str]:
        """What of it is the point's own; nothing after the equals sign where that is not known."""
        return [f"{dimension.key}={point.get(dimension.key, '')}" for dimension in self.dimensions]

    def grid(self) -> Iterator[dict[str, str]]:
        """All points, the last dimension varying fastest. Raises ConfigError where there are infinitely many."""
        axes = []
        for dimension in self.dimensions:
            if isinstance(dimension, Interval):
                raise ConfigError(
                    f"{dimension.key} may be any number from {dimension.low:g} to {dimension.high:g}, and no grid holds "
                    "all of them. Type sweep=tpe and sweep.trials=… with the number of points to draw"
                )
            axes.append([(dimension.key, value) for value in dimension.values])
        return (dict(point) for point in itertools.product(*axes))

    def boundary_points(self) -> Iterator[dict[str, Any]]:
        """Points that have, together, each choice and both ends of each interval; a dimension with fewer of them than
        others is at its first one again after its last."""
        axes = [_ends(dimension) for dimension in self.dimensions]
        for index in range(max(map(len, axes), default=0)):
            yield {
                d.key: axis[index if index < len(axis) else 0] for d, axis in zip(self.dimensions, axes, strict=True)
            }


def words_in_order(typed: Sequence[str | int], chosen: Sequence[str]) -> list[str]:
    """A point's words, each where it was typed."""
    return [word if isinstance(word, str) else chosen[word] for word in typed]


def parse_space(words: Sequence[str], options: Callable[[str], Sequence[str]]) -> SearchSpace:
    """The space that `words` spell; `options` are those of a config group. Raises ConfigError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    typed: dict[str, str | Choice | Interval] = {}  # by key: the last word for one holds, in the place of the first
    for word in words:
        try:
            override = None if word.startswith("-") else parser.parse_override(word)
        except HydraException as error:
            check_readable(word, error)
            override = None  # composing the points says what is wrong with it
        name = word if override is None else override.get_key_element()
        if override is None or not override.is_sweep_override():
            typed[name] = word
            continue
        if override.key_or_group.replace("/", ".").partition(".")[0] in _KEPT:
            raise ConfigError(f"{word} would let trials differ in what is the sweep's own. Type one value")
        if isinstance(typed.get(name), Choice | Interval):
            raise ConfigError(f"{name} is swept twice. Type it once, with all its values")
        typed[name] = _dimension(name, override, options)
    dimensions = [found for found in typed.values() if not isinstance(found, str)]
    order = [found if isinstance(found, str) else dimensions.index(found) for found in typed.values()]
    return SearchSpace(tuple(order), tuple(dimensions))


def _dimension(name: str, override: "Override", options: Callable[[str], Sequence[str]]) -> Choice | Interval:
    from hydra.core.override_parser.types import Glob, IntervalSweep

    sweep: Any = override.value()
    if not isinstance(sweep, Glob):  # which has none
        check_tags(override, sweep.tags, isinstance(sweep, IntervalSweep))
    if isinstance(sweep, IntervalSweep):
        return _interval(name, override, sweep)
    if isinstance(sweep, Glob):
        values = list(sweep.filter(list(options(override.key_or_group))))
    else:
        _check_range(override, sweep)
        sweep.shuffle = False  # a sampler draws, and a grid has the same order whenever it is gone on with
        values = list(override.sweep_string_iterator())
    unique = tuple(dict.fromkeys(values))
    if not unique:
        raise ConfigError(f"{override.input_line} names no value at all. Type one that does, such as {name}=1,2")
    return Choice(name, unique)


def _check_range(override: "Override", sweep: "Sweep") -> None:
    from hydra.core.override_parser.types import RangeSweep

    if isinstance(sweep, RangeSweep) and not sweep.step:
        raise ConfigError(f"{override.input_line} goes on for ever, with steps of 0. Type another step")


def _interval(name: str, override: "Override", sweep: Any) -> Interval:
    low, high, log = sweep.start, sweep.end, LOG in sweep.tags
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{override.input_line} holds no number: it must go from a lower to a higher one")
    if log and low <= 0:
        raise ConfigError(f"{override.input_line} has no logarithm at {low:g}. Type a lower end above 0")
    return Interval(name, low, high, log)


def _ends(dimension: Choice | Interval) -> Sequence[Any]:
    return dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)
