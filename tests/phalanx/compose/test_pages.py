"""What the pages tell users to type, in commands and configs, composes."""

import re
import shlex
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from phalanx.compose.compose import compose, is_query, multirun
from phalanx.config.schema import Config
from phalanx.launch.cli import module_of
from phalanx.launch.search.spec import sweep_spec
from tests.ranks import ROOT

PAGES = [ROOT / "README.md", ROOT / "slurm" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOT_HERE = {  # what stands in a command or a config that cannot compose here: why
    "…": "not written out",
    "--from": "a run's folder",
    " RUN": "a run's folder",
    "SWEEP": "a sweep's folder",
    "-n N": "a number",
    "%a": "the index of a job in its array",
    "--config-dir configs": "the user's project of lightning-hydra-template",
    "experiment=mine": "a file that docs/workloads.md has the user write",
    "cluster=mine": "a file that slurm/README.md has the user write",
    "null\n  - override /optim: null\n": "the head of an experiment, without its model",
    "run: {imports: [mypkg.resolvers]}": "a module that docs/targets.md does not show",
}
SECTIONS = ("defaults", *(each.name for each in fields(Config)))
GROUPS = ("model", "data", "task", "optim", "schedule", "parallel")
_SECTION = re.compile(rf"^({'|'.join(SECTIONS)}):(?: |$)", re.MULTILINE)
_COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(?:phalanx [a-z]+ \S|torchrun .*train/main\.py|python \S*main\.py)")
_OVERRIDE = re.compile(r"[a-z_]+\.[\w.]+=\S")


def blocks(page: Path) -> Iterator[str]:
    """The indented blocks of a page, without their indentation."""
    for found in re.finditer(r"(?:^    .*\n(?:[ \t]*\n(?=    ))?)+", page.read_text(), re.MULTILINE):
        yield textwrap.dedent(found.group())


def commands(page: Path) -> list[str]:
    """Commands, and overrides alone, in blocks; commands that stand in the text as code."""
    lines = [line for block in blocks(page) for line in block.splitlines()]
    in_text = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", page.read_text())]
    return [
        *(line for line in lines if _COMMAND.match(line) or _OVERRIDE.match(line)),
        *(code for code in in_text if _COMMAND.match(code)),
    ]


def configs(page: Path) -> list[str]:
    """YAML in blocks; each section by itself where a block shows one several times."""
    found: list[str] = []
    for block in blocks(page):
        parts = re.split(r"\n\s*\n(?=\S)", block)
        text = "\n".join(part for part in parts if _SECTION.match(part.removeprefix("# @package _global_\n")))
        starts, names = [each.start() for each in _SECTION.finditer(text)], _SECTION.findall(text)
        pieces = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=False)]
        found += pieces if len(set(names)) < len(names) else ["".join(pieces)] if pieces else []
    return found


def shown(of: Callable[[Path], list[str]]) -> list[Any]:
    """Each text once, as a parameter under its page and its beginning."""
    pages = {text: page for page in PAGES for text in of(page) if not any(part in text for part in NOT_HERE)}
    return [
        pytest.param(page, text, id=f"{page.relative_to(ROOT)}: {' '.join(text.split())[:60]}")
        for text, page in pages.items()
    ]


def words_of(line: str) -> list[str]:
    """The words of a line, without variables before a command and without what is said of it behind."""
    return [word for word in shlex.split(re.split(r"  +#|   +", line)[0]) if not re.match(r"[A-Z_]+=", word)]


def with_folder(typed: Sequence[str], page: Path) -> list[str]:
    """The words, with the folder that `conf` is where the page says to stand: the one that has the experiment."""
    name = next((word.partition("=")[2] for word in typed if word.startswith("experiment=")), "")
    found = [page.parent / "conf", *sorted(ROOT.glob("docs/**/conf"))]
    folder = next((each for each in found if (each / "experiment" / f"{name}.yaml").is_file()), found[0])
    return [
        str(folder) if word == "conf" else word.replace("--config-dir=conf", f"--config-dir={folder}") for word in typed
    ]


@pytest.mark.parametrize(("page", "line"), shown(commands))
def test_a_command_of_the_pages_composes(
    page: Path, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its verb has its options, and its overrides make a config, or the points of a sweep."""
    monkeypatch.chdir(ROOT)
    program, *words = words_of(line)
    if program != "phalanx":
        start = next((i for i, word in enumerate(words) if word.endswith("main.py")), None)
        typed = with_folder([program, *words] if start is None else words[start + 1 :], page)
        if not is_query(typed) and multirun(typed) is None:
            compose(typed)
        return
    verb: click.Command = getattr(import_module(module_of(words[0])), words[0])
    found = verb.make_context(words[0], words[1:]).params
    if words[0] not in ("run", "submit", "sweep", "bench"):
        return
    folder = [f"--config-dir={found['config_dir']}"] if found.get("config_dir") else []
    typed = with_folder([*folder, *found["overrides"]], page)
    if words[0] == "sweep" or found.get("sweep"):
        sweep_spec([*typed, f"run.root={tmp_path}"])
    else:
        compose(typed)


@pytest.mark.parametrize(("page", "text"), shown(configs))
def test_a_config_of_the_pages_composes(page: Path, text: str, tmp_path: Path) -> None:
    """As an experiment that leaves out the groups that it has nodes of its own for."""
    found = yaml.safe_load(text)
    own = {group: found[group] for group in GROUPS if group in found}
    nodes = [name for name, node in own.items() if "_target_" in node or (name == "data" and "train" in node)]
    defaults = {} if "defaults" in found else {"defaults": [{f"override /{name}": None} for name in nodes]}
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "shown.yaml").write_text(
        f"# @package _global_\n{yaml.dump(defaults) if defaults else ''}{text}"
    )
    compose([f"--config-dir={tmp_path}", "experiment=shown"])
