"""A node that is typed as a whole, such as schedule={_target_: …}, takes the place of what the group's file has there."""

from typing import Any

import pytest

from phalanx.compose.compose import compose
from phalanx.config.limits import check
from phalanx.exit.codes import ConfigError
from phalanx.train.engine.parts.config_targets import check_targets, targets

STEP_LR = {"_target_": "torch.optim.lr_scheduler.StepLR", "_partial_": True, "interval": "step", "step_size": 3}
SGD = "{_target_: torch.optim.SGD, lr: 0.1}"


def composed(*words: str) -> dict[str, Any]:
    return dict(compose(words).plain)


def refused(*words: str) -> str:
    try:
        found = compose(words)
        check(found.config, 1)
        check_targets(found.config, targets(found.config, foreign=False))
    except ConfigError as told:
        return str(told)
    return "nothing"


@pytest.mark.parametrize(
    ("words", "section", "gives"),
    [
        (
            ["schedule={_target_: torch.optim.lr_scheduler.StepLR, _partial_: true, interval: step, step_size: 3}"],
            "schedule",
            STEP_LR,
        ),
        ([f"optim={SGD}"], "optim", {"_target_": "torch.optim.SGD", "lr": 0.1}),
        ([f"++optim={SGD}"], "optim", {"_target_": "torch.optim.SGD", "lr": 0.1}),
        (
            ["optim.lr=3", "optim.momentum=0.5", f"optim={SGD}", "optim.nesterov=true", "~optim.betas"],
            "optim",
            {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.5, "nesterov": True},
        ),
        (
            [f"optim={SGD}", "optim.lr=3"],
            "optim",
            {"_target_": "torch.optim.SGD", "lr": 3},
        ),
        (["model={_target_: mine.Net, width: 3}"], "model", {"_target_": "mine.Net", "width": 3}),
        (["task={_target_: mine.Loss}"], "task", {"_target_": "mine.Loss"}),
    ],
)
def test_a_whole_node_takes_the_place_of_what_is_there(words: list[str], section: str, gives: dict[str, Any]) -> None:
    assert composed(*words)[section] == gives


def test_data_sets_are_replaced_also_within_a_dict_and_by_several() -> None:
    assert composed("data={train: {_target_: mine.P}, workers: 2}")["data"]["train"] == {"_target_": "mine.P"}
    named = {"val": {"_target_": "a.B"}, "hard": {"_target_": "a.C"}}
    assert composed("data.eval={val: {_target_: a.B}, hard: {_target_: a.C}}")["data"]["eval"] == named
    assert composed("data.train={_target_: mine.P}", "~data.train.split")["data"]["train"] == {"_target_": "mine.P"}


def test_the_same_target_is_merged_and_has_the_same_name() -> None:
    assert composed("optim={_target_: torch.optim.Adam, lr: 0.3}")["optim"]["betas"] == [0.9, 0.999]
    assert compose(["optim={lr: 0.3}"]).config.run.name == compose(["optim.lr=0.3"]).config.run.name
    assert compose([f"optim={SGD}"]).config.run.name == compose(["~optim", f"+optim={SGD}"]).config.run.name
    assert compose(["parallel={_target_: phalanx.parallel.DDPStrategy}"]).config.run.name == compose([]).config.run.name


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["schedule=torch.optim.lr_scheduler.StepLR"], "type 'schedule={_target_: torch.optim.lr_scheduler.StepLR}'"),
        (["model=timm.create_model"], "type 'model={_target_: timm.create_model}'"),
        (["optim=[1]"], "there is no such optim. Type optim= and one of: adam, adamw, sgd"),
        (["data={_target_: mine.Points}"], "type data.train={_target_: …}"),
        (["optim={lrr: 0.1}"], "optim.lrr is not a key of the config. Did you mean optim.lr?"),
        ([f"optim={SGD}", "optim.momentm=1"], "Did you mean optim.momentum?"),
        (["--optim.lr=0.1"], "Keys of the config have no dashes before them: type optim.lr=…"),
        (["--epochs", "5"], "type epochs=…"),
        (["optim.lr = 0.1"], "has blanks around its equals sign. Type optim.lr=0.1"),
        (["optim=adamW"], "Did you mean adamw?"),
        (["train.steps=1e3"], "Type train.steps=1000"),
        (["experiment={a: 1}"], "there is no such experiment"),
        (["optim.lr=null"], "optim.lr=null does not fit: Adam takes float | torch.Tensor there."),
        (["optim.lr=null"], "such as 0.1 or [1, 2], or leave it out (~optim.lr) for 0.001"),
        (["optim.groups=[{match: a, lr: null}]"], "optim.groups.0.lr=null is no number"),
        (["optim.layer_decay=true"], "optim.layer_decay=true is no factor"),
        (["train.freeze=[{match: a, from: null}]"], ".from=null is no step"),
        (
            ["model={_target_: phalanx.models.MLP}"],
            "model.inputs, model.hidden, model.classes, model.dropout are not set and MLP needs them. Type "
            "+model.inputs=… +model.hidden=… +model.classes=… +model.dropout=… with their values, or model=mlp, which",
        ),
    ],
)
def test_what_cannot_be_meant_is_told_with_what_to_type(words: list[str], says: str) -> None:
    assert says in refused(*words)
