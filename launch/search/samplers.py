"""Samplers of points: grid, random and TPE, the latter two guarded against points that ran out of memory.

To be imported late: Optuna takes half a second. To add a sampler: its name in SamplerName of phalanx/config/schema.py, its
option conf/sweep/NAME.yaml, and a branch in `random_or_tpe`.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from phalanx.config.schema import SamplerName, SweepConfig

_NEAR = 0.1  # of a dimension's range, within which two points are close
_DRAWS = 20  # before a point is taken that is close to one to be kept away from


class _JointSampler(BaseSampler):
    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self._distributions = dict(distributions)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise NotImplementedError("every dimension was drawn already")


class GridPoints(_JointSampler):
    """Samples one given point of a grid."""

    def __init__(self, point: Mapping[str, str], distributions: Mapping[str, BaseDistribution]) -> None:
        super().__init__(distributions)
        self._point = dict(point)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._point


class GuardedSampler(_JointSampler):
    """Samples as `drawn_by` does, but not close to trials that have the attribute `avoided`."""

    def __init__(self, drawn_by: BaseSampler, distributions: Mapping[str, BaseDistribution], avoided: str) -> None:
        super().__init__(distributions)
        self._sampler = drawn_by
        self._avoided = avoided

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        avoided = [other.params for other in study.get_trials(deepcopy=False) if other.user_attrs.get(self._avoided)]
        for _ in range(_DRAWS):
            point = self._drawn(study, trial)
            if not any(self._close(point, other) for other in avoided):
                break
        return point

    def _drawn(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        space = self._sampler.infer_relative_search_space(study, trial)
        point = self._sampler.sample_relative(study, trial, space)
        rest = {name: of for name, of in self._distributions.items() if name not in point}
        return point | {name: self._sampler.sample_independent(study, trial, name, of) for name, of in rest.items()}

    def _close(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        return all(_is_close(of, one[name], other[name]) for name, of in self._distributions.items())


def _is_close(of: BaseDistribution, one: Any, other: Any) -> bool:
    if isinstance(of, CategoricalDistribution):
        return bool(one == other)
    scale = math.log if getattr(of, "log", False) else float
    low, high = getattr(of, "low", 0.0), getattr(of, "high", 0.0)
    return abs(scale(one) - scale(other)) <= _NEAR * (scale(high) - scale(low))


def random_or_tpe(
    config: SweepConfig, number: int, distributions: Mapping[str, BaseDistribution], avoided: str
) -> GuardedSampler:
    """The sampler of trial `number`, seeded by the sweep's seed and that, so that it does not matter who asked when."""
    seed = (config.seed * 1_000_003 + number) % 2**32
    if config.sampler is SamplerName.random:
        return GuardedSampler(RandomSampler(seed), distributions, avoided)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that these options may change
        tpe = TPESampler(seed=seed, multivariate=True, constant_liar=True, warn_independent_sampling=False)
    return GuardedSampler(tpe, distributions, avoided)
