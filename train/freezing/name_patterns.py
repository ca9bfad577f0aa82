"""Parameters by regular expression."""

import re
from collections.abc import Sequence

from phalanx.common.name_patterns import no_match
from phalanx.exit.codes import ConfigError


def matching(pattern: str, names: Sequence[str], key: str) -> list[str]:
    """The names in which `pattern` is found anywhere (re.search). Raises ConfigError where there is none.

    `key` is where the pattern stands in the config.
    """
    if found := [name for name in names if re.search(pattern, name)]:
        return found
    raise ConfigError(no_match(pattern, key, names, "parameter"))
