"""`_target_` names any callable in a config of one's own, and what it returns is checked; a stored config gets no more.

Each form is also tried as a stranger's: refused without trust, admitted with run.trust, and what it returns checked.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, ListConfig
from torch import nn
from torch.utils.data import Dataset

from phalanx.compose.compose import compose
from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError
from phalanx.targets.instantiate import Targets
from phalanx.targets.trust import Trust
from phalanx.train.engine.parts.config_targets import KINDS, packages, targets
from phalanx.train.tasks.task import Task

GUEST = """
import datetime, functools, os
from enum import Enum

import hydra.utils
import torch
from omegaconf import DictConfig
from torch import load, nn


class Colour(Enum):
    red = 1


class Net(nn.Linear):
    made = ()

    def __init__(self, width, *more, colour=Colour.red, **options):
        super().__init__(width, 2)
        self.given = {"width": width, "more": more, "colour": colour, **options}

    @classmethod
    def of(cls, width: int, *, depth: int = 1):
        return cls(width, depth)

    @staticmethod
    def small():
        return Net(1)

    def bad(self):
        return None


class Lazy(nn.Module):
    def __init__(self, inner, cfg: DictConfig | None = None):
        super().__init__()
        self.inner, self.cfg = inner, cfg

    def built(self):
        return hydra.utils.instantiate(self.inner, width=3)


def net(width: int) -> nn.Module:
    return Net(width)


def open_ended(name, **options):
    return Net(**options)


def optimizer(model_or_params, lr):
    return torch.optim.SGD(model_or_params, lr=lr)


def any_optimizer(model_or_params, **options):
    return optimizer(model_or_params, **options)


def wrapped(width):
    return Net(width)


@functools.wraps(wrapped)
def wrapper(*args, **options):
    return Net(options.pop("broad", None) or options["width"])


def pad(samples, value):
    return value


def samples(count):
    return [(torch.zeros(1), 0)] * count


def sets():
    return {"train": [1], "test": [2]}


def nothing():
    return None


def broken():
    return {}["width"]


def picky(width):
    raise ValueError("width is odd")


def absent(root):
    raise FileNotFoundError(2, "No such file or directory", root)


def half():
    import a_package_that_nobody_has


def at_position(first, /, second):
    return Net(first)


made = Net(2)
join = str.join
partial = functools.partial(Net, 3)
Of = type("Of", (datetime.date,), {"of": classmethod(lambda cls: None)})
"""
BUILT: list[object] = []


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of the user's own."""
    (tmp_path / "guest.py").write_text(GUEST)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("guest", None)


pytestmark = pytest.mark.usefixtures("guest")

OWN = Targets(KINDS, None)
STRICT = Targets(KINDS, Trust([]))
TRUSTING = Targets(KINDS, Trust(["guest"]))


def built(builder: Targets, node: Mapping[str, Any], kind: Any = nn.Module, where: str = "model", **given: Any) -> Any:
    """As a run does: checked, and built then."""
    builder.check(node, where, kind, tuple(given))
    return builder.build(node, where, kind, **given)


def refused(
    builder: Targets, node: Mapping[str, Any], kind: Any = nn.Module, where: str = "model", **given: Any
) -> str:
    with pytest.raises(ConfigError) as raised:
        built(builder, node, kind, where, **given)
    assert "\n" not in str(raised.value)
    return str(raised.value)


