"""Sanity check before the first step of a start: one training and one evaluation batch. All state is restored."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

from phalanx.config.metric_direction import has_named_sets, of_checkpoint, split_and_name, steering
from phalanx.config.schema import Config
from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError

from ..checkpoint.preserve import unchanged
from ..distributed.world import World
from ..evaluation.evaluate import who_waits
from ..loading.batch import Batch, apply
from ..loading.collation import tell_who_made
from ..loading.loader import Loader, SampleBatch
from ..tasks.answer import new_metrics
from ..tasks.mean_loss import warn_of_mean
from .parts.build import Parts

logger = logging.getLogger(__name__)


def sanity_check(config: Config, parts: Parts, world: World) -> list[str]:
    """Run the warm-up backward, on the same batch for any start, and an evaluation batch.

    Returns the metrics' names. All ranks call it. Raises ConfigError for what would fail later in the run.
    """
    model, loader, single = parts.state.model, parts.loader, parts.sample_batch.single
    known = [name for name, _ in model.named_parameters()]
    world.watchdog.at("warm up", 0)
    with unchanged(model, parts.task):
        whole = replace(parts.sample_batch, batch=apply(parts.sample_batch.batch, parts.mover))
        found, waits = _warm_up(parts, whole)
        # All ranks take part; their batches may differ in metrics.
        names = list(dict.fromkeys(chain(*world.gather(found))))
        _check_parameters([name for name, _ in model.named_parameters()], known)
        if parts.step.gathers:
            _check_whole(loader)
        if waits:
            _check_equal(loader, world.size, parts.step.strategy.collective_forward)
        elif not config.train.compile:  # which would compile for each of its shapes
            with parts.precision.autocast(world.device):
                warn_of_mean(parts.task, model, whole.batch, whole.span.stop - whole.span.start)
        if single is not None:
            # All ranks take part: whether there is such a batch depends on the loader, which is the same on all.
            world.raise_on_all(lambda: _try_alone(parts, apply(single, parts.mover)))
        of_sets = parts.evaluations.sanity_check(model, world)  # all ranks take part
        if of_sets:
            _check_metric(config, of_sets)
        else:
            # All ranks take part.
            unused = list(world.raise_on_all(lambda: new_metrics(parts.task)))
            _check_unused(config, names, unused)
    return names


def retrain(parts: Parts, names: Sequence[str]) -> None:
    """Between two steps: train the parameters `names` and no others from now on. All ranks call it.

    The backward that counts for nothing is made again, on the same batch as at a start: what it decides, the layout of
    the gradients, is then the same whether the run came here or was restarted here.
    """
    parts.step.retrain(names)  # all ranks take part, in this and what follows
    with unchanged(parts.state.model, parts.task):
        parts.step.warm_up(replace(parts.sample_batch, batch=apply(parts.sample_batch.batch, parts.mover)))


def _warm_up(parts: Parts, batch: SampleBatch) -> tuple[list[str], bool]:
    try:
        return parts.step.warm_up(batch)  # all ranks take part
    except Exception as error:
        if "read" not in user_error.context_of(error):
            raise
        raise tell_who_made(error, parts.loader.fetcher.source.collate) from error.__cause__


def _check_parameters(now: list[str], known: list[str]) -> None:
    if made := [name for name in now if name not in known]:
        raise ConfigError(
            f"The forward made the parameter {made[0]}, which neither optimizer nor reduction know. Make parameters in "
            "the model's __init__"
        )


def _check_metric(config: Config, found: Mapping[str, list[str]]) -> None:
    """`found` are the metrics' names by evaluation set. Raises ConfigError on all ranks alike."""
    best, wanted = of_checkpoint(config), steering(config)
    asked = {key: split_and_name(metric, config.data) for key, metric in wanted.items()}
    if best is not None:
        wanted = {**wanted, "checkpoint.best_metric": str(config.checkpoint.best_metric)}
        asked["checkpoint.best_metric"] = best.split, best.name
    for key, (split, name) in asked.items():
        if found[split] and name not in found[split]:
            named = has_named_sets(config.data)
            known = [f"{of}/{metric}" if named else metric for of, metrics in found.items() for metric in metrics]
            raise ConfigError(
                f"{key}={wanted[key]} is no metric of the task. Type {key}={known[0]}, or one of {', '.join(known)}",
                agreed=True,
            )


def _check_unused(config: Config, names: list[str], unused: list[str]) -> None:
    """`unused` are metrics of evaluations, where there is none. Raises ConfigError on all ranks alike."""
    best = config.checkpoint.best_metric
    if best is not None and best.partition("/")[0] in unused:
        raise ConfigError(
            f"checkpoint.best_metric={best} is computed in evaluations alone, and data.eval=null. Type data.eval=…, or "
            f"checkpoint.best_metric={names[0]}",
            agreed=True,
        )
    if best is not None and best not in names:
        raise ConfigError(
            f"checkpoint.best_metric={best} is no metric of the task. Type checkpoint.best_metric={names[0]}, or one "
            f"of {', '.join(names)}",
            agreed=True,
        )
    if unused:
        logger.warning("%s of the task are computed in evaluations alone, and data.eval=null", ", ".join(unused))


def _check_equal(loader: Loader, ranks: int, collective_forward: bool) -> None:
    """Raise ConfigError if ranks would make different numbers of forwards, or of other shapes: collectives would hang."""
    step, line = loader.step_with_unequal_shares(), loader.timeline
    if step is None:
        return
    span = line.span(step)
    short = step == line.steps - 1 and span.stop - span.start < line.global_batch
    type_ = f"train.steps={step}" if short else f"train.global_batch={_multiple(line.global_batch, ranks)}"
    raise ConfigError(
        f"{who_waits(collective_forward)} waits for other ranks in its forward, so all need equal shares of every "
        f"batch, and the {span.stop - span.start} samples of step {step + 1} do not divide among {ranks} ranks"
        f"{' in micro-batches of one size' if loader.micro_batch else ''}. Type {type_}"
        f"{' train.micro_batch=null' if loader.micro_batch and not short else ''}",
        agreed=True,
    )


def _check_whole(loader: Loader) -> None:
    """Raise ConfigError where a rank takes its share in pieces, of which a loss over all samples sees one at a time."""
    if (step := loader.step_in_pieces()) is not None:
        raise ConfigError(
            f"The task gathers features (phalanx.gather), and its loss compares all samples of a batch, but with "
            f"train.micro_batch={loader.micro_batch} a rank takes its share of step {step + 1} in several pieces, each of "
            "which would be compared alone. Type train.micro_batch=null",
            agreed=True,
        )


def _multiple(batch: int, ranks: int) -> int:
    return max(ranks, batch // ranks * ranks)


def _try_alone(parts: Parts, single: Batch) -> None:
    """Raise ConfigError if the model fails on a batch of one sample, and a rank will get one."""
    loader, line = parts.loader, parts.loader.timeline
    step = loader.step_with_single_sample()
    assert step is not None
    try:
        parts.step.try_alone(single)
    except Exception as error:
        span = line.span(step)
        short = step == line.steps - 1 and span.stop - span.start < line.global_batch
        raise ConfigError(
            f"The model cannot train on one sample alone ({type(error).__name__}: {error}), and step {step + 1}, of "
            f"{span.stop - span.start} samples, gives a rank one alone. Type "
            f"{f'train.steps={step}' if short else 'another train.global_batch or train.micro_batch'}"
        ) from error
