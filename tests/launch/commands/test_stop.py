"""`phalanx stop` says for whom it waits."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from phalanx.launch.commands.stop import stop
from phalanx.run_folder import lease
from phalanx.run_folder.stop_file import StopFile


def test_who_does_not_leave_is_named_while_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, told = tmp_path / "r", list[str]()
    run.mkdir()
    (run / "resolved.yaml").touch()
    with lease.acquire(run, 0, {}) as held:

        def show(text: str) -> None:
            told.append(text)
            if text.startswith("waiting"):
                assert StopFile(run, held.incarnation).request()
                held.close()

        monkeypatch.setattr("phalanx.launch.commands.stop.show", show)
        monkeypatch.setattr("phalanx.launch.commands.stop._TELL_S", 0.0)
        assert CliRunner().invoke(stop, ["r", "--root", str(tmp_path)]).exit_code == 0
    asked, waiting, *_, last = told
    who = asked.removeprefix("asked ").removesuffix(" to save and leave")
    assert waiting == f"waiting since 0 s for {who}, see {run / 'logs'}"
    assert last.startswith("r is ")
