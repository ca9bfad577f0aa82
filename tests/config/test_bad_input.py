"""Whatever is set wrong ends with code 2 and one message that says what to type, and leaves nothing behind."""

import signal
from contextlib import suppress
from pathlib import Path

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from tests.config.cases import CASES, Case
from tests.ranks import Ended, Starter


@pytest.mark.parametrize("bad", CASES, ids=str)
def test_bad_input_gets_one_message_and_leaves_nothing_behind(starter: Starter, tmp_path: Path, bad: Case) -> None:
    if bad.prepare is not None:
        bad.prepare(tmp_path)
    before = everything_in(tmp_path)
    ended = run_as_torchrun_does(starter, bad)
    assert ended.codes[0] == 2, ended.output
    assert ended.output.startswith("error: ")
    assert ended.output.count("\n") == 1, "one message, on one line"
    assert ended.outputs[1:] == [""] * (bad.ranks - 1), "one rank speaks"
    for part in bad.says:
        assert part in ended.output
    assert everything_in(tmp_path) == before


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
        str(path): content for path, content in found.items() if not path.name.startswith(("output-", "__pycache__"))
    }
