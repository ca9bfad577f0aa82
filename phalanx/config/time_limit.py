"""The time that a run may take: hours, minutes and seconds."""

import re

from ..exit.codes import ConfigError

_FORM = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d)")


def seconds_of(typed: str) -> int:
    """Of train.time_limit, which is h:m:s. Raises ConfigError."""
    found = _FORM.fullmatch(typed)
    seconds = sum(int(part) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
    if not seconds:
        raise ConfigError(
            f"train.time_limit={typed} is no time of hours, minutes and seconds. Type train.time_limit=12:00:00; in a YAML "
            'file in quotes, "12:00:00"'
        )
    return seconds