NET = {"_target_": "guest.Net", "width": 3}
FORMS: dict[str, Mapping[str, Any]] = {
    "class": NET,
    "function": {"_target_": "guest.net", "width": 3},
    "class method": {"_target_": "guest.Net.of", "width": 3, "depth": 2},
    "static method": {"_target_": "guest.Net.small"},
    "nested": {"_target_": "guest.Net", "width": 3, "inner": [{"a": NET}]},
    "nested function": {"_target_": "guest.Net", "width": 3, "inner": {"_target_": "guest.nothing"}},
    "_args_": {"_target_": "guest.Net", "_args_": [3, 4, NET]},
    "_partial_": {"_target_": "guest.Net", "width": 3, "inner": {"_target_": "guest.net", "_partial_": True}},
    "_convert_": {"_target_": "guest.Net", "width": 3, "_convert_": "none", "sizes": [1]},
    "_recursive_": {"_target_": "guest.Lazy", "_recursive_": False, "inner": {"_target_": "guest.Net"}},
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_built_of_ones_own_config_and_of_a_strangers_where_it_is_trusted(form: str) -> None:
    assert isinstance(built(OWN, FORMS[form]), nn.Module)
    assert isinstance(built(TRUSTING, FORMS[form]), nn.Module)
    assert "type run.trust=[guest]" in refused(STRICT, FORMS[form])
    assert "guest" not in sys.modules or form, "it is refused by its name"


def test_a_strangers_config_imports_nothing_to_be_refused() -> None:
    for node in FORMS.values():
        refused(STRICT, node)
        refused(STRICT, {"_target_": "torch.nn.Sequential", "_args_": [node]})
        refused(STRICT, {"_target_": "torch.nn.Sequential", "inner": [node]})
    assert "guest" not in sys.modules


def test_what_a_callable_is_given() -> None:
    inner = built(OWN, FORMS["nested"]).given["inner"]
    assert isinstance(inner[0]["a"], nn.Linear), "also in lists and dicts"
    assert built(OWN, FORMS["class method"]).given["more"] == (2,)
    made = built(OWN, FORMS["_args_"]).given
    assert (made["width"], made["more"][0], type(made["more"][1]).__name__) == (3, 4, "Net")
    partial = built(OWN, FORMS["_partial_"]).given["inner"]
    assert partial(5).in_features == 5
    assert built(OWN, {**NET, "colour": "red"}).given["colour"].value == 1, "its default is a member"
    assert built(OWN, {**NET, "colour": "pink"}).given["colour"] == "pink", "and its author may take other words"
    made = built(OWN, {**NET, "dtype": "torch.bfloat16", "none": None, "sizes": [1, [2]], "table": {"a": 1}}).given
    assert made == {"width": 3, "more": (), "colour": made["colour"], "dtype": torch.bfloat16, "none": None} | {
        "sizes": [1, [2]],
        "table": {"a": 1},
    }


def test_what_is_wrapped_takes_what_its_wrapper_does() -> None:
    """As transformers' configs, whose signature does not name all that they take."""
    assert built(OWN, {"_target_": "guest.wrapper", "width": 1, "broad": 5}).in_features == 5


@pytest.mark.parametrize("builder", [OWN, TRUSTING])
def test_lists_and_dicts_are_pythons_unless_omegaconfs_are_asked_for(builder: Targets) -> None:
    """By `_convert_: none`, which nested nodes take over, or by the annotation."""
    text = "${oc.env:HOME} \\${x}"
    inside = {"_target_": "guest.Net", "width": 1, "sizes": [1]}
    node = {**NET, "sizes": [text, {"a": inside}], "table": {"a": (1, text)}}
    for convert in ({}, *({"_convert_": each} for each in ("partial", "object", "all"))):
        made = built(builder, {**node, **convert}).given
        assert (type(made["sizes"]), type(made["sizes"][1]), type(made["table"])) == (list, dict, dict)
    made = built(builder, {**node, "_convert_": "none"}).given
    assert (type(made["sizes"]), type(made["sizes"][1]), type(made["table"])) == (ListConfig, DictConfig, DictConfig)
    assert type(made["sizes"][1].a.given["sizes"]) is ListConfig
    assert made["sizes"][0] == made["table"].a[1] == text, "no text of a config is looked up"
    lazy = built(builder, {"_target_": "guest.Lazy", "inner": [1], "cfg": {"width": 4}})
    assert (lazy.cfg.width, type(lazy.inner)) == (4, list)
    assert "a value such as {a: 1} or null" in refused(OWN, {"_target_": "guest.Lazy", "inner": 1, "cfg": [1]})


@pytest.mark.parametrize("builder", [OWN, TRUSTING])
def test_a_node_that_is_not_to_be_built_is_handed_on_as_a_config(builder: Targets) -> None:
    lazy = built(builder, FORMS["_recursive_"])
    assert isinstance(lazy.inner, DictConfig)
    assert lazy.built().in_features == 3, "hydra.utils.instantiate builds it, with what is added there"
    plain = built(builder, {**FORMS["_recursive_"], "_convert_": "all"})
    assert plain.inner == {"_target_": "guest.Net"}


def test_what_a_stranger_hands_on_is_held_to_the_list_as_well() -> None:
    lazy: dict[str, Any] = {"_target_": "guest.Lazy", "_recursive_": False}
    for inner, says in (
        ({"_target_": "os.system", "command": "x"}, "run.trust=[guest,os]"),
        ([{"a": {"_target_": "guest.load", "f": "x"}}], "run.trust=[guest,torch.serialization]"),
        ({"_target_": "guest.Net", "inner": {"_target_": "os.system"}}, "run.trust=[guest,os]"),
        ({"_target_": "guest.Net", "_args_": [{"_target_": "os.system"}]}, "run.trust=[guest,os]"),
        ({"_target_": "torchvision.models.resnet18", "weights": "DEFAULT"}, "would have weights fetched"),
        ({"_target_": "phalanx.data.MNIST", "download": True}, "download is set in a stored config"),
    ):
        assert says in refused(TRUSTING, {**lazy, "inner": inner})
    assert built(TRUSTING, {**lazy, "inner": {"_target_": "torch.nn.ReLU"}}).inner._target_ == "torch.nn.ReLU"
    assert built(OWN, {**lazy, "inner": {"_target_": "resnet"}}).inner._target_ == "resnet", (
        "one's own words are one's own"
    )


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"_target_": "torch.nn.Embedding.from_pretrained", "embeddings": [[1.0]]}, "run.trust=[torch.nn]"),
        ({"_target_": "torch.nn.Module.__init__.__globals__.get"}, "run.trust=[torch.nn]"),
        ({"_target_": "torch.nn.Linear", "_args_": [1, 2]}, "model._args_ is set in a stored config"),
        ({"_target_": "torchvision.models.resnet18", "_args_": ["DEFAULT"]}, "model._args_ is set in a stored config"),
        (
            {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1, "_recursive_": False},
            "_recursive_ is set",
        ),
        ({"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1, "_convert_": "none"}, "_convert_ is set"),
        ({"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "os.system"}]}, "run.trust=[os]"),
        ({"_target_": "torch.nn.Sequential", "a": {"_target_": "guest.net", "_partial_": True}}, "run.trust=[guest]"),
        ({"_target_": "guest.partial"}, "run.trust=[guest]"),
    ],
)
def test_no_new_form_reaches_further_in_a_strangers_config(node: Mapping[str, Any], says: str) -> None:
    assert says in refused(STRICT, node)


@pytest.mark.parametrize(
    "name", ["load", "os.system", "datetime.datetime.now", "Of.fromordinal", "partial", "Net.__init__.__globals__.get"]
)
def test_a_trusted_package_lends_its_trust_to_nothing_of_others(name: str) -> None:
    """Handed on as a module, as a method that its class inherits, or bound by what is another's."""
    assert "type run.trust=[guest," in refused(TRUSTING, {"_target_": f"guest.{name}"})
    assert "does not tell where it is defined" in refused(TRUSTING, {"_target_": "guest.join", "_args_": ["a", "b"]})


@pytest.mark.parametrize("builder", [OWN, TRUSTING])
@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("nothing", nn.Module, "model: guest.nothing returned None, no Module. Type model._target_="),
        ("sets", Dataset, "model: guest.sets returned a dict with the keys train, test, no Dataset."),
        ("samples", nn.Module, "model: guest.samples returned a list, no Module."),
        ("net", Task, "model: guest.net returned a Net, no Task."),
        ("nothing", Callable, "model: guest.nothing returned None, no Callable."),
    ],
)
def test_what_it_returns_is_held_against_what_is_wanted(builder: Targets, name: str, kind: Any, says: str) -> None:
    arguments = {"samples": {"count": 2}, "net": {"width": 1}}.get(name, {})
    assert refused(builder, {"_target_": f"guest.{name}", **arguments}, kind).startswith(says)


