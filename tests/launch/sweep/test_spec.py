"""What a command line asks of a sweep, and what is wrong with it, before anything is trained. No process is started."""

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

import phalanx.compose.compose
from phalanx.common.files import write_json
from phalanx.compose.compose import compose
from phalanx.exit.codes import ConfigError
from phalanx.launch.search.optuna_study import open_search
from phalanx.launch.search.spec import _pruner_text, sweep_spec

WRONG = {
    "an interval from high to low": ("optim.lr=interval(1,0.1)", "must go from a lower to a higher"),
    "an interval without an end": ("optim.lr=interval(1e-4,inf)", "must go from a lower to a higher"),
    "an interval with one end": ("optim.lr=interval(1)", "missing a required argument: 'end'. Type 'optim.lr=int"),
    "an interval of words": ("optim.lr=interval(a,b)", "str is incompatible with"),
    "a logarithm of nothing": ("optim.lr=tag(log,interval(0,1))", "has no logarithm at 0"),
    "a tag that is none": ("optim.lr=tag(lgo,interval(1,2))", "lgo is no tag, the one there is is log"),
    "one tag too many": ("optim.lr=tag(log,q,interval(1,2))", "q is no tag"),
    "a logarithm of choices": ("optim.lr=tag(log,choice(1,2))", "log is for an interval"),
    "fractions for a whole number": ("train.steps=interval(1,8)", r"Type 'train.steps=int\(interval\(1,8\)\)'"),
    "a function that is none": ("optim.lr=loguniform(1e-4,1)", r"there is no loguniform\(…\). Type 'optim.lr=tag\(log"),
    "a mistyped function": ("optim.lr=choices(1,2)", "Did you mean choice"),
    "an empty choice": ("optim.lr=choice()", "empty choice"),
    "a bracket left open": ("optim.lr=choice(1,2", "does not close each bracket"),
    "a bracket left open within": ("optim.lr=tag(log,interval(1,2)", "does not close each bracket"),
    "square brackets": ("optim.lr=choice[1,2]", r"cannot be read: .* Type 'optim.lr=choice\(a,b\)'"),
    "a tuple": ("optim.lr=(1,2)", "commas alone part values. Type optim.lr=1,2"),
    "a set": ("optim.lr={1,2}", "commas alone part values. Type optim.lr=1,2"),
    "a space after a comma": ("optim.lr=1, 2", "ends with a comma, and a space ends a word"),
    "a list": ("optim.lr=[1e-3,3e-3]", "is one value, a list. Type one that does, such as optim.lr=1e-3,3e-3"),
    "no value": ("train.steps=range(5,1)", "names no value at all"),
    "steps of nothing": ("train.steps=range(1,5,0)", "goes on for ever"),
    "mixed types": ("train.steps=3,many", "train.steps is a whole number"),
    "an unknown key": ("optim.rate=1,2", "optim.rate is not a key"),
    "an unknown option": ("model=mlp,nmlp", "there is no such model"),
    "what is the sweep's own": ("sweep.ranks=1,2", "the sweep's own"),
    "a key twice": ("optim.lr=1,2 optim.lr=3,4", "optim.lr is swept twice"),
    "an interval without trials": ("optim.lr=interval(0.1,1) sweep.trials=null", "Type sweep=tpe and sweep.trials="),
    "a grid of an interval": ("optim.lr=interval(0.1,1) sweep=grid", "Type sweep=tpe and sweep.trials="),
    "seeds twice": ("seed=1,2 sweep.seeds=2", "seed is swept, too"),
    "seeds and a pruner": ("optim.lr=1,2 sweep.seeds=2 sweep/pruner=asha", "Type sweep/pruner=none"),
    "a key of another pruner": (
        "optim.lr=1,2 sweep/pruner=asha sweep.pruner.after_trials=2",
        "after_trials is not a key",
    ),
    "a key of no pruner": (
        "optim.lr=1,2 sweep/pruner=asha +sweep.pruner.etaa=2",
        "etaa is not a key .* sweep.pruner.eta",
    ),
    "a pruner that is none": ("optim.lr=1,2 sweep.pruner.name=ashaa", "is none, asha, median or hyperband"),
    "half a rung": ("optim.lr=1,2 sweep/pruner=asha sweep.pruner.eta=1.5", "sweep.pruner.eta is a whole number"),
    "one of one goes on": ("optim.lr=1,2 sweep/pruner=asha sweep.pruner.eta=1", "sweep.pruner.eta=1 is out of range"),
    "a pruner without evaluations": ("optim.lr=1,2 eval.every=null sweep/pruner=asha", "Type eval.every="),
    "a pruner, and a point without evaluations": ("eval.every=5,null sweep/pruner=asha", "Type eval.every="),
    "one value of many": ("train.max_skips=range(-300,5)", "train.max_skips=-300 is out of range"),
    "the last value of many": ("optim.lr=" + ",".join(map(str, range(1, 300))) + ",nan", "optim.lr=nan is not finite"),
}


