"""A run that is long enough to be stopped, and the wait for its first checkpoint."""

from tests.ranks import Results, until

STEPS = 1200  # long enough to be stopped, on the slowest machine
# Lines, evaluations and checkpoints do not fall together.
RUN = (
    *("model=mlp", "model.hidden=[8]", f"train.steps={STEPS}", "train.ema_decay=0.9"),
    *("log.every=7", "eval.every=100", "checkpoint.every=25"),
)


def until_saved(results: Results, start: int = 1) -> None:
    """Wait for the first checkpoint of the `start`-th start."""

    def saved() -> bool:
        names = [event["event"] for event in results.events()] if (results.folder / "events.jsonl").exists() else []
        begins = [index for index, name in enumerate(names) if name in ("start", "resume")]
        return len(begins) == start and "checkpoint" in names[begins[-1] :]

    until(saved)
