"""Data worker processes: forked by a fork server, with signals blocked at start, ended with their rank.

They are not forked from the rank: a fork would hold its sockets open, so that other ranks do not see it die, share its file
positions, and copy locks that threads hold.
"""

import atexit
import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from phalanx.exit.codes import ConfigError
from phalanx.system.allocator import keep_freed_memory

from . import fork_server
from .shared_dataset import SharedDataset, receive
from .tensor_packing import PackedTensors, pack, unpack
from .worker_error import WorkerFailure

Answer = TypeVar("Answer")

_DEATH_S = 0.5  # timeout for the fork server to report a worker's exit


class Workers(Generic[Answer]):
    """Processes that call a data set's `__getitems__`."""

    def __init__(
        self, dataset: Dataset[Answer], count: int, ahead: int, pin: bool, *, shared: SharedDataset, stay: bool
    ) -> None:
        """Up to `count` processes, which prefetch `ahead` answers each; with `stay` they are kept between iterations.

        What data sets hold is written into `shared` once, for all workers that are given the same one.
        """
        self._dataset = _WorkerDataset(dataset, shared)
        self._count = count
        self._ahead = ahead
        self._pin = pin
        self._stay = stay
        self._questions = _QuestionSampler()
        self._loader: DataLoader[PackedTensors] | None = None

    def answers(self, questions: Iterable[Any]) -> Iterator[Answer]:
        """The answer to each question, in order. An earlier iteration must have ended or is abandoned.

        Processes start at once. Raises ConfigError when the data set cannot be sent to one; the iterator what a worker
        raised, with its traceback, and RuntimeError when one died.
        """
        rest = iter(questions)
        first = list(islice(rest, self._count))
        if not first:  # a worker that starts and ends at once prints an error
            return iter(())
        self._questions.asked = chain(first, rest)
        with _sending():
            if self._loader is None:
                self._loader = self._begin(len(first))
            answers: Any = iter(self._loader)
        atexit.unregister(_kill_workers)
        atexit.register(_kill_workers)  # again, to run before torch's handler that joins workers
        return self._received(answers)

    def _received(self, answers: Any) -> Iterator[Answer]:
        while True:
            try:
                answer = next(answers)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                _explain(answers._workers, error)
                raise
            if isinstance(found := unpack(answer), WorkerFailure):
                raise found.error()
            yield found
            self._dataset.replace_held()  # while workers are busy with what comes next

    def _begin(self, count: int) -> "DataLoader[PackedTensors]":
        return DataLoader(
            self._dataset,
            batch_sampler=self._questions,
            collate_fn=_identity,
            num_workers=count,
            prefetch_factor=self._ahead,
            pin_memory=self._pin,
            persistent_workers=self._stay,
            multiprocessing_context=_context(),
            worker_init_fn=_initialise_worker,
            generator=torch.Generator(),  # the workers' base seed must not be drawn from the run's own generator
        )


class _QuestionSampler:
    """A batch sampler over the arguments of `__getitems__`, set anew for each iteration."""

    def __init__(self) -> None:
        self.asked: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.asked)


class _WorkerDataset(Dataset[PackedTensors]):
    """The data set in a worker: it is sent with its memory in one block, and so are its answers."""

    def __init__(self, dataset: Dataset[Any], shared: SharedDataset | None) -> None:
        self._dataset = dataset
        self._shared = shared
        self._replaced = False

    def __getitems__(self, question: Any) -> PackedTensors:
        try:
            return pack(self._dataset.__getitems__(question))  # type: ignore[attr-defined]
        except Exception as error:
            return pack(WorkerFailure.of(error))

    def replace_held(self) -> None:
        """The rank needs no lists and arrays of its own once workers have them. Done once."""
        if not self._replaced:
            assert self._shared is not None
            self._shared.replace_held(self._dataset)
            self._replaced = True

    def __reduce__(self) -> tuple[Any, ...]:
        assert self._shared is not None, "a worker has no workers"
        return _worker_dataset, self._shared.load(self._dataset)


def _worker_dataset(*sent: Any) -> _WorkerDataset:
    return _WorkerDataset(receive(*sent), None)


def run_in_worker(
    act: Callable[[Any], Answer], argument: Any, workers: int, shared: SharedDataset | None = None
) -> Answer:
    """`act(argument)`, called in a worker process if there are `workers`, so that the rank's own data set stays unused.

    A data set may open files when its first sample is asked for, and could not be sent to its workers afterwards.
    """
    if not workers:
        return act(argument)
    memory = SharedDataset() if shared is None else shared
    helpers: Workers[Answer] = Workers(_SingleAnswer(act, argument), 1, 1, False, shared=memory, stay=False)
    return next(helpers.answers([None]))


class _SingleAnswer(Dataset[Any]):
    """A data set whose only sample is the result of a call."""

    def __init__(self, act: Callable[[Any], Any], argument: Any) -> None:
        self._act = act
        self._argument = argument

    def __getitems__(self, _: None) -> Any:
        return self._act(self._argument)


def _context() -> BaseContext:
    """The forkserver context. Starts the server if it is not running."""
    fork_server.ensure_running()
    return multiprocessing.get_context("forkserver")


def _initialise_worker(worker: int) -> None:
    """worker_init_fn of every worker."""
    keep_freed_memory(os.environ)
    for number in fork_server.FOR_THE_RANK:
        signal.signal(
            number, _ignore_signal
        )  # a handler, because programs that a data set starts would inherit an ignored signal
    signal.pthread_sigmask(signal.SIG_UNBLOCK, fork_server.FOR_THE_RANK)
    threading.Thread(target=_end_with_rank, name="rank", daemon=True).start()


def _ignore_signal(number: int, frame: object) -> None:
    return None


def _kill_workers() -> None:
    """At exit of the rank: workers that block on a full queue would not read the request to end."""
    for worker in multiprocessing.active_children():
        worker.kill()


def _end_with_rank() -> None:
    rank = multiprocessing.parent_process()
    assert rank is not None
    rank.join()
    os._exit(1)


@contextmanager
def _sending() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Got pickle error")  # which would advise to fork
            warnings.filterwarnings("ignore", "This DataLoader will create")  # of more workers than CPUs
            yield
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        nameless = "<lambda>" in str(error) or "<locals>" in str(error)
        advice = (
            "Write a lambda, or a function within another, as a function of a module, such as a collate or a transform"
            if nameless
            else "Open files and connections when the first sample is asked for, not in __init__"
        )
        raise ConfigError(
            f"The data set cannot be sent to worker processes: {error}. {advice}, or type data.workers=0"
        ) from error


def _explain(workers: Sequence[BaseProcess], error: Exception) -> None:
    """Raise RuntimeError with the cause if a worker died."""
    wait([worker.sentinel for worker in workers], _DEATH_S)
    for worker in workers:
        code = worker.exitcode
        if code:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise RuntimeError(
                f"the data worker with pid {worker.pid} {how}. Out of memory ends it by SIGKILL, too little shared "
                "memory (/dev/shm) by SIGBUS: lower data.workers or data.prefetch"
            ) from error


def _identity(batch: Any) -> Any:
    return batch
