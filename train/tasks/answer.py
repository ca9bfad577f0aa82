"""Check what a task returns: ratios, metrics, names, numbers. Nothing here synchronises with a device."""

import numbers
import re
from collections.abc import Mapping

import torch

from phalanx.exit.codes import ConfigError

from ..sinks.shown import Shown
from .metric import Metric, Update
from .task import Ratio, Sum, Task
from .torch_metric import TorchMetric, is_torch_metric

# Keys of a metrics line beside the task's own.
RESERVED = frozenset(
    {"step", "split", "time", "epoch", "lr", "grad_norm", "skipped", "memory_gib", "page_faults", "mfu"}
    | {"samples_per_s", "tokens_per_s", "step_time_s", "data_wait_s"}
)
MOST_SHOWN = 64  # things of an evaluation
_FILE = re.compile(r"\w[\w.-]*", re.ASCII)
_SUM = 'Ratio(F.cross_entropy(logits, labels, reduction="sum"), len(labels))'


def checked(found: object, *, trains: bool) -> dict[str, Ratio]:
    """The ratios of one batch, each of two single numbers, without updates. `trains`: the loss is to be differentiated.

    Raises ConfigError that says what was returned and what to return.
    """
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"The task's ratios() answered with {_told(found)}, and not with its metrics by name. "
            f'Write return {{"loss": {_SUM}}}'
        )
    ratios = {name: _ratio(name, value) for name, value in found.items() if not isinstance(value, Update)}
    if "loss" not in ratios:
        raise ConfigError(f"The task's ratios are {', '.join(ratios) or 'none'}; one of them must be called loss")
    if trains and not ratios["loss"].total.requires_grad:
        raise ConfigError(
            "The task's loss depends on no weight: it was detached, taken out by .item(), or computed under "
            "torch.no_grad(). Return the sum that the model's answers lead to"
        )
    return ratios


def updates(found: Mapping[str, object]) -> dict[str, Update]:
    """The metric updates among what `ratios` returned, by name."""
    return {name: value for name, value in found.items() if isinstance(value, Update)}


def new_metrics(task: Task) -> dict[str, Metric]:
    """New metrics of the task. Raises ConfigError if they are no Metrics, or have reserved names."""
    found: object = task.metrics()
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"The task's metrics() answered with {_told(found)}, and not with its metrics by name. Write "
            'return {"f1": MacroF1()}'
        )
    found = {name: TorchMetric(metric) if is_torch_metric(metric) else metric for name, metric in found.items()}
    for name, metric in found.items():
        _check_name(name)
        if not isinstance(metric, Metric):
            made = (
                f"Make one: {metric.__name__}(…)"
                if isinstance(metric, type)
                else "Derive it from phalanx.Metric, or take one of torchmetrics"
            )
            raise ConfigError(
                f"The task's metrics() has a {name} that is {_told(metric)}, and no Metric. {made}. Sums and counts are "
                "Ratios, which ratios() returns"
            )
    if len({id(metric) for metric in found.values()}) < len(found):
        raise ConfigError("The task's metrics() gives one Metric under two names. Make one for each")
    return dict(found)


def checked_shown(found: object) -> dict[str, Shown]:
    """What the task's `show` gave, on the host. Raises ConfigError for what cannot be shown."""
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"The task's show() answered with {_told(found)}, and not with what it shows by name. Write "
            'return {"examples": Image(pixels)}'
        )
    for name, item in found.items():
        if not isinstance(name, str) or not _FILE.fullmatch(name):
            raise ConfigError(
                f"The task shows something called {name!r}, which is to name a file. Use letters, digits, - and _"
            )
        if not isinstance(item, Shown):
            raise ConfigError(
                f"The task's show() has a {name} that is {_told(item)}. Show an Image, Table, Text or Audio of phalanx"
            )
    if len(found) > MOST_SHOWN:
        raise ConfigError(
            f"The task's show() gave {len(found)} things of one evaluation, and {MOST_SHOWN} are the most. Draw several in "
            "one picture, as phalanx.drawing does, or as rows of a Table"
        )
    return {name: item.held() for name, item in found.items()}


def numbers_of(name: str, value: object) -> dict[str, float]:
    """The values of metric `name` by the keys of a metrics line: `name/key`. Raises ConfigError.

    Where one key is "" that is the metric's own value, and keys such as "_50" are `name_50`.
    """
    if not isinstance(value, Mapping):
        return {name: _computed(name, value)}
    keys = {key: f"{name}{key if '' in value and str(key)[:1] in ('', '_') else f'/{key}'}" for key in value}
    found = {keys[key]: _computed(keys[key], number) for key, number in value.items()}
    for key in found:
        _check_name(key)
    return found


