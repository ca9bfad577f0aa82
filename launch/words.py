"""What is typed for Hydra: overrides, and the two of its own options that are options of ours, too."""

from collections.abc import Sequence


def words(config_dir: str | None, config_name: str | None, overrides: Sequence[str]) -> list[str]:
    """The words that train/main.py is given."""
    options = {"--config-dir": config_dir, "--config-name": config_name}
    return [*(f"{name}={value}" for name, value in options.items() if value is not None), *overrides]
