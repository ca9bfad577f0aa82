"""Whatever is set wrong ends with code 2 and one message that says what to type, and leaves nothing behind."""

import signal
from contextlib import suppress
from pathlib import Path

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from phalanx.compose.compose import Composed, compose, is_query
from phalanx.config.limits import check
from phalanx.exit.codes import ConfigError
from tests.phalanx.config.cases import CASES, HARDWARE, KEYS, LIMITS, SYNTAX, TYPES, Case
from tests.ranks import QUIET, SMALL, Ended, Starter


@pytest.mark.parametrize("bad", CASES, ids=str)
def test_bad_input_gets_one_message_and_leaves_nothing_behind(
    starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: Case
) -> None:
    """What the command line alone decides is asked of what decides it, all else of ranks."""
    if bad.prepare is not None:
        bad.prepare(tmp_path)
    before = everything_in(tmp_path)
    with monkeypatch.context() as here:
        here.chdir(tmp_path)
        for name, value in {**QUIET, **bad.environ}.items():
            here.setenv(name, value)
        answer = composed(bad)
    if isinstance(answer, Composed):
        monkeypatch.setattr("tests.ranks.compose", lambda _: answer)  # which Starter would do once more
    message = answer if isinstance(answer, str) else refused_by_ranks(starter, bad)
    assert message.startswith("error: ")
    assert message.count("\n") == 1, "one message, on one line"
    for part in bad.says:
        assert part in message
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("bad", [KEYS[1], TYPES[0], LIMITS[0], HARDWARE[0], SYNTAX[0]], ids=str)
@pytest.mark.parametrize("ranks", [1, 2])
def test_what_the_command_line_decides_is_said_by_one_rank_of_any_number(
    starter: Starter, bad: Case, ranks: int
) -> None:
    message = refused_by_ranks(starter, Case(bad.words, bad.says, ranks, bad.environ))
    assert all(part in message for part in bad.says)
    assert message.count("\n") == 1


def composed(bad: Case) -> Composed | str | None:
    """What the command line composes to, or what it is refused with. None where it asks for an answer, as --help does."""
    argv = [*SMALL, *bad.words]
    try:
        if is_query(argv):
            return None
        found = compose(argv)
        check(found.config, bad.ranks)
    except ConfigError as error:
        return f"error: {error}\n"
    return found


def refused_by_ranks(starter: Starter, bad: Case) -> str:
    """What the one rank that speaks says of it; all end with code 2."""
    ended = run_as_torchrun_does(starter, bad)
    assert ended.codes[0] == 2, ended.output
    assert ended.outputs[1:] == [""] * (bad.ranks - 1), "one rank speaks"
    return ended.output


def run_as_torchrun_does(starter: Starter, bad: Case) -> Ended:
    """Host the store that ranks meet in; when rank 0 has left, end the others, which hold still meanwhile."""
    if bad.ranks == 1:
        return starter.start(1, *bad.words, environ=bad.environ).wait()
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    met = {"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    world = starter.start(bad.ranks, *bad.words, environ={**met, **bad.environ})
    codes = [world.nursery.wait(world.pids[0])]
    for rank in range(1, bad.ranks):
        with suppress(ProcessLookupError):
            world.kill(rank, with_signal=signal.SIGTERM)
    codes += [world.nursery.wait(pid) for pid in world.pids[1:]]
    return Ended(codes, [file.read_text(errors="replace") for file in world.files])


def everything_in(folder: Path) -> dict[str, bytes | None]:
    """Every path below `folder` with a file's content, without what the ranks printed."""
    found = {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}
    return {
        str(path): content
        for path, content in found.items()
        if not path.name.startswith("output-") and "__pycache__" not in path.parts
    }
