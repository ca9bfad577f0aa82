"""Keys that define nothing change no bit of the weights, or none that matters, also where models are not tame."""

import operator

import pytest
import torch

from phalanx.compose.compose import compose
from phalanx.config.schema import Kind, schema
from tests.phalanx.compose.others import other, word
from tests.ranks import Results, Starter
from tests.train.small_runs import planted
from tests.zoo.models import ZOO, untamed

STEPS = ("train.steps=6", "train.epochs=null", "train.clip_norm=1", "optim=sgd", "optim.momentum=0.9")
EVALUATED = ("data.eval._target_=tests.train.faulty_parts.Planted", "~data.eval.split", "+data.eval.samples=19")
CHOSEN = {
    # The machine of a test, and not the run.
    **dict.fromkeys(
        ("run.root", "run.name", "wandb.mode", "tensorboard.enabled", "world.device", "train.threads"), None
    ),
    **dict.fromkeys(("mlflow.enabled", "trackio.enabled"), None),
    "sinks": "+sinks.mine={_target_: tests.train.sinks.own_sinks.Kept, file: mine.jsonl}",
    "run.imports": "run.imports=[colorsys]",
    "checkpoint.best_metric": "checkpoint.best_metric=loss",
    "eval.every": "eval.every=1",
    "checkpoint.every": "checkpoint.every=1",
    "checkpoint.every_s": "checkpoint.every_s=0.001",
    "log.every": "log.every=2",
    "world.timeout_s": "world.timeout_s=77",
    "stop.grace_s": "stop.grace_s=33",
    "sweep.pruner": "sweep/pruner=median",
    "train.checkpoint_activations": "train.checkpoint_activations=.",  # each module that the model calls
    "train.compile": None,  # takes a minute; see test_compiled
}


def run(starter: Starter, name: str, model: str, *words: str, ranks: int = 2) -> Results:
    own = [given for given in planted(samples=44) if not given.startswith("data.eval")]
    chosen = (*untamed(model, own), *EVALUATED, *STEPS)
    if model == "Menagerie":
        chosen = (*chosen, "parallel.find_unused=true")
    return starter.train(ranks, *chosen, *words, name=name)


def others(kind: Kind) -> dict[str, str]:
    """A word that gives each key of a kind another value."""
    found = compose([]).config
    keys = [key for key, leaf in schema().items() if leaf.kind is kind]
    words = {key: CHOSEN.get(key, word(key, other(key, operator.attrgetter(key)(found)))) for key in keys}
    return {key: given for key, given in words.items() if given is not None}


def check_inert(starter: Starter, model: str, ranks: int = 2) -> None:
    """All at once; which one it is is looked for only where they do change something."""
    words = others(Kind.inert)
    plain = run(starter, "plain", model, ranks=ranks).sha256
    if run(starter, "all", model, *words.values(), ranks=ranks).sha256 == plain:
        return
    keys = list(words)
    while len(keys) > 1:
        half = keys[: len(keys) // 2]
        changes = run(starter, f"{len(keys)}-{half[0]}", model, *(words[key] for key in half)).sha256 != plain
        keys = half if changes else keys[len(half) :]
    raise AssertionError(f"{words[keys[0]]} changes the weights of {model}")


def test_keys_that_are_inert_change_no_bit_of_models_that_are_not_tame(starter: Starter) -> None:
    check_inert(starter, "Menagerie")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("model", ZOO)
def test_keys_that_are_inert_change_no_bit_of_any_model(starter: Starter, model: str, ranks: int) -> None:
    check_inert(starter, model, ranks)


def difference(one: Results, other: Results) -> float:
    """L2 norm of the difference of all weights."""
    before, after = one.weights(), other.weights()
    assert before.keys() == after.keys()
    norms = [torch.linalg.vector_norm((before[name] - after[name]).double()) for name in before]
    return float(torch.stack(norms).norm())


def test_keys_that_round_change_no_more_than_rounding(starter: Starter) -> None:
    words = [*others(Kind.rounding).values(), "train.threads=2", "world.backend=gloo", "parallel.bucket_mb=0.001"]
    assert {given.partition("=")[0] for given in words} >= {
        key for key, leaf in schema().items() if leaf.kind is Kind.rounding
    } - {"train.compile", "world.device"}
    double = ("train.precision=fp64", "parallel.find_unused=false")
    plain = run(starter, "plain", "Viewing", *double)
    assert difference(plain, run(starter, "all", "Viewing", *double, *words)) < 1e-9


@pytest.mark.slow
def test_compiled(starter: Starter) -> None:
    plain = run(starter, "plain", "Two", "train.precision=fp64")
    assert difference(plain, run(starter, "compiled", "Two", "train.precision=fp64", "train.compile=true")) < 1e-9
