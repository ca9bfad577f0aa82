"""A config file that cannot be read is told with its name, its line and what to do; it is not said to be absent."""

from pathlib import Path

import pytest

from phalanx.compose.compose import compose
from phalanx.exit.codes import ConfigError

HEADER = b"# @package _global_\n"
WRONG = {
    "tab": (b"train:\n\tsteps: 3\n", "x.yaml, line 3, column 1 is no YAML: "),
    "bracket": (b"train: {steps: 3\n", "x.yaml, line 3, column 1 is no YAML: "),
    "colon": (b"train: steps: 3\n", "x.yaml, line 2, column 13 is no YAML: mapping values are not allowed here"),
    "twice": (b"seed: 1\nseed: 2\n", "found duplicate key seed"),
    "alias": (b"train: *nope\n", "found undefined alias 'nope'"),
    "alias of itself": (b"model: &a [*a]\n", "x.yaml nests too deeply"),
    "tag": (b"train: !!python/object:os.system {}\n", "could not determine a constructor"),
    "BOM": (b"\xef\xbb\xbf" + HEADER + b"seed: 1\n", "x.yaml begins with a byte order mark (BOM). Save it as UTF-8"),
    "UTF-16": ("seed: 1\n".encode("utf-16"), "x.yaml is UTF-16"),
    "UTF-16 without mark": ("seed: 1\n".encode("utf-16-be"), "x.yaml is UTF-16"),
    "Latin-1": ("# Größe\n".encode("latin-1"), "x.yaml, line 2 holds the byte 0xf6, which is no UTF-8"),
    "list": (b"- a\n- b\n", "x.yaml holds a list, and a config is keys and values"),
    "base": (
        b"defaults: [nope]\n",
        "experiment=x does not compose: In 'experiment/x': Could not load 'experiment/nope'",
    ),
    "variable": (b"seed: ${oc.env:NOPE_NOPE}\n", "Environment variable 'NOPE_NOPE' not found"),
    "number": (b"1: 2\n", "1 is not a key of the config"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_file_that_is_no_config_is_told_as_such(kind: str, tmp_path: Path) -> None:
    data, says = WRONG[kind]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "x.yaml").write_bytes(data if data.startswith(b"\xef") else HEADER + data)
    if kind.startswith("UTF-16"):
        (tmp_path / "experiment" / "x.yaml").write_bytes(data)
    with pytest.raises(ConfigError) as found:
        compose([f"--config-dir={tmp_path}", "experiment=x"])
    assert says in str(found.value)
    assert "\n" not in str(found.value)
    assert "no such experiment" not in str(found.value)
