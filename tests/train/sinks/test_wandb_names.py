"""Where the config says nothing, W&B's own variables hold, as in any other program that logs there."""

from pathlib import Path
from typing import Any

from phalanx.compose.compose import compose
from phalanx.train.sinks.trackers.wandb_names import wandb_names

VARIABLES = {
    "WANDB_PROJECT": "theirs",
    "WANDB_ENTITY": "crew",
    "WANDB_RUN_GROUP": "group",
    "WANDB_TAGS": "a, b,",
    "WANDB_NAME": "first try",
    "WANDB_DIR": "/scratch",
}


def test_variables_hold_where_the_config_says_nothing(tmp_path: Path) -> None:
    config = compose([]).config.wandb
    plain: dict[str, Any] = {
        "project": "phalanx",
        "entity": None,
        "group": None,
        "tags": [],
        "name": "r",
        "root": tmp_path,
    }
    nowhere = {"WANDB_CONFIG_DIR": str(tmp_path)}
    assert wandb_names(config, "r", tmp_path, nowhere) == plain
    told = {"project": "theirs", "entity": "crew", "group": "group", "tags": ["a", "b"], "name": "first try"}
    assert wandb_names(config, "r", tmp_path, nowhere | VARIABLES) == {**told, "root": Path("/scratch")}
    (tmp_path / "settings").write_text("[default]\nproject = filed\nentity = office\n")
    assert wandb_names(config, "r", tmp_path, nowhere)["project"] == "filed"


def test_what_the_config_says_comes_first(tmp_path: Path) -> None:
    config = compose(["wandb.project=mine", "wandb.entity=me", "wandb.group=g", "wandb.tags=[t]"]).config.wandb
    found = wandb_names(config, "r", tmp_path, VARIABLES)
    assert (found["project"], found["entity"], found["group"], found["tags"]) == ("mine", "me", "g", ["t"])
