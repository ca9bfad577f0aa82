"""Parameters by regular expression."""

import re
from collections.abc import Sequence

from phalanx.exit.codes import ConfigError

_LISTED = 12


def matching(pattern: str, names: Sequence[str], key: str) -> list[str]:
    """The names in which `pattern` is found anywhere (re.search). Raises ConfigError where there is none.

    `key` is where the pattern stands in the config.
    """
    if found := [name for name in names if re.search(pattern, name)]:
        return found
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    raise ConfigError(
        f"{key}={pattern} is found in the name of no parameter. They are {', '.join(names[:_LISTED])}{more}. "
        "A dot stands for any character, ^ for the beginning of a name"
    )
