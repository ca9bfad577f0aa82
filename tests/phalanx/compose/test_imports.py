"""run.imports: the user's own resolvers are there when a config is resolved, and a stored config imports nothing."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from phalanx.compose.compose import compose
from phalanx.compose.digest import digest
from phalanx.compose.resolved import read
from phalanx.config.schema import as_plain
from phalanx.exit.codes import ConfigError
from tests.phalanx.compose import noting
from tests.ranks import Starter

RESOLVERS = """
from pathlib import Path
from omegaconf import OmegaConf

OmegaConf.register_new_resolver("guest.twice", lambda number: 2 * number, replace=True)
Path(__file__).with_name("imported").touch()
"""
EXPERIMENT = """# @package _global_
defaults:
  - digits
  - override /model: mlp

run: {imports: [guest.resolvers]}
train: {steps: 2, global_batch: 16}
eval: {every: null}
model: {hidden: ["${guest.twice:4}"]}
"""


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a package, and a config folder with an experiment that needs it."""
    (tmp_path / "guest").mkdir()
    (tmp_path / "guest" / "__init__.py").touch()
    (tmp_path / "guest" / "resolvers.py").write_text(RESOLVERS)
    (tmp_path / "guest" / "broken.py").write_text("\nx = {}['width']\n")
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "twice.yaml").write_text(EXPERIMENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "guest"]:
        del sys.modules[name]
    OmegaConf.clear_resolver("guest.twice")


def imported(folder: Path) -> bool:
    return (folder / "guest" / "imported").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("model=mlp", "model.hidden=['${guest.twice:4}']", "run.imports=[guest.resolvers]"),
        ("--config-dir={}/conf", "experiment=twice"),
        ("--config-dir={}/conf", "experiment=twice", "run.imports=[guest.resolvers,guest]"),
    ],
)
def test_resolvers_are_there_by_the_command_line_and_by_an_experiment(guest: Path, words: tuple[str, ...]) -> None:
    found = compose([word.replace("{}", str(guest)) for word in words])
    assert found.config.model["hidden"] == [8]
    typed = compose([word.replace("{}", str(guest)).replace("'${guest.twice:4}'", "8") for word in words]).config
    assert digest(found.config) == digest(typed), "the value names the run, not where it is from"


def test_a_run_replays_with_the_values_of_its_first_start(starter: Starter, guest: Path) -> None:
    """On ranks that import the module themselves; what replays the run needs it no more."""
    words = (f"--config-dir={guest}/conf", "experiment=twice")
    results = starter.train(2, *words, name="first", environ={"PYTHONPATH": str(guest)})
    assert read(results.folder / "resolved.yaml").model["hidden"] == [8]
    (guest / "guest" / "resolvers.py").unlink()
    again = starter.run(1, f"--config-dir={results.folder}", "--config-name=resolved", environ={"PYTHONPATH": ""})
    assert again.codes == [0], again.output
    assert "finished already" in again.output


def test_ranks_import_what_another_process_composed_with(starter: Starter) -> None:
    """As of a sweep, whose trials get a config that is composed already."""
    imports = f"run.imports=[{noting.__name__}]"
    noted = starter.folder / "noted"
    noted.mkdir()
    words = ("model=mlp", "model.hidden=[8]", "train.steps=1", "eval.every=null", imports)
    starter.train(2, *words, name="first", environ={"NOTED": str(noted)})
    assert len([*noted.iterdir()]) == 2, "both ranks; what composed it for them had no folder"


def test_an_import_that_fails_is_one_message(starter: Starter, guest: Path) -> None:
    words = ("model=mlp", "train.steps=1", "eval.every=null", "run.imports=[guest.broken]", "run.name=other")
    ended = starter.run(1, *words, environ={"PYTHONPATH": str(guest)})
    assert ended.codes == [2]
    assert ended.output.startswith("error: run.imports names guest.broken, and importing it fails at")
    assert "guest/broken.py:2 in <module>: KeyError: 'width'" in ended.output
    assert ended.output.count("\n") == 1


def test_a_stored_config_imports_nothing(guest: Path) -> None:
    """Neither by itself nor by what lies beside it; and what is typed registers no resolver that it could use."""
    theirs = guest / "theirs"
    theirs.mkdir()
    plain = as_plain(compose(["model=mlp"]).config)
    plain["run"]["imports"] = ["guest.resolvers"]
    (theirs / "resolved.yaml").write_text(yaml.safe_dump(plain))
    words = [f"--config-dir={theirs}", "--config-name=resolved"]
    assert compose(words).config.run.imports == []
    read(theirs / "resolved.yaml")
    (theirs / "optim").mkdir()
    (theirs / "optim" / "theirs.yaml").write_text("# @package _global_\nrun: {imports: [guest.resolvers]}")
    (theirs / "resolved.yaml").write_text(f"{yaml.safe_dump(plain)}\ndefaults: [optim: theirs, _self_]\n")
    assert compose(words).config.run.imports == []
    assert not imported(guest)
    plain["model"]["hidden"] = ["${guest.twice:4}"]
    (theirs / "resolved.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(ConfigError, match="would look something up"):
        compose([*words, "run.imports=[guest.resolvers]"])
    assert not imported(guest)
    plain["model"]["hidden"] = [8]
    (theirs / "resolved.yaml").write_text(yaml.safe_dump(plain))
    typed = compose([*words, "run.imports=[guest.resolvers]"]).config
    assert typed.run.imports == ["guest.resolvers"]
    assert imported(guest), "as who types it may need, for what it registers elsewhere"


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run.imports=[nobodys]"], "run.imports names nobodys, and there is no module nobodys"),
        (["run.imports=[guest.lost]"], "there is no module guest.lost. Install it, or put its folder on PYTHONPATH"),
        (["run.imports=guest"], "run.imports=guest does not fit: run.imports is a list of texts"),
        (
            ["seed=${guest.twice:4}"],
            "seed looks up what no resolver is registered for: Unsupported interp",
        ),
        (["run.imports=['${nothing.here}']"], "run.imports"),
    ],
)
def test_what_cannot_be_imported_or_looked_up_is_told(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        compose(words)
    assert says in str(raised.value)
    assert "Type " in str(raised.value) or "Install" in str(raised.value)
