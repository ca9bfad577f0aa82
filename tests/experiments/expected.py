"""What an experiment is to reach, as the head of its file says."""

import re

from tests.ranks import ROOT

_LINE = re.compile(r"^# +expected: (\S+) (>=|<=) ([0-9.]+)", re.MULTILINE)


def reached(experiment: str, line: dict[str, float]) -> bool:
    """Whether the last line of an evaluation is as good as `# expected: miou >= 0.66` in the head says."""
    head = (ROOT / f"conf/experiment/{experiment}.yaml").read_text(encoding="utf-8")
    found = _LINE.search(head)
    assert found, f"the head of {experiment} says nothing of what is expected"
    name, sign, number = found.groups()
    return line[name] >= float(number) if sign == ">=" else line[name] <= float(number)
