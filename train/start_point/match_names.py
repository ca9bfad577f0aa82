"""Match the names of given weights with those of the model: prefixes of wrappers, and what train.init_* says."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from phalanx.config.init_keys import rename_pairs, skip_patterns
from phalanx.config.schema import TrainConfig
from phalanx.exit.codes import ConfigError

from ..checkpoint.weights import misfits, tensors_of
from .adapters import named_as_in

_COMPILED = "_orig_mod."  # what torch.compile puts before the names of a module that it wraps
_WRAPPED = "module."  # what DistributedDataParallel and DataParallel put before all names
_MOST = 6  # patterns that a message offers


@dataclass(frozen=True)
class Matched:
    """`tensors` has one for each name of the model, `loaded` lists those from the file, `new` those that stay as they were
    drawn; `left` are names of the file that nothing was taken of, `said` what was done to names by itself."""

    tensors: dict[str, torch.Tensor]
    extra: dict[str, Any]
    loaded: list[str]
    new: list[str]
    left: list[str]
    said: list[str] = field(default_factory=list)

    def told(self) -> str:
        """How many names, what was done to them, and the first of those that nothing was loaded for."""
        counts = f"{len(self.loaded)} loaded, {len(self.new)} drawn anew, {len(self.left)} left over in the file"
        new = [f"drawn anew: {_few(self.new)}"] if self.new else []
        left = [f"left over: {_few(self.left)}"] if self.left else []
        return "; ".join([counts, *self.said, *new, *left])

    def names(self) -> dict[str, list[str]]:
        """All names, for the event."""
        return {"loaded": self.loaded, "new": self.new, "left": self.left, "said": self.said}


def match(found: Mapping[str, Any], own: Mapping[str, Any], train: TrainConfig, where: str) -> Matched:
    """Match `found`, the entries of a file that messages call `where`, with `own`, the model's state_dict.

    Raises ConfigError that says which names do not fit, and what to type.
    """
    tensors = tensors_of(own)
    named, said = _unwrapped(dict(found), tensors)
    named = _renamed(_stripped(named, train.init_strip, where), rename_pairs(train), train, where)
    named, base, of_adapter = named_as_in(named, tensors)
    skips = [re.compile(pattern) for pattern in skip_patterns(train)]
    _check_used(skips, [*named, *own], where)
    taken = tensors_of(_without(named, skips))
    wanted = {name: tensor for name, tensor in _without(tensors, skips).items() if name not in base}
    taken |= _tied(taken, wanted)
    if problems := misfits(taken, wanted):
        whole = tensors_of(named)
        whole |= _tied(whole, tensors)
        raise ConfigError(
            f"The weights in {where} do not fit the model: {'; '.join(problems.values())}. {_advice(whole, tensors)}"
        )
    extra = {
        name: value
        for name, value in _without(named, skips).items()
        if name in own and name not in tensors and not isinstance(value, torch.Tensor)
    }
    left = [name for name in named if name not in taken and name not in extra]
    new = [name for name in tensors if name not in taken]
    return Matched({**tensors, **taken}, extra, list(taken), new, left, [*said, *of_adapter])


def _unwrapped(found: dict[str, Any], tensors: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Without the prefixes of wrappers that the model has not, and a line on each that was dropped."""
    said = []
    if any(_COMPILED in name for name in found) and not any(_COMPILED in name for name in tensors):
        found = {name.replace(_COMPILED, ""): value for name, value in found.items()}
        said.append(f"the prefix {_COMPILED} of torch.compile is dropped")
    while all(name.startswith(_WRAPPED) for name in found) and not any(name.startswith(_WRAPPED) for name in tensors):
        found = {name.removeprefix(_WRAPPED): value for name, value in found.items()}
        said.append(f"the prefix {_WRAPPED} of DistributedDataParallel is dropped")
    return found, said


def _stripped(found: dict[str, Any], prefix: str | None, where: str) -> dict[str, Any]:
    """`prefix` stands for a module's name with or without its dot, or for the beginning of names."""
    if prefix is None:
        return found
    module = f"{prefix.removesuffix('.')}."
    begins = module if any(name.startswith(module) for name in found) else prefix
    if not any(name.startswith(begins) for name in found):
        raise ConfigError(f"train.init_strip={prefix} begins no name in {where}. Its names: {_few(found)}")
    return _unique([(name, name.removeprefix(begins)) for name in found], found, f"train.init_strip={prefix}")


