"""Recognition and synthesis train on recordings of one's own: over kills to the same bits, on any number of ranks alike."""

import pytest

from tests.compare_runs import distance, same
from tests.ranks import Results, Starter
from tests.train.data.speech.sounds import RATE, words, write_folder
from tests.train.small_runs import killed_after

RECOGNITION = ("experiment=speech_recognition", "model.mels=12", "model.width=8", "model.dropout=0", "optim.lr=1e-2")
SYNTHESIS = (
    *("experiment=speech_synthesis", "model.mels=12", "model.width=8", "model.dropout=0", "model.layers=1"),
    *("data.augment=null", "+data.train.features.normalize=false", "+data.train.features.hop_s=0.02"),
)


def run(starter: Starter, *words_of_run: str) -> tuple[str, ...]:
    manifest = write_folder(starter.folder / "sounds", words(26))
    return (
        *words_of_run,
        *("data=audio_folder", f"data.train.manifest='{manifest}'", "data.eval.manifest=${data.train.manifest}"),
        *(
            f"data.cache='{starter.folder}/cache'",
            f"data.train.features.sample_rate={RATE}",
            "data.train.features.mels=12",
        ),
        *("train.precision=fp64", "train.global_batch=6", "train.epochs=null", "train.steps=8", "eval.batch=10"),
        *(
            "eval.every_epochs=null",
            "eval.every=4",
            "checkpoint.every=2",
            "checkpoint.keep=9",
            "log.shown=0",
            "log.every=2",
        ),
    )


@pytest.mark.parametrize(
    ("words_of_run", "metric", "counted"),
    [(RECOGNITION, "wer", ("wer", "cer")), (SYNTHESIS, "mel_error", ("mel_error",))],
    ids=["recognition", "synthesis"],
)
def test_a_run_over_kills_has_the_same_bits_and_other_numbers_of_ranks_the_same_metrics(
    starter: Starter, words_of_run: tuple[str, ...], metric: str, counted: tuple[str, ...]
) -> None:
    whole = run(starter, *words_of_run, f"checkpoint.best_metric={metric}")
    undisturbed = starter.train(2, *whole, name="undisturbed")
    same(undisturbed, killed_after(4, starter, 2, *whole))
    for ranks in (1, 3):
        other = starter.train(ranks, *whole, name=f"on{ranks}")
        assert distance(other, undisturbed) < 1e-7
        assert last(other, counted) == pytest.approx(last(undisturbed, counted), rel=1e-6)


def last(results: Results, names: tuple[str, ...]) -> list[float]:
    return [results.metrics("eval")[-1][name] for name in names]
