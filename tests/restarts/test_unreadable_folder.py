"""What was saved and cannot be seen for one start is never begun anew."""

from pathlib import Path

from tests.ranks import Starter

RUN = ("run.name=r", "model=mlp", "model.hidden=[8]", "train.steps=8", "log.every=2", "checkpoint.every=4")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name not in ("lease", "logs")
    }


def test_checkpoints_that_are_not_there_for_one_start_cost_nothing(starter: Starter) -> None:
    """As behind a link to a disk that is not mounted, or where all that is mounted is damaged."""
    results = starter.train(1, *RUN, name="r")
    (results.folder / "summary.json").unlink()
    checkpoints, away = results.folder / "checkpoints", starter.folder / "away"
    checkpoints.rename(away)
    before = contents(results.folder)
    for number in range(3):
        if number == 1:
            checkpoints.symlink_to(starter.folder / "not-mounted")
        if number == 2:
            checkpoints.unlink()
            checkpoints.mkdir()
        ended = starter.run(2, *RUN)
        assert ended.codes == [2, 2], ended.output
        assert "though step 8 was saved" in ended.output
        assert "run.fresh=true" in ended.output
        assert contents(results.folder) == before
    checkpoints.rmdir()
    away.rename(checkpoints)
    for state in checkpoints.glob("*/state.pt"):
        state.write_bytes(b"bad")
    ended = starter.run(1, *RUN)
    assert ended.codes == [2]
    assert "step_00000008: state.pt is not what was written" in ended.output
    assert len(list(checkpoints.glob("step_*[0-9]"))) == 2
    assert starter.run(1, *RUN, "run.fresh=true").codes == [0]
