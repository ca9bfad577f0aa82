"""Names of the files and folders of a run: where train/ writes them, where launch/ and phalanx/ read them.

What a sweep has beside its runs is in launch/common/sweep_folder.py.
Change the layout of a run folder here; tests/phalanx/run_folder/test_names.py keeps these names out of all other files.

    RUN/
        resolved.yaml  environment.json  metrics.jsonl  events.jsonl  summary.json  stop.json  report.html
        checkpoints/best
        checkpoints/step_00000090/
            model.safetensors  frozen.safetensors  ema.safetensors  state.pt  rank_00000.pt  progress.json  manifest.json
        lease/00000001.json  lease/00000001.released  lease/00000001.seconds
        logs/rank_0.log
        shown/val_step_00000090/examples.png
        predictions/val_step_00000090.jsonl
        wandb/run_id  wandb/sent.json  mlflow/run_id  trackio/run_id  trackio/sent.json  tensorboard/
"""

import re
from pathlib import Path

RESOLVED = "resolved.yaml"  # the config in full
ENVIRONMENT = "environment.json"  # versions, hardware, git, hashes of code and data
METRICS = "metrics.jsonl"  # a line for each `log.every` steps and for each evaluation
EVENTS = "events.jsonl"  # starts, checkpoints, skipped steps, failures
SUMMARY = "summary.json"  # what a finished run came to
REPORT = "report.html"  # what `phalanx report` draws, also of a sweep
STOP = "stop.json"  # asks a start of the run to save and leave

CHECKPOINTS = "checkpoints"
BEST = "best"  # in CHECKPOINTS: a file that holds the name of the best one's folder
STEP = "step_"  # and the number of steps, in eight digits or more
MANIFEST = "manifest.json"
PROGRESS = "progress.json"
MODEL = "model.safetensors"
FROZEN = "frozen.safetensors"  # what never trains, where there is such: one file, linked by all checkpoints
EMA = "ema.safetensors"  # the average of the weights, where there is one
STATE = "state.pt"  # of optimizer, schedule and whatever else all ranks share
STAGING, DELETING = ".staging", ".deleting"  # suffixes: a save or a deletion that is under way, or was cut short
DAMAGED, FENCED = ".damaged", ".fenced"  # suffixes: set aside as not whole; saved by a start that was replaced

LEASE = "lease"
RELEASED = ".released"  # suffix: this start has given the run back
SPENT = ".seconds"  # suffix: what this start and those before it took, where train.time_limit is set
LOGS = "logs"
SHOWN = "shown"  # what a task shows of its evaluations: a folder each
PREDICTIONS = "predictions"  # what was predicted of each sample: a file for each evaluation
WANDB = "wandb"
MLFLOW = "mlflow"
TRACKIO = "trackio"
RUN_ID = "run_id"  # in WANDB, MLFLOW and TRACKIO: the id of the run there
SENT = "sent.json"  # in WANDB and TRACKIO: the last steps that the run there has
TENSORBOARD = "tensorboard"

SET_ASIDE = ".set-aside-"  # follows the name of a run folder that `run.fresh=true` has renamed
BEGINNING = ".beginning-"  # begins the name of a run folder that is not laid out in full yet

DRAWS = "its samples come out different each time"  # stands in environment.json for the hash of such data


def step_folder(step: int) -> str:
    """The name of the checkpoint of `step`."""
    return f"{STEP}{step:08d}"


def evaluation_name(split: str, step: int) -> str:
    """What files of an evaluation begin with."""
    return f"{split}_{step_folder(step)}"


def shown_file(split: str, step: int, name: str, suffix: str) -> str:
    """Where a task's item `name` of an evaluation lies, relative to the run folder."""
    return f"{SHOWN}/{evaluation_name(split, step)}/{name}.{suffix}"


def predictions_file(split: str, step: int) -> str:
    """Where the predictions of an evaluation lie, relative to the run folder."""
    return f"{PREDICTIONS}/{evaluation_name(split, step)}.jsonl"


def rank_state(rank: int) -> str:
    """The file of a checkpoint with what only `rank` has."""
    return f"rank_{rank:05d}.pt"


def rank_log(rank: int | str) -> str:
    """The log of `rank` in LOGS."""
    return f"rank_{rank}.log"


def ranks_with_logs(logs: Path) -> list[int]:
    """The ranks whose logs lie in the folder `logs`, ascending."""
    form = re.compile(re.escape(rank_log("@")).replace("@", "([0-9]+)"))
    return sorted(int(found[1]) for path in logs.glob(rank_log("*")) if (found := form.fullmatch(path.name)))


def rank_log_path(rank: int) -> str:
    """The log of `rank` as messages name it: relative to the run folder."""
    return f"{LOGS}/{rank_log(rank)}"


def lease_file(run: Path, incarnation: int) -> Path:
    """The file of a start of `run`: 1 for the first."""
    return run / LEASE / f"{incarnation:08d}.json"


def spent_file(run: Path, incarnation: int) -> Path:
    """Where a start of `run` writes down how long all have taken."""
    return lease_file(run, incarnation).with_suffix(SPENT)


def newest_manifest(run: Path) -> Path | None:
    """The manifest of the newest checkpoint that is not set aside; whether it is whole is not looked at."""
    return max(run.glob(f"{CHECKPOINTS}/{STEP}*[0-9]/{MANIFEST}"), default=None)
