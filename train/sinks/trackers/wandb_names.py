"""Project, entity, group and folder of a W&B run: from the config, else from W&B's own variables."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from phalanx.config.schema import WandbConfig
from phalanx.config.wandb_mode import settings_file

_PROJECT = "phalanx"  # where nothing names one


class Names(TypedDict):
    """`root` holds the folder wandb/."""

    project: str
    entity: str | None
    group: str | None
    tags: list[str]
    name: str | None
    root: Path


def wandb_names(config: WandbConfig, run: str | None, folder: Path, environ: Mapping[str, str]) -> Names:
    """The names of the run `run` in `folder`. The config has no word for W&B's own name of a run, so WANDB_NAME holds."""
    file = settings_file(environ)
    return Names(
        project=config.project or environ.get("WANDB_PROJECT") or file.get("project") or _PROJECT,
        entity=config.entity or environ.get("WANDB_ENTITY") or file.get("entity") or None,
        group=config.group or environ.get("WANDB_RUN_GROUP") or None,
        tags=config.tags or [tag.strip() for tag in environ.get("WANDB_TAGS", "").split(",") if tag.strip()],
        name=environ.get("WANDB_NAME") or run,
        root=Path(environ.get("WANDB_DIR") or folder).absolute(),
    )