def derived(task: Task, sums: Mapping[str, Sum]) -> dict[str, float]:
    """What the task derives from the sums; nothing of none, as where a collate has left no sample.

    Raises ConfigError for what is no number, or under another's name.
    """
    if type(task).derive is Task.derive or not sums:
        return {}
    found: object = task.derive(sums)
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"The task's derive() answered with {_told(found)}, and not with numbers by name. Write "
            'return {"perplexity": math.exp(sums["loss"].mean)}'
        )
    for name in found:
        _check_name(name)
    return {name: _computed(name, value) for name, value in found.items()}


def joined(ratios: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, float]:
    """Both merged. Raises ConfigError for a name that is in both."""
    if twice := sorted(ratios.keys() & metrics.keys()):
        raise ConfigError(
            f"The task has two metrics called {twice[0]}, of those that ratios() returns and those of metrics(). Give "
            "one of them another name"
        )
    return {**ratios, **metrics}


def _computed(name: str, value: object) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        return float(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise ConfigError(
        f"The task's {name} was computed as {_told(value)}, and should be one number. Return a float, or several by name: "
        '{"cat": 0.5, "dog": 0.7}'
    )


def check_count(count: torch.Tensor | int, samples: int, *, counts_data: bool) -> None:
    """Raise ConfigError where the loss of `samples` samples is divided by something else than the task says.

    The gradient of a task that does not count data is divided by samples, whatever its ratios say.
    """
    fixed = not isinstance(count, torch.Tensor)
    if counts_data:
        if fixed and count == 1 < samples:
            raise ConfigError(
                f"The task's loss is counted as 1 for {samples} samples, though counts_data = True says that the data "
                "know the count: a mean of means depends on how the samples were cut into batches, and so would the "
                "evaluation on eval.batch. Return the sum over what is counted, such as tokens, and their number"
            )
    elif fixed and count == 1 < samples:
        raise ConfigError(
            f"The task's loss is counted as 1, and a batch has {samples} samples: a mean already. Return the sum and "
            f"the number of samples, as in {_SUM}. Where only the data know the count, such as of tokens, return their "
            "sum and number, and write counts_data = True in the task's class"
        )
    elif not fixed or count != samples:
        raise ConfigError(
            f"The task divides its loss by {count if fixed else 'a tensor'}, and a batch has {samples} samples. Return "
            f"the sum and the number of samples, as in {_SUM}. Where only the data know the count, such as of tokens, "
            "write counts_data = True in the task's class"
        )


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ConfigError(f"The task has a metric called {name!r}. Give it a name of letters and digits")
    if name in RESERVED:
        raise ConfigError(
            f"The task has a metric called {name}, and a line of metrics says something else under that name. "
            f"Call it {name}_of_task, or anything but {', '.join(sorted(RESERVED))}"
        )


def _ratio(name: str, value: object) -> Ratio:
    _check_name(name)
    if isinstance(value, Metric):
        raise ConfigError(
            f"ratios() of the task returned the Metric {name} itself. Return what updates it, such as "
            f'{{"{name}": Update(logits, labels)}}, and make it in metrics()'
        )
    if not isinstance(value, tuple) or len(value) != 2:
        raise ConfigError(
            f"The task's {name} is {_told(value)}, and no ratio. Return the sum over the samples and what it is to be "
            f"divided by, as in {_SUM}"
        )
    total, count = value
    if not isinstance(count, int):
        count = _tensor(name, "count", count) if isinstance(count, torch.Tensor) else _number(name, "count", count)
    return Ratio(_tensor(name, "total", total), count)


def _tensor(name: str, part: str, value: object) -> torch.Tensor:
    """A tensor of no dimensions. A number becomes one."""
    if not isinstance(value, torch.Tensor):
        return torch.tensor(_number(name, part, value), dtype=torch.float64)
    if value.dim() == 0 and not value.is_complex():
        return value
    if value.numel() != 1 or value.is_complex():
        raise ConfigError(
            f"The {part} of the task's {name} is {_told(value)}, and should be one number. "
            f"Return its {'real part' if value.is_complex() else 'sum: .sum()'}"
        )
    return value.reshape(())


def _number(name: str, part: str, value: object) -> float:
    if not isinstance(value, numbers.Real):
        raise ConfigError(f"The {part} of the task's {name} is {_told(value)}, and should be one number")
    return float(value)


def _told(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)} and {str(value.dtype).removeprefix('torch.')}"
    return "nothing" if value is None else f"a {type(value).__name__}"
