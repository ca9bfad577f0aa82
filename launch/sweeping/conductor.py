"""A sweep under way: whichever slot is free gets a trial at once, and every trial gets an end."""

import signal
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from launch import cause
from launch.ears import Ears
from launch.lines import Evaluations, number, read_events, whole
from launch.sweeping.rungs import Climber, Ladder
from launch.sweeping.search import BATCH, DIGEST, RANK_S, SEEDS, STEPS, Search
from launch.sweeping.slots import Gone, Slot, Warm, World
from launch.sweeping.space import Space
from train import lease
from train.cause import VARIABLE
from train.config import Mode, SweepConfig
from train.files import read_json, write_json
from train.hearing import UNTIL, StopFile
from train.identity import digest
from train.outcome import ConfigError, ExitCode

if TYPE_CHECKING:
    from train.compose import Composed

_LOOK_S = 0.02
_SHOWN_S = 0.5
_TRIES = 3  # of a trial whose ranks are killed


@dataclass(frozen=True)
class Plan:
    """What a sweep is: `shared` are the words that it adds to those of every point, `seed` is the first that trains.

    `config` names the metric that ranks the trials. `compose` composes a command line; `ladder` is for trials that are
    halved.
    """

    folder: Path
    space: Space
    config: SweepConfig
    metric: str
    seed: int
    shared: tuple[str, ...]
    compose: Callable[[Sequence[str]], "Composed"]
    ladder: Ladder | None

    def run(self, trial: int, place: int) -> Path:
        """The folder of the run of a trial with the seed in this place."""
        more = f"-seed{self.seed + place}" if self.config.seeds > 1 else ""
        return self.folder / f"{trial:04d}{more}"

    def words(self, trial: int, place: int, chosen: Sequence[str]) -> list[str]:
        """The command line of that run."""
        seed = [f"seed={self.seed + place}"] if self.config.seeds > 1 else []
        return [*self.space.fixed, *chosen, *self.shared, *seed, f"run.name='{self.run(trial, place).name}'"]


@dataclass
class _Attempt:
    """A start of one of a trial's runs."""

    trial: int
    place: int  # of its seed
    run: Path
    slot: Slot
    world: World
    evaluations: Evaluations
    causes: Path
    goes_on: bool  # with what an earlier start left
    began: float = field(default_factory=time.monotonic)
    pruned: bool = False

    @property
    def is_over(self) -> bool:
        """Whether its ranks only say goodbye, as W&B does for seconds, in a slot that they leave free: a GPU they hold."""
        return not self.slot.gpus and not self.world.codes and (self.run / "summary.json").exists()


