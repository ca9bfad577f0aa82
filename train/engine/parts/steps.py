"""The step of a run: its optimizers, updater and average, by phase where the task has phases."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from phalanx.config.schema import Config, TrainConfig
from phalanx.exit.codes import ConfigError
from phalanx.targets.instantiate import Targets

from ...distributed.world import World
from ...freezing.phased_updater import PhasedUpdater
from ...optim import optimizer_state
from ...optim.ema import Average
from ...optim.make_optimizers import Made, make_optimizers
from ...optim.optimizer_average import OptimizerAverage
from ...optim.precision import LossScale, Precision
from ...optim.updater import Updater
from ...parallel.strategy import ParallelStrategy
from ...schedules.make_rates import RatesMaker
from ..phased_step import PhasedStep
from ..step import TrainStep
from .rank_parts import RankParts


def make_step(
    config: Config,
    builder: Targets,
    world: World,
    precision: Precision,
    alone: RankParts,
    strategies: Mapping[str | None, ParallelStrategy],
) -> tuple[TrainStep | PhasedStep, Updater | PhasedUpdater, list[Made]]:
    """The step by one strategy, or by one for each phase of the task."""
    timeline, by_phase = alone.loader.timeline, dict[str, TrainStep]()
    samples = alone.loader.epoch_samples
    rates = RatesMaker(builder, config.data, timeline.steps, lambda step: timeline.span(step).start // samples)
    every: list[Made] = []
    for i, (phase, strategy) in enumerate(strategies.items()):
        strategy.begin_phase()
        updater, made = _updater(config, builder, strategy, rates, precision, world.device, phased=bool(phase))
        every.append(made)
        by_phase[phase or ""] = TrainStep(
            strategy=strategy,
            updater=updater,
            precision=precision,
            world=world,
            seed=config.seed,
            counts_data=alone.task.counts_data,
            collates=alone.collations["train"] is not None,
            steps=timeline.steps,
            phase=phase,
            stream=() if phase is None else (i,),
        )
    if not alone.phases:
        return by_phase[""], by_phase[""].updater, every
    updater_of_all = PhasedUpdater({name: own.updater for name, own in by_phase.items()})
    return PhasedStep(by_phase, alone.phases), updater_of_all, every


def _updater(
    config: Config,
    builder: Targets,
    strategy: ParallelStrategy,
    rates: RatesMaker,
    precision: Precision,
    device: torch.device,
    *,
    phased: bool,
) -> tuple[Updater, Made]:
    named = strategy.named_parameters()
    aliases: dict[int, list[str]] = {}
    for name, parameter in strategy.model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), []).append(name)
    made = make_optimizers(config.optim, config.schedule, builder, strategy.model, named, aliases, rates)
    updater = Updater(
        made.optimizers,
        strategy.gradients,
        clip_norm=config.train.clip_norm,
        scale=LossScale(device) if precision.scaled else None,
        average=_average(config.train, made, [p for _, p in named if p.requires_grad or not phased]),
        device=device,
        on_device=device.type == "cuda",
    )
    return updater, made


def _average(train: TrainConfig, made: Made, parameters: Sequence[nn.Parameter]) -> Average | None:
    decay = train.ema_decay
    own = [each.optimizer for each in made.optimizers if optimizer_state.has_modes(each.optimizer)]
    if not own:
        return None if decay is None else Average(parameters, decay)
    for key, value in {"train.ema_decay": decay, "train.average_last": train.average_last}.items():
        if value is not None:
            raise ConfigError(
                f"{key}={value:g} would average what the optimizer {type(own[0]).__name__} averages itself, which its "
                f"eval() puts in place. Type {key}=null"
            )
    return OptimizerAverage(own, parameters)


def notes_of(made: Sequence[Made]) -> list[str]:
    """Of groups without parameters those that have none in any phase."""
    left = [note for note in made[0].left if all(note in each.left for each in made)]
    return list(dict.fromkeys([*left, *(note for each in made for note in each.notes)]))
