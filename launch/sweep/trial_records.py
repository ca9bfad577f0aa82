"""What is known of each trial: its config and digest, whether its folder holds the finished run, its score, its rung."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from phalanx.common.files import read_json
from phalanx.compose.digest import defining, differing, digest
from phalanx.compose.former_digests import former_digests
from phalanx.config.metric_direction import as_results
from phalanx.config.schema import Config
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.run_folder.jsonl import number

from ..search.asha import RungState
from ..search.optuna_study import Search
from ..search.trial_storage import BATCH, DIGEST, ENDED_BY, EVERY, PROMOTED, THREADS
from .trial import SCORE, SweepPlan, TrialRun

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from phalanx.compose.compose import Composed


class TrialRecords:
    """Reads and writes the storage of a sweep's trials, and reads the folders of their runs."""

    def __init__(self, plan: SweepPlan, search: Search) -> None:
        self._plan = plan
        self._search = search
        self._composed: dict[TrialRun, Composed] = {}

    def unfinished(self) -> "list[FrozenTrial]":
        """The trials whose end is open. Of those that are the same run the first is trained, and shares its end."""
        first_with: dict[str, FrozenTrial] = {}
        found = []
        for trial in self._search.trials():
            known = self._digest(trial) if self._search.is_drawn(trial) else None
            if known is None:
                continue
            first = first_with.setdefault(known, trial)
            if trial.state.is_finished() or self._had_ended(trial):
                continue
            if first is trial:
                found.append(trial)
            elif first.state.is_finished():
                self._search.share(first, trial.number)
        return found

    def words(self, trial_run: TrialRun) -> list[str]:
        threads = self._search.attr(trial_run.trial, THREADS, self._plan.threads)
        return self._plan.words(trial_run, self._search.words(trial_run.trial), threads)

    def composed(self, trial_run: TrialRun) -> "Composed":
        if trial_run not in self._composed:
            self._composed[trial_run] = self._plan.compose(self.words(trial_run))
        return self._composed[trial_run]

    def _digest(self, trial: "FrozenTrial") -> str | None:
        """None of a trial whose point is none that could be trained; it has failed."""
        known: str | None = trial.user_attrs.get(DIGEST)
        if trial.state.is_finished() or {DIGEST, BATCH, EVERY} <= trial.user_attrs.keys():
            return known
        if THREADS not in trial.user_attrs:
            self._search.set_attr(trial.number, THREADS, self._plan.threads)  # wherever it goes on, it has as many
        try:
            config = self.composed(TrialRun(trial.number, 0)).config
        except ConfigError as error:
            self._search.fail(trial.number, str(error), out_of_memory=False)
            return None
        found = digest(config)
        self._search.set_attr(trial.number, BATCH, config.train.global_batch)
        self._search.set_attr(trial.number, EVERY, config.eval.every)
        self._search.set_attr(trial.number, DIGEST, found)
        return found

    def was_trained(self, trial_run: TrialRun) -> bool:
        """Whether its folder holds the finished run. Raises ConfigError where that is the run of another config."""
        run = self._plan.run(trial_run)
        if not (run / names.SUMMARY).exists():
            return False
        noted = self._digest(self._search.trials()[trial_run.trial]) if trial_run.seed_index == 0 else None
        if noted is not None and _is_of(run, [noted]):
            return True
        config = self.composed(trial_run).config
        known = [digest(config), *former_digests(config)]
        if _is_of(run, known) or (self._plan.deferred and _is_elsewhere(run, config, self._plan.deferred)):
            return True
        raise ConfigError(
            f"{run} holds a finished run of another config than trial {trial_run.trial}, whose result it is not. Type "
            f"run.name=… for a sweep of its own, or move {run} away"
        )

    def record_score(self, trial_run: TrialRun) -> None:
        """A run was trained to its end; its trial has, too, where this was the last one."""
        summary = read_json(self._plan.run(trial_run) / names.SUMMARY)
        evaluation = summary.get("eval") if isinstance(summary, dict) else None
        found = as_results(evaluation).get(self._plan.split) if isinstance(evaluation, dict) else None
        score = number(found.get(self._plan.metric_name)) if isinstance(found, dict) else None
        if score is None:
            self._search.fail(
                trial_run.trial, f"its last evaluation has no finite {self._plan.metric}", out_of_memory=False
            )
            return
        before: str | None = self._search.attr(trial_run.trial, ENDED_BY, None)
        reasons = dict.fromkeys([*(before or "").split(", "), str(summary.get("ended_by", "steps"))])
        self._search.set_attr(trial_run.trial, ENDED_BY, ", ".join(filter(None, reasons)))
        self._search.set_attr(trial_run.trial, SCORE.format(trial_run.seed_index), score)
        self._had_ended(self._search.trials()[trial_run.trial])

    def _had_ended(self, trial: "FrozenTrial") -> bool:
        """Whether what is on record of an open trial is its end, which is told then: who noted it may have been killed
        before."""
        names = [SCORE.format(each.seed_index) for each in self._plan.trial_runs(trial.number)]
        if all(name in trial.user_attrs for name in names):
            self._search.complete(trial.number, [trial.user_attrs[name] for name in names])
            return True
        return self._search.had_failed(trial)

    def rung_state(self, trial: int) -> RungState:
        return rung_state_of(self._search.trials()[trial])

    def paused(self) -> set[int]:
        """The trials that came to a rung which they are not good enough for, so far; those that ended among them."""
        if self._plan.asha is None:
            return set()
        everyone = {trial.number: rung_state_of(trial) for trial in self._search.trials() if EVERY in trial.user_attrs}
        return everyone.keys() - self._plan.asha.promotable(everyone)


def rung_state_of(trial: "FrozenTrial") -> RungState:
    noted = trial.user_attrs
    return RungState(noted.get(BATCH, 1), noted.get(EVERY) or 1, trial.intermediate_values, noted.get(PROMOTED, 0))


def _is_of(run: Path, digests: Collection[str]) -> bool:
    """Whether the run in the folder `run` is that of the config with one of these digests, as far as its files tell."""
    newest = names.newest_manifest(run)
    manifest = None if newest is None else read_json(newest)
    if isinstance(manifest, dict):
        return manifest.get("config_digest") in digests
    return _of_config(run) in digests


def _is_elsewhere(run: Path, config: Config, left: Collection[str]) -> bool:
    """Whether it is that of the config but for the keys `left`, which each job looks up for itself."""
    from phalanx.compose import resolved  # here, for OmegaConf takes long to import

    try:
        stored = resolved.read(run / names.RESOLVED)
    except ConfigError:
        return False
    return differing(defining(stored), defining(config)).keys() <= set(left)


def _of_config(run: Path) -> str | None:
    """The digest of the config that a run without checkpoints was given."""
    from phalanx.compose import resolved

    try:
        return digest(resolved.read(run / names.RESOLVED))
    except ConfigError:
        return None