class Conductor:
    """Of one sweep, in one process, which holds the sweep's folder."""

    def __init__(
        self,
        plan: Plan,
        search: Search,
        slots: Sequence[Slot],
        warm: Warm,
        ears: Ears,
        stop: StopFile,
        changed: Callable[["Conductor"], None],
    ) -> None:
        """`warm` is closed when the sweep ends; `stop` tells that the sweep is to leave, as `ears` do.

        `changed` is called when a trial ends, and now and then.
        """
        self.plan = plan
        self.search = search
        self.running: dict[Slot, _Attempt] = {}
        self.waiting: set[int] = set()  # at a rung
        self.slots = slots
        self._warm = warm
        self._ears = ears
        self._stop = stop
        self._changed = changed
        self._again: deque[tuple[int, int]] = deque()  # begun before; a trial, and the place of its seed
        self._new: deque[tuple[int, int]] = deque()
        self._scores: dict[int, dict[int, float]] = defaultdict(dict)  # by trial and place
        self._same: dict[int, list[int]] = defaultdict(list)  # trials that are the same run as an earlier one
        self._made: dict[tuple[int, int], Composed] = {}  # by trial and place
        self._tries: Counter[tuple[int, int]] = Counter()
        self._lingering: list[World] = []  # that have trained to the end, and say goodbye
        self._why_leaving: ExitCode | None = None
        self._trouble: ConfigError | None = None
        self._shown = time.monotonic()

    def run(self) -> ExitCode:
        """Until every trial has its end, or the sweep is told to leave. Raises ConfigError when it cannot go on."""
        with tempfile.TemporaryDirectory(prefix="phalanx-sweep-") as scratch:
            self._scratch = Path(scratch)
            try:
                self._take_up()
                while self._goes_on():
                    try:
                        self._turn()
                    except Gone:
                        self._replace_warm()
                    except ConfigError as error:
                        self._trouble = self._trouble or error
                        self._leave(ExitCode.CONFIG)
            except BaseException:
                self._end_all()
                raise
            finally:
                self._warm.close()
        if self._trouble is not None:
            raise self._trouble
        if self._why_leaving is not None:
            return self._why_leaving
        for trial in sorted(self.waiting):
            self._prune(trial)
        self.waiting.clear()
        self._changed(self)
        return ExitCode.FINISHED

    def _take_up(self) -> None:
        """Go on with what an earlier process left: what is undecided in the storage."""
        first_with: dict[str, int] = {}
        for trial in self.search.trials():
            first = first_with.setdefault(self._digest(trial.number), trial.number)
            if trial.state.is_finished():
                continue
            if first != trial.number and not self.search.trials()[first].state.is_finished():
                self._same[first].append(trial.number)
            elif first != trial.number:
                self._share(first, trial.number)
            elif self._rests(trial.number):
                self.waiting.add(trial.number)
            else:
                self._again += [(trial.number, place) for place in range(self.plan.config.seeds)]
        self._first_with = first_with

    def _goes_on(self) -> bool:
        if self._why_leaving is not None:
            return bool(self.running or self._lingering)
        self._prepare()
        busy = self.running or self._lingering or self._again or self._new
        return bool(busy) or self._promoted() is not None

    def _turn(self) -> None:
        if self._why_leaving is None:
            self._fill()
        self._hear()
        settled = False
        for attempt in list(self.running.values()):
            self._warm.take_ended(attempt.world)
            self._follow(attempt)
            if attempt.world.ended or attempt.is_over:
                del self.running[attempt.slot]
                self._settle(attempt)
                settled = True
                self._lingering += [] if attempt.world.ended else [attempt.world]
        for world in self._lingering:
            self._warm.take_ended(world)
        self._lingering = [world for world in self._lingering if not world.ended]
        if settled or time.monotonic() > self._shown + _SHOWN_S:
            self._shown = time.monotonic()
            self._changed(self)
            if self._stop.heard() is not None and self._why_leaving is None:
                self._leave(ExitCode.STOPPED)

    # What a free slot gets

    def _fill(self) -> None:
        free = [slot for slot in self.slots if slot not in self.running]
        blocked: list[tuple[int, int]] = []
        while free and (job := self._next()) is not None:
            run = self.plan.run(*job)
            if (run / "summary.json").exists():
                self._score(*job)
            elif run.exists() and lease.live(run) is not None:
                blocked.append(job)  # ranks of an earlier process, which save and leave
            else:
                slot = free.pop(0)
                self.running[slot] = self._start(slot, *job)
        self._again += blocked

    def _next(self) -> tuple[int, int] | None:
        if self._again:
            return self._again.popleft()
        self._prepare()
        if (trial := self._promoted()) is not None:
            self.waiting.discard(trial)
            return trial, 0
        return self._new.popleft() if self._new else None

    def _prepare(self) -> None:
        """Have a new trial at hand before a slot is free for it."""
        while not self._new and (trial := self.search.ask()) is not None:
            first = self._first_with.setdefault(self._digest(trial), trial)
            if first == trial:
                self._new += [(trial, place) for place in range(self.plan.config.seeds)]
                for job in self._new:
                    self._composed(*job)
            elif self.search.trials()[first].state.is_finished():
                self._share(first, trial)
            else:
                self._same[first].append(trial)

    def _digest(self, trial: int) -> str:
        known: str | None = self.search.noted(trial, DIGEST, None)
        if known is not None:
            return known
        config = self._composed(trial, 0).config
        found = digest(config)
        self.search.note(trial, BATCH, config.train.global_batch)
        self.search.note(trial, DIGEST, found)
        return found

    def _words(self, trial: int, place: int) -> list[str]:
        return self.plan.words(trial, place, self.search.words(trial))

    def _composed(self, trial: int, place: int) -> "Composed":
        if (trial, place) not in self._made:
            self._made[trial, place] = self.plan.compose(self._words(trial, place))
        return self._made[trial, place]

    def _start(self, slot: Slot, trial: int, place: int) -> _Attempt:
        self._tries[trial, place] += 1
        run = self.plan.run(trial, place)
        causes, goes_on = Path(tempfile.mkdtemp(dir=self._scratch)), run.exists()
        environ = {VARIABLE: cause.files(causes)[VARIABLE]}
        if self.plan.ladder is not None:
            environ[UNTIL] = str(self.plan.ladder.next_step(self._climber(trial)))
        output = self.plan.folder / "output" / f"{run.name}.txt"
        words, composed = self._words(trial, place), self._composed(trial, place)
        world = self._warm.start(slot, self.plan.config.ranks, words, composed, output, environ)
        return _Attempt(trial, place, run, slot, world, Evaluations(run), causes, goes_on)

    # What is heard meanwhile

    def _hear(self) -> None:
        heard = self._ears.next(_LOOK_S)
        if heard is None:
            return
        if self._ears.interrupts > 1:
            self._end_all()
        self._leave(ExitCode.STOPPED if self._ears.interrupts else ExitCode.PREEMPTED)

    def _leave(self, why: ExitCode) -> None:
        """All save and leave; the same command goes on."""
        self._why_leaving = self._why_leaving or why
        for attempt in self.running.values():
            attempt.world.send(signal.SIGTERM)

    def _end_all(self) -> None:
        for world in self._worlds():
            world.send(signal.SIGKILL)

    def _worlds(self) -> list[World]:
        return [*(attempt.world for attempt in self.running.values()), *self._lingering]

    def _replace_warm(self) -> None:
        """Its ranks were told to save and leave when it died, and nobody hears how they end."""
        self._again.extendleft((attempt.trial, attempt.place) for attempt in self.running.values())
        for world in self._worlds():
            world.port.close()
        self.running.clear()
        self._lingering.clear()
        self._warm.close()
        if self._why_leaving is None:
            self._warm = Warm(self._ears)

    def _follow(self, attempt: _Attempt) -> None:
        """Report evaluations, and ask a trial to leave that does not deserve its slot."""
        trial = attempt.trial
        for entry in attempt.evaluations.new():
            if self.plan.metric not in entry:
                names = ", ".join(name for name in entry if name not in ("step", "split", "time"))
                raise ConfigError(
                    f"sweep.metric={self.plan.metric} is no metric of the task, which has {names}. Type one of them"
                )
            if self.plan.config.seeds > 1 or entry["step"] <= max(self._values(trial), default=0):
                continue
            ends = self.search.report(trial, entry["step"], self._number(entry[self.plan.metric]))
            steps = self._steps(trial, attempt)
            attempt.pruned |= ends and entry["step"] < steps
        if attempt.pruned:
            _ask_to_leave(attempt.run)

    # How trials end

    def _settle(self, attempt: _Attempt) -> None:
        trial, place, codes = attempt.trial, attempt.place, attempt.world.codes
        if self.search.trials()[trial].state.is_finished():
            return  # it failed with another seed
        spent_s = (time.monotonic() - attempt.began) * self.plan.config.ranks
        self.search.note(trial, RANK_S, self.search.noted(trial, RANK_S, 0.0) + spent_s)
        ended = _cause(attempt)
        if ended.code is ExitCode.FINISHED:
            self._score(trial, place)
        elif ended.code is ExitCode.STOPPED and attempt.pruned:
            self._prune(trial)
        elif ended.code is ExitCode.STOPPED and self.plan.ladder is not None:
            self.waiting.add(trial)  # it came to its rung
        elif ended.code is ExitCode.CONFIG and attempt.goes_on:
            raise ConfigError(f"trial {trial}: {ended.message}")  # what it began with is no longer what is here
        elif self._why_leaving is not None:
            pass  # it stays undecided, and the same command goes on with it
        elif ended.code is ExitCode.PREEMPTED or (
            any(code < 0 for code in codes.values()) and self._tries[trial, place] < _TRIES
        ):
            self._again.appendleft((trial, place))
        else:
            self._fail(trial, ended.message, ended.code is ExitCode.OUT_OF_MEMORY)

    def _score(self, trial: int, place: int) -> None:
        """A run was trained to its end."""
        run = self.plan.run(trial, place)
        summary = read_json(run / "summary.json")
        evaluation = summary.get("eval") if isinstance(summary, dict) else None
        score = number(evaluation.get(self.plan.metric)) if isinstance(evaluation, dict) else None
        if score is None:
            self._fail(trial, f"its last evaluation has no finite {self.plan.metric}", out_of_memory=False)
            return
        self._scores[trial][place] = score
        if len(self._scores[trial]) == self.plan.config.seeds:
            scores = [self._scores[trial][place] for place in sorted(self._scores[trial])]
            for same in (trial, *self._same.pop(trial, [])):
                self.search.complete(same, scores)

    def _prune(self, trial: int) -> None:
        for same in (trial, *self._same.pop(trial, [])):
            self.search.prune(same)

    def _fail(self, trial: int, message: str, out_of_memory: bool) -> None:
        for same in (trial, *self._same.pop(trial, [])):
            self.search.fail(same, message, out_of_memory)
        for attempt in self.running.values():
            if attempt.trial == trial:
                attempt.world.send(signal.SIGTERM)
        self._new = deque(job for job in self._new if job[0] != trial)
        self._again = deque(job for job in self._again if job[0] != trial)
        if len(self.search.failed()) > self.plan.config.max_failures:
            self._leave(ExitCode.GAVE_UP)

    def _share(self, first: int, same: int) -> None:
        """What became of the first is what becomes of one that is the same run."""
        if first in [trial.number for trial in self.search.completed()]:
            self.search.complete(same, self.search.noted(first, SEEDS, []))
        elif first in self.search.failed():
            self.search.fail(same, f"it is the same run as trial {first}", out_of_memory=False)
        else:
            self.search.prune(same)

    # Rungs

    def _rests(self, trial: int) -> bool:
        """Whether a trial has come to a rung that it is not good enough for, so far."""
        ladder = self.plan.ladder
        return ladder is not None and not ladder.goes_on(self._climber(trial), self._climbers())

    def _promoted(self) -> int | None:
        ladder = self.plan.ladder
        if ladder is None or not self.waiting:
            return None
        waiting = {trial: self._climber(trial) for trial in self.waiting}
        promoted = ladder.next_of(waiting, self._climbers())
        if promoted is None and not (self.running or self._again or self._new or self.search.completed()):
            return ladder.leader(waiting)  # few trials: the best one is trained to its end in any case
        return promoted

    def _climbers(self) -> list[Climber]:
        return [self._climber(trial.number) for trial in self.search.trials() if BATCH in trial.user_attrs]

    def _climber(self, trial: int) -> Climber:
        return Climber(self.search.noted(trial, BATCH, 1), self._values(trial))

    def _values(self, trial: int) -> dict[int, float]:
        found: dict[int, float] = self.search.trials()[trial].intermediate_values
        return found

    def _steps(self, trial: int, attempt: _Attempt) -> int:
        """Of the whole run, as it said itself when it began."""
        known: int = self.search.noted(trial, STEPS, 0)
        if not known:
            said = [whole(event.get("steps")) for event in read_events(attempt.run)]
            known = next(filter(None, said), 0)
            if known:
                self.search.note(trial, STEPS, known)
        return known

    def _number(self, value: object) -> float:
        """A value to compare by: one that is not finite is the worst there is."""
        found = number(value)
        worst = float("inf") if self.plan.config.mode is Mode.min else -float("inf")
        return worst if found is None else found


def _ask_to_leave(run: Path) -> None:
    """Once for each start, which may be none that listens yet."""
    holder = lease.live(run)
    if holder is not None and (stop := StopFile(run, holder.incarnation)).heard() is None:
        stop.ask()


def _cause(attempt: _Attempt) -> cause.Cause:
    """Why a start ended. The ranks' exit codes stand where a launcher would look for them."""
    codes = [attempt.world.codes.get(pid, 0) for pid in attempt.world.pids]
    with suppress(OSError):
        write_json(
            Path(cause.files(attempt.causes)[cause.RANKS]),
            [[rank, code, 0] for rank, code in enumerate(codes) if code],
        )
    return cause.read(attempt.causes, 1 if any(codes) else 0)
