"""conf/ and the schema: every key in both, every default with a word on it, every option composes."""

import dataclasses
import operator
from pathlib import Path

import pytest
import yaml

from phalanx.compose.compose import compose
from phalanx.config.limits import check
from phalanx.config.schema import AshaConfig, Config, HyperbandConfig, MedianConfig, NoPruner, schema
from tests.ranks import ROOT

CONF = ROOT / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
OPTIONS = [f"{file.parent.relative_to(CONF)}={file.stem}" for file in FILES if file.parent != CONF]


def test_every_key_of_the_schema_has_its_default_in_conf() -> None:
    """That of a group in each of its files, in another that the file takes over, or for all of them in config.yaml."""
    root = yaml.safe_load((CONF / "config.yaml").read_text())
    groups = {next(iter(entry)) for entry in root["defaults"] if isinstance(entry, dict)}
    for section in dataclasses.fields(Config):
        name = section.name
        assert name in root or name in groups
        if dataclasses.is_dataclass(section.type):
            keys = {entry.name for entry in dataclasses.fields(section.type)}
            files, common = [*(CONF / name).glob("*.yaml")] if name in groups else [], set(root.get(name, ()))
            stored = {str(file): common | _keys(file) for file in files} or {name: common}
            assert {where: found ^ keys for where, found in stored.items() if found != keys} == {}
    assert (set(root) - {"defaults", "hydra"}) | (groups - {"experiment"}) == {
        *(entry.name for entry in dataclasses.fields(Config)),
        *(group for group in groups if group.startswith("override ")),
    }


def test_each_pruner_has_exactly_its_own_keys() -> None:
    kinds = {"none": NoPruner, "asha": AshaConfig, "median": MedianConfig, "hyperband": HyperbandConfig}
    assert {file.stem for file in (CONF / "sweep/pruner").iterdir()} == {*kinds}
    for name, kind in kinds.items():
        stored = yaml.safe_load((CONF / f"sweep/pruner/{name}.yaml").read_text())
        assert stored["name"] == name
        assert set(stored) == {entry.name for entry in dataclasses.fields(kind)}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_every_group_composes(option: str) -> None:
    composed = compose([option])
    check(composed.config, ranks=2)
    assert composed.config.run.name is not None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONF)))
def test_every_default_has_a_comment(file: Path) -> None:
    """But for `_target_`, which names itself, Hydra's own settings, and what an experiment only changes."""
    own = ("#", "-", "_target_", "defaults:")
    lines = file.read_text().partition("\n# Hydra only composes here")[0].splitlines()
    settings = [line for line in lines if ": " in line and not line.lstrip().startswith(own)]
    if file.parent.name == "experiment":
        assert lines[1].startswith("# ")
    else:
        assert [line for line in settings if " # " not in line] == []


def test_every_limit_is_kept_by_its_default() -> None:
    config = compose([]).config
    checked = 0
    for path, leaf in schema().items():
        value = operator.attrgetter(path)(config)
        if leaf.low is not None and isinstance(value, int | float):
            assert leaf.low <= value <= leaf.high, path
            assert not (leaf.above and value == leaf.low), path
            checked += 1
    assert checked > 15


def _keys(file: Path) -> set[str]:
    """The keys of a group's file, with those of the files that its defaults list names: `- ddp`, `- pruner: none`."""
    stored = yaml.safe_load(file.read_text())
    found = set(stored) - {"defaults"}
    for entry in stored.get("defaults", []):
        if isinstance(entry, dict):
            found |= set(entry)
        elif entry != "_self_":
            found |= _keys(file.with_name(f"{entry}.yaml"))
    return found