def asked(typed: str) -> Sequence[str]:
    """Words as a shell parts them; a point is one step long."""
    words = ["model=mlp", "train.steps=1", "sweep.trials=3", *typed.split(" ")]
    return [word for place, word in enumerate(words) if not _comes_again(word, words[place + 1 :])]


def _comes_again(word: str, later: Sequence[str]) -> bool:
    return word in ("train.steps=1", "sweep.trials=3") and any(
        other.startswith(word.partition("=")[0] + "=") for other in later
    )


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_said_precisely(mistake: str) -> None:
    typed, says = WRONG[mistake]
    with pytest.raises(ConfigError, match=says):
        sweep_spec(asked(typed))


@pytest.mark.parametrize(
    "typed",
    [
        "optim=sgd optim.lr=1,2 optim.lr=3 model.hidden=[4],[8]",
        "optim.lr=3 optim.lr=1,2",
        "++task.note=1 ++task={note:2,_target_:a.b} ++task.note=3,4",
    ],
)
def test_of_two_words_for_one_key_the_later_one_holds_as_in_hydra(typed: str) -> None:
    words = typed.split(" ")
    parsed = OverridesParser.create().parse_overrides(words)
    (hydras,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    found = sweep_spec(["model=mlp", *words]).space
    ours = [compose(found.words(point)).config for point in found.grid()]
    theirs = [compose(["model=mlp", *point]).config for point in hydras]
    assert [(config.optim, config.model, config.task) for config in ours] == [
        (config.optim, config.model, config.task) for config in theirs
    ]


def test_hundreds_of_values_are_checked_without_composing_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra takes 0.1 s for each point; each process of a sweep would be silent for a minute."""
    composes = itertools.count()

    def counted(words: Sequence[str]) -> Any:
        next(composes)
        return compose(words)

    monkeypatch.setattr(phalanx.compose.compose, "compose", counted)
    values = ",".join(f"{value}e-4" for value in range(1, 501))
    found = sweep_spec(["model=mlp,convnet", f"optim.lr={values}", "train.global_batch=range(64,128)"])
    assert len(list(found.space.grid())) == 2 * 500 * 64
    assert next(composes) <= 4


BEFORE = ("model=mlp", "model.hidden=[8]", "train.steps=8", "train.epochs=null", "eval.every=4", "optim.lr=1e-3,1e-2")


def begun_before(folder: Path) -> Path:
    """What an earlier version leaves first."""
    folder.mkdir()
    write_json(folder / "sweep.json", {"state": "running", "rows": []})
    return folder


def test_a_key_that_only_one_pruner_has_is_part_of_what_a_sweep_is() -> None:
    texts = {_pruner_text({"name": "percentile", "percentile": value}) for value in (25.0, 50.0)}
    assert len(texts) == 2


def test_a_sweep_that_an_earlier_version_began_is_found_and_gone_on_with(tmp_path: Path) -> None:
    words = (*BEFORE, f"run.root={tmp_path}")
    new = sweep_spec(words).folder
    folder = begun_before(tmp_path / "sweep-61a0c5e8")  # as that version named it
    found = sweep_spec(words)
    assert found.folder == folder != new
    former = found.identities[1]
    for told, there in ((former, "one"), (found.identities[0], "two")):
        (tmp_path / there).mkdir()
        for identities in ([told], found.identities):
            open_search(tmp_path / there, found.space, found.sweep, identities, lambda: nullcontext(True))
    other = sweep_spec((*words, "seed=1"))
    assert other.folder not in (folder, new)
    with pytest.raises(ConfigError, match="one holds another search, with another shared config"):
        open_search(tmp_path / "one", other.space, other.sweep, other.identities, lambda: nullcontext(True))
    new.mkdir()
    assert sweep_spec(words).folder == new


def test_a_sweep_of_which_an_earlier_version_hid_a_value_is_named_and_not_mixed(tmp_path: Path) -> None:
    words = (*BEFORE, f"run.root={tmp_path}", "+data.train.label_key=parity")
    new = sweep_spec(words)
    folder = begun_before(tmp_path / "sweep-b9e8a9ae")
    with pytest.raises(ConfigError, match=f"Type run.name={folder.name} to continue it, or run.name={new.folder.name}"):
        sweep_spec(words)
    assert sweep_spec((*words, f"run.name={folder.name}")).folder == folder
