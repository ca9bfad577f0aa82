"""The keys of train.init_from: how names in a file of weights become the model's."""

import re

from ..common.name_patterns import no_pattern
from ..exit.codes import ConfigError
from .schema import TrainConfig


def check_init(train: TrainConfig) -> None:
    """Raise ConfigError if the keys beside train.init_from are set without it, or hold no regular expressions."""
    given = {"init_strip": train.init_strip, "init_rename": train.init_rename, "init_skip": train.init_skip}
    for name, value in given.items():
        if value is not None and train.init_from is None:
            raise ConfigError(
                f"train.{name}={value} says how names of train.init_from are read, which is not set. Type "
                "train.init_from=… with a file of weights, or leave it out"
            )
    if train.init_strip == "":
        raise ConfigError("train.init_strip is empty. Type train.init_strip=… with a prefix, or leave it out")
    for pair in train.init_rename or () if isinstance(train.init_rename, list) else ():
        if len(pair) != 2:
            raise ConfigError(
                f"train.init_rename holds {pair}, which is no pair of a regular expression and what replaces it. Type "
                """'train.init_rename=[["^","model."]]'"""
            )
    for pattern, replacement in rename_pairs(train):
        try:
            re.compile(pattern).sub(replacement, "")
            re.sub(f"(?:{pattern})|", replacement, "")  # resolves the groups that the replacement names
        except (re.error, IndexError) as error:
            raise ConfigError(f"train.init_rename: {pattern!r} with {replacement!r} is none: {error}") from None
    for pattern in skip_patterns(train):
        if (told := no_pattern(pattern, "train.init_skip", "train.init_skip=head.*")) is not None:
            raise ConfigError(told)


def rename_pairs(train: TrainConfig) -> list[tuple[str, str]]:
    """The patterns of train.init_rename and what replaces them, in order."""
    given = train.init_rename or []
    return list(given.items()) if isinstance(given, dict) else [(pattern, into) for pattern, into in given]


def skip_patterns(train: TrainConfig) -> list[str]:
    """The patterns of train.init_skip."""
    given = train.init_skip
    return [] if given is None else [given] if isinstance(given, str) else list(given)
