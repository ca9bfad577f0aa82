"""Who starts a run and names PHALANX_FOLDER_FILE is told its folder, and whom its config may be trusted to name."""

import json
from pathlib import Path

from phalanx.exit.folder_file import VARIABLE
from tests.ranks import Starter

RUN = ("model=mlp", "model.hidden=[8]", "train.epochs=null")


def test_a_config_that_was_typed_is_trusted_once_the_folder_is_known_to_be_its_runs(
    starter: Starter, tmp_path: Path
) -> None:
    """Not that of another run in the same folder, which may be a stranger's; of a stored one whom its user names."""
    environ = {VARIABLE: str(tmp_path / "told")}
    folder = str(tmp_path / "runs" / "r")

    def told(*words: str) -> tuple[int, object]:
        (code, *_) = starter.run(2, *words, "run.name=r", environ=environ).codes
        return code, json.loads((tmp_path / "told").read_text())

    assert told(*RUN, "train.steps=2") == (0, {"folder": folder, "trust": None})
    assert told(*RUN, "train.steps=2") == (0, {"folder": folder, "trust": None}), "it has finished"
    assert told(*RUN, "train.steps=3") == (2, {"folder": folder, "trust": []}), "it is another run's"
    stored = (f"--config-dir={folder}", "--config-name=resolved", "run.trust=[mine]")
    assert told(*stored) == (0, {"folder": folder, "trust": ["mine"]})


def test_a_command_line_that_does_not_compose_has_no_folder(starter: Starter, tmp_path: Path) -> None:
    assert starter.run(1, "train.step=3", environ={VARIABLE: str(tmp_path / "told")}).codes == [2]
    assert not (tmp_path / "told").exists()
