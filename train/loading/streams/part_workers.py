"""Worker processes of which each reads parts of its own of a stream, so that none is read twice."""

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Any, Generic, TypeVar

from torch.utils.data import Dataset

from ..workers.shared_dataset import SharedDataset
from ..workers.workers import Workers

Answer = TypeVar("Answer")


class PartWorkers(Generic[Answer]):
    """`count` processes, which prefetch `ahead` answers each: what asks for part p is answered by process p % count."""

    def __init__(
        self, dataset: Dataset[Answer], count: int, ahead: int, pin: bool, *, shared: SharedDataset, stay: bool
    ) -> None:
        self._processes = [Workers(dataset, 1, ahead, pin, shared=shared, stay=stay) for _ in range(count)]

    def answers(self, questions: Iterable[tuple[int, Any]]) -> Iterator[Answer]:
        """The answer to each question, a part and what its process is asked, in the order of the questions."""
        *asked, order = tee(questions, len(self._processes) + 1)
        received = [process.answers(self._own(i, asked[i])) for i, process in enumerate(self._processes)]
        return (next(received[part % len(received)]) for part, _ in order)

    def _own(self, process: int, questions: Iterable[tuple[int, Any]]) -> Iterator[Any]:
        return (question for part, question in questions if part % len(self._processes) == process)
