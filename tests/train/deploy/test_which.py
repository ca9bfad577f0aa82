"""The checkpoint that is asked for is the one that is taken."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from phalanx.exit.codes import ConfigError
from phalanx.train.deploy import checkpoint


def test_a_best_checkpoint_that_is_gone_is_not_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = SimpleNamespace(step=20, manifest={"best_step": 10})
    monkeypatch.setattr(checkpoint, "source", lambda _, want_best: newest)
    with pytest.raises(ConfigError, match=r"best step of .* is 10, and its checkpoint is not there.*--which last"):
        checkpoint._find(tmp_path, "best")
    assert checkpoint._find(tmp_path, "last") is newest  # type: ignore[comparison-overlap]
    newest.manifest["best_step"] = None  # nothing was evaluated
    assert checkpoint._find(tmp_path, "best") is newest  # type: ignore[comparison-overlap]