def test_a_data_set_is_whatever_has_a_length_and_samples_by_index() -> None:
    assert len(built(OWN, {"_target_": "guest.samples", "count": 3}, Dataset, "data.train")) == 3
    assert built(OWN, {"_target_": "builtins.range", "_args_": [5]}, Dataset, "data.train") == range(5)
    for target in ("builtins.dict", "builtins.str", "torch.nn.Sequential"):
        assert "derived from Dataset" in refused(OWN, {"_target_": target}, Dataset, "data.train")
    assert "run.trust=" in refused(STRICT, {"_target_": "torch.nn.utils.rnn.PackedSequence", "data": [1]}, Dataset)


def test_what_is_passed_besides_reaches_a_partial_node_too() -> None:
    """As lightning-hydra-template writes its optimizers, and a function of the user's own by whatever name it takes."""
    weights = [nn.Parameter(torch.zeros(1))]
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.5}
    for builder in (OWN, STRICT):
        for node in (sgd, {**sgd, "_partial_": True}):
            made = built(builder, node, torch.optim.Optimizer, "optim", params=weights)
            assert made.param_groups[0]["lr"] == 0.5
    for name in ("optimizer", "any_optimizer"):
        own = {"_target_": f"guest.{name}", "lr": 0.25}
        assert built(OWN, own, torch.optim.Optimizer, "optim", params=weights).param_groups[0]["lr"] == 0.25
    assert "optim.lr is not set" in refused(
        OWN, {"_target_": "guest.optimizer"}, torch.optim.Optimizer, "optim", params=[]
    )
    assert "would pass params" in refused(OWN, {**sgd, "_args_": [1]}, torch.optim.Optimizer, "optim", params=weights)
    linear = {"_target_": "torch.nn.Linear", "_partial_": True}
    assert "no class derived from Optimizer" in refused(OWN, linear, torch.optim.Optimizer, "optim", params=weights)
    pad = {"_target_": "guest.pad", "_partial_": True}
    assert built(OWN, {**pad, "value": 7}, Callable, "data.collate")([]) == 7
    assert isinstance(built(TRUSTING, {**pad, "value": 7}, Callable, "data.collate"), functools.partial)
    assert "run.trust=[guest]" in refused(STRICT, pad, Callable, "data.collate")


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"_target_": "guest.Nett"}, "guest has no Nett. Did you mean guest.Net?"),
        ({"_target_": "guest.Net.off"}, "guest.Net has no off. Did you mean guest.Net.of?"),
        ({"_target_": "guest.Nett.of"}, "guest has no Nett. Did you mean guest.Net?"),
        ({"_target_": "guest.net.of"}, "guest.net has no of. Type a name that it has"),
        ({"_target_": "guest.Net.of", "widht": 3}, "model.widht is no argument of of. Did you mean model.width?"),
        ({"_target_": "guest.Net.of", "width": "x"}, "model.width=x does not fit: of takes int there"),
        ({"_target_": "guest.net", "_args_": ["x"]}, "model._args_.0=x does not fit: net takes int there"),
        ({"_target_": "guest.net", "_args_": [1, 2]}, "_args_ has 2 values, and net takes 1 by position"),
        ({"_target_": "guest.net", "_args_": [1], "width": 2}, "model.width is passed by position already"),
        ({"_target_": "guest.net", "_args_": 1}, "model._args_=1 must be a list"),
        (
            {"_target_": "guest.at_position", "second": 1},
            "model lacks first, which at_position takes by position alone",
        ),
        ({**NET, "_partial_": "yes"}, "model._partial_=yes must be true or false"),
        ({**NET, "_convert_": "some"}, "model._convert_=some must be one of none, partial, object, all"),
        ({**NET, "inner": {"_target_": "guest.nett"}}, "model.inner._target_=guest.nett: guest has no nett"),
        ({"_target_": "guest.GUEST"}, "guest has no GUEST"),
        ({"_target_": "guest.made", "width": 2}, "model._target_=guest.made is a Net already"),
        (
            {
                "_target_": "guest.open_ended",
                "name": "a",
                "width": 2,
                "inner": {"_target_": "guest.net", "width": None},
            },
            "model.inner.width=null does not fit: net takes int there",
        ),
        (
            {"_target_": "guest.open_ended", "name": "a"},
            "model.width is not set: guest.open_ended says: Net.__init__() m",
        ),
        ({"_target_": "guest.picky", "width": 3}, "model cannot be built: guest.picky says: width is odd (guest.py:"),
        ({"_target_": "guest.absent", "root": "/no"}, "[Errno 2] No such file or directory: '/no' (guest.py:"),
        ({"_target_": "guest.half"}, "says: No module named 'a_package_that_nobody_has' (guest.py:"),
    ],
)
def test_what_does_not_fit_is_told_in_the_words_of_the_config(node: Mapping[str, Any], says: str) -> None:
    assert says in refused(OWN, node)


