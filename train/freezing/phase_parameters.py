"""Which parameters each phase of a task trains."""

import re
from collections.abc import Mapping, Sequence

from torch import nn

from phalanx.common.name_patterns import no_pattern
from phalanx.exit.codes import ConfigError

from .name_patterns import matching


def phase_parameters(model: nn.Module, phases: Mapping[str, str]) -> dict[str, list[str]]:
    """The trained parameters of each phase, in the model's order. Raises ConfigError unless each is in exactly one."""
    if not isinstance(phases, Mapping):
        raise ConfigError(
            f"The task's phases are a {type(phases).__name__}, and should be a dict: the name of each and a regular "
            'expression for its parameters. Write phases = {"d": "^discriminator", "g": "^generator"}'
        )
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for phase, pattern in phases.items():
        if not isinstance(phase, str) or not phase.isidentifier() or phase == "loss":
            raise ConfigError(f"The task has a phase called {phase!r}. Give it a name of letters, such as d")
        if (told := no_pattern(pattern, f"phases[{phase!r}] of the task", '"^discriminator"')) is not None:
            raise ConfigError(told)
    found = {phase: matching(pattern, names, f"phases[{phase!r}] of the task") for phase, pattern in phases.items()}
    for name in names:
        if len(ins := [phase for phase, members in found.items() if name in members]) != 1:
            raise ConfigError(_not_one(name, ins, phases))
    return found


def _not_one(name: str, ins: Sequence[str], phases: Mapping[str, str]) -> str:
    told = ", ".join(f"{phase}: {pattern}" for phase, pattern in phases.items())
    if ins:
        return (
            f"The parameter {name} is in the phases {' and '.join(ins)} of the task ({told}), and one has to train it"
        )
    return (
        f"The parameter {name} is in none of the task's phases ({told}), so nothing would train it. Let one of the "
        f"patterns match it, or freeze it: train.freeze=[{{match: '^{re.escape(name)}$'}}]"
    )
