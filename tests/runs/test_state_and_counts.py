"""What a step leaves behind beside the weights, and what its loss is divided by."""

import pytest

from tests.ranks import Starter
from tests.train.small_runs import BATCH, planted


@pytest.mark.parametrize("ranks", [1, 2])
def test_skipped_step_leaves_no_trace_in_running_statistics(starter: Starter, ranks: int) -> None:
    spoilt = planted(spoilt=[2 * BATCH + 1], value="'nan'")
    own = [word for word in spoilt if not word.startswith("model")]
    model = ("~model", "+model._target_=tests.train.batch_norm_model.Normed")
    results = starter.train(ranks, *own, *model, "train.steps=5", "log.every=1", name="run")
    assert [event["skipped_step"] for event in results.events("skip")] == [3]
    weights = results.weights()
    assert weights["layers.0.running_mean"].isfinite().all()
    assert int(weights["layers.0.num_batches_tracked"]) == 4


def test_task_that_counts_something_else_than_samples_has_to_say_so(starter: Starter) -> None:
    ended = starter.run(
        2, *planted(), "~task", "+task._target_=tests.train.batch_norm_model.Undeclared", "train.steps=2"
    )
    assert ended.codes == [2, 2]
    assert ended.output.count("error:") == 1
    assert "counts_data = True" in ended.output


def test_other_maths_of_the_reduction_is_another_run(starter: Starter) -> None:
    for hook in ("none", "bf16"):
        ended = starter.run(1, *planted(), "train.steps=1", f"parallel.comm_hook={hook}", "run.name=null")
        assert ended.codes == [0], ended.output
    assert len(list((starter.folder / "runs").iterdir())) == 2