def test_an_argument_that_only_the_call_refuses_is_named_as_the_config_names_it(guest: Path) -> None:
    (guest / "closed.py").write_text("def f(**options):\n    return g(**options)\ndef g(a=1): pass\n")
    said = refused(OWN, {"_target_": "closed.f", "b": 2})
    assert said.startswith("model.b is not taken: closed.f says: g() got an unexpected keyword argument 'b'")


def test_a_bug_in_a_constructor_is_raised_as_it_is_with_where_it_was() -> None:
    with pytest.raises(KeyError) as raised:
        built(OWN, {**NET, "inner": {"_target_": "guest.broken"}})
    assert user_error.headline(raised.value).startswith("while model.inner was built by guest.broken, at guest.py:")


def test_the_code_of_every_callable_counts(guest: Path) -> None:
    """Of functions, of class methods and the class that they are called on, and of what stands further down."""
    (guest / "others.py").write_text("import guest\nclass Mine(guest.Net): pass\ndef f(): pass\n")
    node = {"_target_": "others.Mine.of", "width": 1}
    assert OWN.packages(node, "model", nn.Module) == {"others", "guest"}
    node = {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "others.f", "_partial_": True}]}
    assert OWN.packages(node, "model", nn.Module) == {"torch", "others"}
    (guest / "hands.py").write_text("from guest import Net\n")  # which may hand on another one tomorrow
    assert OWN.packages({"_target_": "hands.Net", "width": 1}, "model", nn.Module) == {"hands", "guest"}
    lazy = {"_target_": "guest.Lazy", "_recursive_": False, "inner": [{"_target_": "others.f"}, {"_target_": "resnet"}]}
    assert OWN.packages(lazy, "model", nn.Module) == {"others", "guest"}
    assert OWN.packages({"_target_": "torch.zeros"}, "model", nn.Module) == {"torch"}, "which tells no module"


def test_the_code_of_imported_modules_counts(guest: Path) -> None:
    (guest / "resolving.py").write_text("")
    config = compose(["run.imports=[resolving,guest]"]).config
    assert {"resolving", "guest"} <= set(packages(config, targets(config, foreign=False)))