def _renamed(found: dict[str, Any], pairs: Sequence[tuple[str, str]], train: TrainConfig, where: str) -> dict[str, Any]:
    for pattern, _ in pairs:
        matching = [name for name in found if re.search(pattern, name)]
        others = [other for other, _ in pairs if other != pattern and isinstance(train.init_rename, dict)]
        for other in others:
            if both := [name for name in matching if re.search(other, name)]:
                raise ConfigError(
                    f"train.init_rename: both {pattern!r} and {other!r} match {both[0]}, and keys have no order. Write a "
                    "list of pairs, [[regex, replacement], …], which are done in turn"
                )
    for pattern, replacement in pairs:
        into = [(name, re.sub(pattern, replacement, name)) for name in found]
        if not any(re.search(pattern, name) for name in found):
            raise ConfigError(f"train.init_rename: {pattern!r} matches no name in {where}. Its names: {_few(found)}")
        found = _unique(into, found, f"train.init_rename: {pattern!r}")
    return found


def _unique(into: Sequence[tuple[str, str]], found: Mapping[str, Any], key: str) -> dict[str, Any]:
    for name, count in Counter(new for _, new in into).items():
        if count > 1:
            both = [old for old, new in into if new == name]
            raise ConfigError(f"{key} makes {name} of both {both[0]} and {both[1]}")
    return {new: found[old] for old, new in into}


def _check_used(skips: Sequence[re.Pattern[str]], known: Sequence[str], where: str) -> None:
    for skip in skips:
        if not any(skip.fullmatch(name) for name in known):
            inner = [name for name in known if name.startswith(f"{skip.pattern.removesuffix('.')}.")]
            hint = f"Type train.init_skip={skip.pattern.removesuffix('.')}.*" if inner else f"Names: {_few(known)}"
            raise ConfigError(
                f"train.init_skip={skip.pattern} matches the whole of no name, neither of the model nor in {where}. {hint}"
            )


def _without(entries: Mapping[str, Any], skips: Sequence[re.Pattern[str]]) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if not any(skip.fullmatch(name) for skip in skips)}


def _tied(taken: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the file lacks because it holds tensors that the model shares once, by its other names in the model."""
    held = {_memory(tensor): name for name, tensor in wanted.items() if name in taken and tensor.numel()}
    return {
        name: taken[held[_memory(tensor)]]
        for name, tensor in wanted.items()
        if name not in taken and tensor.numel() and _memory(tensor) in held
    }


def _memory(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _advice(found: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> str:
    """What to type: a prefix to drop or to add where that makes more of the names fit, and all that is to be skipped."""
    typed, problems = [], misfits(found, tensors)
    fitting = len(tensors.keys() & found.keys())
    for prefix in _first_parts(found):
        less = {name.removeprefix(prefix): value for name, value in found.items()}
        if len(tensors.keys() & less.keys()) > fitting:
            typed, problems, found = [f"train.init_strip={prefix}"], misfits(less, tensors), less
            fitting = len(tensors.keys() & less.keys())
    for prefix in _first_parts(tensors):
        more = {f"{prefix}{name}": value for name, value in found.items()}
        if len(tensors.keys() & more.keys()) > fitting:
            typed, problems = [f"""'train.init_rename=[["^","{prefix}"]]'"""], misfits(more, tensors)
            fitting, found = len(tensors.keys() & more.keys()), more
    good = (tensors.keys() & found.keys()) - problems.keys()
    if not good:
        return "Nothing of it fits: it is another model's, or each name is another. Type the file of this model"
    skips = list(dict.fromkeys(_pattern(name, good) for name in problems))
    if len(skips) == 1:
        typed.append(f"train.init_skip={skips[0]}")
    elif skips:
        cut = [*skips[:_MOST], "…"] if len(skips) > _MOST else skips
        typed.append(f"'train.init_skip=[{','.join(cut)}]'")
    return f"Type {' '.join(typed)}{' to leave these out and keep what is drawn for them' if skips else ''}"


def _first_parts(names: Collection[str]) -> list[str]:
    return list(dict.fromkeys(f"{name.partition('.')[0]}." for name in names if "." in name))


def _pattern(name: str, good: Collection[str]) -> str:
    """The outermost module that holds `name` and nothing that fits, as a regular expression; else the name itself."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        prefix = ".".join(parts[:end])
        if not any(fits.startswith(f"{prefix}.") for fits in good):
            return f"{prefix}.*"
    return name


def _few(names: Collection[str]) -> str:
    return ", ".join(list(names)[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
