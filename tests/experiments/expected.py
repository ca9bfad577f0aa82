"""What an experiment is to reach and what it is held against, as the head of its file says."""

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.ranks import ROOT, Results

FULL_SIZE = ("imagenet_", "gpt2_")  # are trained on GPUs alone
EXPERIMENTS = [
    file.stem for file in sorted((ROOT / "conf/experiment").glob("*.yaml")) if not file.stem.startswith(FULL_SIZE)
]
_LINE = re.compile(r"^# +expected: (?:(\w+)/)?(\w+) (>=|<=) ([0-9.]+), baseline ([0-9.]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Expected:
    """`# expected: miou >= 0.66, baseline 0.631`; of several evaluation sets `# expected: phrases/wer <= 0.09, …`."""

    split: str
    metric: str
    sign: int  # 1: more is better, -1: less is
    number: float
    baseline: float

    @staticmethod
    def of(experiment: str) -> "Expected":
        head = (ROOT / f"conf/experiment/{experiment}.yaml").read_text(encoding="utf-8")
        found = _LINE.search(head)
        assert found, f"the head of {experiment} does not say what is expected, and what the baseline is"
        split, metric, sign, number, baseline = found.groups()
        return Expected(split or "eval", metric, 1 if sign == ">=" else -1, float(number), float(baseline))

    def measured(self, run: Results) -> float:
        """The metric in the last evaluation."""
        return float(run.metrics(self.split)[-1][self.metric])

    def reached(self, value: float) -> bool:
        return self.sign * value >= self.sign * self.number

    def beaten(self, values: Sequence[float]) -> bool:
        """Whether the mean of some seeds is beyond the baseline by more than its standard error."""
        error = statistics.stdev(values) / math.sqrt(len(values))
        return bool(self.sign * (statistics.mean(values) - self.baseline) > error)
