"""Modules are found without being imported, wherever Python would find them."""

import sys
from pathlib import Path

import pytest

from phalanx.common.find_module import find_module
from phalanx.compose.alias import documented_name


@pytest.mark.parametrize("regular", [(), ("mine",), ("mine", "mine/models"), ("mine/models",)])
def test_a_module_is_found_whichever_of_its_folders_have_an_init_file(
    regular: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many folders of a project have none, and a config may name what is in them."""
    (tmp_path / "mine/models").mkdir(parents=True)
    for folder in regular:
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "mine/models/net.py").write_text("class Net: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = find_module("mine.models.net")
    assert found is not None
    assert found.origin == str(tmp_path / "mine/models/net.py")
    assert find_module("mine.models.other") is None
    assert find_module("mine.other.net") is None
    assert documented_name("mine.models.net.Net") == "mine.models.net.Net"
    assert "mine" not in sys.modules
