"""What docs/workloads.md shows of a user's own data is what has to be typed, and nothing of the field's data is left."""

import textwrap
from pathlib import Path

import pytest
import yaml

from phalanx.compose.compose import compose

PAGE = Path(__file__).parents[3] / "docs" / "workloads.md"


def shown() -> list[str]:
    """The blocks of the page that are files."""
    blocks = PAGE.read_text(encoding="utf-8").split("\n\n")
    return [textwrap.dedent(block) for block in blocks if block.startswith(("    defaults:", "    data:"))]


def test_the_page_shows_a_file_for_each_field_whose_data_are_files() -> None:
    assert len(shown()) >= 5


@pytest.mark.parametrize("block", shown())
def test_a_block_of_the_page_is_a_whole_experiment(tmp_path: Path, block: str) -> None:
    """Before, keys of the field's own data stayed beside those of the page, and the run was refused."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{block}\n", encoding="utf-8")
    config = compose(["--config-dir", str(tmp_path), "experiment=mine"]).config
    data = yaml.safe_load(block)["data"]
    assert config.data.train == data["train"]
    assert config.data.eval == data["eval"]
