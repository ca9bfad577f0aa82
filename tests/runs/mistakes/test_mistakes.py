"""What beginners do by mistake gets one message that shows their own line or what to type, and nothing is lost."""

import re
from functools import cache
from pathlib import Path

import pytest

from phalanx.compose.compose import Composed, compose
from phalanx.config.limits import check
from phalanx.exit.codes import ConfigError
from tests.ranks import COMPOSES, SMALL, Ended, Nursery, Starter
from tests.runs.mistakes.in_the_code import IN_THE_CODE
from tests.runs.mistakes.in_the_config import IN_THE_CONFIG
from tests.runs.mistakes.project import WORDS, Mistake

OURS = re.compile(r'File ".*/(phalanx|train|launch)/\w+/.*", line')
RIGHT = Mistake("nothing", {}, "")


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def good(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the project as it should be, finished, which is kept."""
    folder = tmp_path_factory.mktemp("good")
    RIGHT.lay_out(folder)
    return Starter(nursery, folder).train(1, *WORDS, name="good", environ={"PYTHONPATH": "."}).folder


@pytest.fixture(autouse=True)
def composed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is for what the config names, which is imported later: it decides nothing of what the words compose to."""
    monkeypatch.setattr("tests.ranks.COMPOSES", COMPOSES - {"PYTHONPATH"})


@pytest.mark.parametrize("mistake", [*IN_THE_CODE, *IN_THE_CONFIG], ids=str)
def test_a_mistake_gets_one_message_and_loses_nothing(
    mistake: Mistake, starter: Starter, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = starter.folder / "runs"
    runs.mkdir()
    good.rename(runs / "good")
    try:
        before = everything_in(runs / "good")
        mistake.lay_out(starter.folder)
        ended = start(starter, mistake, monkeypatch)
        assert everything_in(runs / "good") == before
    finally:
        (runs / "good").rename(good)
    assert ended.codes == [mistake.code] * mistake.ranks, ended.output
    check_message(mistake, starter.folder, ended.outputs)
    assert (runs / "bad").exists() == mistake.begins
    if mistake.begins:
        run = starter.results("bad")
        (event,) = run.events("error")
        assert event["code"] == mistake.code
        steps = [line["step"] for line in run.metrics("train")]
        assert steps == list(range(1, len(steps) + 1)), "what was trained is there"


def start(starter: Starter, mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> Ended:
    """What the words alone decide is asked of what decides it, all else of ranks."""
    words = (*WORDS, *mistake.words, "run.name=bad")
    if any(word.startswith(("-", "run.imports")) for word in words):  # which look into the folder
        return starter.run(mistake.ranks, *words, environ={"PYTHONPATH": "."})
    try:
        found = composed((*SMALL, *words))
        check(found.config, mistake.ranks)
    except ConfigError as error:
        return Ended([2], [f"error: {error}\n"])
    monkeypatch.setattr("tests.ranks._composed", lambda _: {"plain": found.plain, "foreign": found.foreign})
    return starter.run(mistake.ranks, *words, environ={"PYTHONPATH": "."})


@cache  # most mistakes are in the code, whose words are the same
def composed(words: tuple[str, ...]) -> Composed:
    return compose(words)


def check_message(mistake: Mistake, folder: Path, outputs: list[str]) -> None:
    (said,) = [text for text in outputs if "error" in text] or [""]
    message = said[said.index("error") :]
    assert [text for text in outputs if "Traceback" in text and text is not said] == []
    for part in mistake.says.split(" … "):
        assert part in message
        message = message[message.index(part) :]
    for place in mistake.places(folder):
        file, line = place.split(":")
        assert place in said or f'{file}", line {line}' in said, said
    assert OURS.search(said) is None, f"lines of ours are shown:\n{said}"
    if mistake.code == 2:
        assert said.count("\n") == 1, f"one message, on one line:\n{said}"
