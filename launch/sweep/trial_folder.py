"""Whose result a run's folder holds."""

from collections.abc import Collection
from pathlib import Path

from phalanx.common.files import read_json
from phalanx.config.schema import Config
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names


def is_of(run: Path, digests: Collection[str]) -> bool:
    """Whether the run in the folder `run` is that of the config with one of these digests, as far as its files tell."""
    newest = names.newest_manifest(run)
    manifest = None if newest is None else read_json(newest)
    if isinstance(manifest, dict):
        return manifest.get("config_digest") in digests
    return _of_config(run) in digests


def is_elsewhere(run: Path, config: Config, left: Collection[str]) -> bool:
    """Whether it is that of the config but for the keys `left`, which each job looks up for itself."""
    from phalanx.compose import resolved
    from phalanx.compose.digest import defining, differing

    try:
        stored = resolved.read(run / names.RESOLVED)
    except ConfigError:
        return False
    return differing(defining(stored), defining(config)).keys() <= set(left)


def _of_config(run: Path) -> str | None:
    """The digest of the config that a run without checkpoints was given."""
    from phalanx.compose import resolved  # here, for OmegaConf takes long to import
    from phalanx.compose.digest import digest as digest_of

    try:
        return digest_of(resolved.read(run / names.RESOLVED))
    except ConfigError:
        return None
