"""What is better of a metric is typed or told by its name, and asked for where neither does."""

import pytest

from phalanx.compose.compose import compose
from phalanx.config.limits import check
from phalanx.config.metric_direction import (
    WatchedMetric,
    as_results,
    as_stored,
    data_sets,
    direction,
    eval_sets,
    name_in,
    of_checkpoint,
    of_sweep,
    split_and_name,
)
from phalanx.config.schema import Config, Mode
from phalanx.exit.codes import ConfigError
from phalanx.launch.search.spec import sweep_spec

LESS = "loss val_loss eval/loss logloss crossEntropyLoss error top5_error perplexity rmse val/rmse wer test_WER cer"
MORE = "accuracy top5_accuracy eval/accuracy balancedAccuracy f1 macro_f1 auc roc_auc bleu sacreBLEU map mAP miou ndcg"
OPEN = "psnr mae power soccer heatmap inaccuracy f10 lossless loss_scale accuracy@5 beauty"

MORE_OF_A_CLASS = "f1/cat eval/f1/cat auc/9 f1/loss_scale"
LESS_OF_A_CLASS = "wer/de eval/error/cat f1/loss"
OPEN_OF_A_CLASS = "eval/psnr f10/cat heatmap/1"


def config(*words: str) -> Config:
    return compose(words).config


def test_a_name_tells_the_direction_of_what_has_one_and_of_nothing_else() -> None:
    assert {name: direction(name, None, "sweep.mode") for name in LESS.split()} == dict.fromkeys(LESS.split(), Mode.min)
    assert {name: direction(name, None, "sweep.mode") for name in MORE.split()} == dict.fromkeys(MORE.split(), Mode.max)
    for name in OPEN.split():
        with pytest.raises(ConfigError, match=f"^sweep.metric={name}: .* Type sweep.mode=max, or sweep.mode=min"):
            direction(name, None, "sweep.mode")
        assert [direction(name, mode, "sweep.mode") for mode in Mode] == list(Mode)


def test_the_number_of_a_class_has_the_direction_of_its_metric() -> None:
    for names, mode in ((MORE_OF_A_CLASS, Mode.max), (LESS_OF_A_CLASS, Mode.min)):
        assert {direction(name, None, "sweep.mode") for name in names.split()} == {mode}
    for name in OPEN_OF_A_CLASS.split():
        with pytest.raises(ConfigError, match=f"^sweep.metric={name}: no name tells"):
            direction(name, None, "sweep.mode")


def test_the_metric_that_is_typed_alone_has_its_own_direction_whatever_the_experiment_says() -> None:
    found = {
        words: found and found.mode
        for words in [
            (),
            ("checkpoint.best_metric=loss",),
            ("checkpoint.best_metric=loss", "checkpoint.best_mode=max"),
            ("experiment=mnist", "checkpoint.best_metric=accuracy"),
            ("checkpoint.best_metric=null",),
        ]
        for found in [of_checkpoint(config(*words))]
    }
    assert list(found.values()) == [Mode.max, Mode.min, Mode.max, Mode.max, None]
    check(config("checkpoint.best_metric=psnr", "checkpoint.best_mode=max"), 1)
    with pytest.raises(ConfigError, match=r"checkpoint\.best_metric=psnr: .* Type checkpoint\.best_mode=max"):
        check(config("checkpoint.best_metric=psnr"), 1)


def test_a_sweep_ranks_by_what_is_typed_for_it_alone_too() -> None:
    psnr = ("checkpoint.best_metric=psnr", "checkpoint.best_mode=max")
    assert of_sweep(config()) == ("accuracy", Mode.max)
    assert of_sweep(config("sweep.metric=loss")) == ("loss", Mode.min)
    assert of_sweep(config("sweep.metric=accuracy", "checkpoint.best_metric=loss")) == ("accuracy", Mode.max)
    assert of_sweep(config("sweep.mode=min")) == ("accuracy", Mode.min)
    assert of_sweep(config(*psnr)) == of_sweep(config(*psnr, "sweep.metric=psnr")) == ("psnr", Mode.max)
    assert of_sweep(config(*psnr, "sweep.mode=min")) == ("psnr", Mode.min)
    found = sweep_spec(["optim.lr=1,2", "sweep.mode=min"])
    assert (found.sweep.metric, found.sweep.mode) == ("accuracy", Mode.min)
    for words in (("sweep.metric=mae",), ("sweep.metric=mae", *psnr)):
        with pytest.raises(ConfigError, match=r"^sweep\.metric=mae: .* Type sweep\.mode=max, or sweep\.mode=min"):
            sweep_spec(["optim.lr=1,2", *words])


def test_a_metric_is_of_the_first_set_or_of_the_one_that_is_named() -> None:
    held_out = "{_target_: phalanx.data.Digits, split: held_out}"
    named = ("~data.eval", f"+data.eval={{val: {held_out}, hard: {held_out}, off: null}}")
    found = config(*named).data
    assert list(eval_sets(found)) == ["val", "hard"]
    assert list(data_sets(found)) == ["train", "eval.val", "eval.hard"]
    for metric, expected in {
        "accuracy": ("val", "accuracy"),
        "hard/accuracy": ("hard", "accuracy"),
        "hard/f1/cat": ("hard", "f1/cat"),
        "f1/cat": ("val", "f1/cat"),
        "off/loss": ("val", "off/loss"),
    }.items():
        assert split_and_name(metric, found) == expected
    one = config().data
    assert split_and_name("f1/cat", one) == ("eval", "f1/cat")
    assert split_and_name("eval/f1/cat", one) == ("eval", "f1/cat")
    assert of_sweep(config(*named, "sweep.metric=hard/loss")) == ("hard/loss", Mode.min)
    assert of_sweep(config(*named)) == ("val/accuracy", Mode.max)
    assert of_sweep(config("sweep.metric=eval/loss")) == ("loss", Mode.min)
    with pytest.raises(ConfigError, match=r"sweep\.metric=test/loss would choose by the split test"):
        of_sweep(config(*named, "sweep.metric=test/loss"))


def test_results_are_stored_flat_for_one_set_and_by_split_for_several() -> None:
    every: list[dict[str, dict[str, float]]] = [
        {"eval": {"loss": 1}},
        {"val": {"loss": 1}, "hard": {"loss": 2}},
        {"val": {}},
    ]
    for results in every:
        assert as_results(as_stored(results)) == results
    assert as_stored({"eval": {"loss": 1.0}}) == {"loss": 1.0}
    assert (name_in("f1/cat", "eval"), name_in("val/f1", "val"), name_in("val/f1", "hard")) == ("f1/cat", "f1", None)
    watched = WatchedMetric("hard", "loss", Mode.min)
    assert watched.value({"hard": {"loss": 2}, "val": {"loss": 1}}) == 2.0
    assert watched.value({"hard": {"loss": float("nan")}}) is watched.value({"val": {"loss": 1}}) is None
    assert watched.is_better(1.0, 2.0)
    assert not watched.is_better(2.0, 2.0)
