"""PowerSGD remembers what it left out; that memory survives restarts and steps that were not finite."""

import pytest
import torch

from tests.ranks import Results, Starter
from tests.train.small_runs import BATCH, planted, undisturbed_and_killed

RUN = (
    "train.steps=10",
    "parallel.comm_hook=powersgd",
    "parallel.powersgd_start=2",
    "optim=sgd",
    "optim.lr=0.05",
    "checkpoint.every=4",
)


def memory(results: Results, step: int, rank: int) -> dict[str, dict[int, torch.Tensor]]:
    found: dict[str, dict[str, dict[int, torch.Tensor]]] = torch.load(
        results.folder / "checkpoints" / f"step_{step:08d}" / f"rank_{rank:05d}.pt", weights_only=True
    )
    return found["hook"]


@pytest.mark.parametrize(
    ("ranks", "spoilt"), [(3, []), (2, [4 * BATCH + 1])], ids=["finite", "nan_right_after_the_restart"]
)
def test_a_killed_run_ends_with_the_same_bits(starter: Starter, ranks: int, spoilt: list[int]) -> None:
    run = (*planted(spoilt=spoilt, kill_at=6 * BATCH), *RUN)
    undisturbed, killed = undisturbed_and_killed(starter, ranks, *run)
    assert killed.sha256 == undisturbed.sha256
    assert killed.timeless() == undisturbed.timeless()


def test_every_rank_keeps_an_error_of_its_own(starter: Starter) -> None:
    results = starter.train(2, *planted(), *RUN, name="run")
    one, other = memory(results, 8, 0), memory(results, 8, 1)
    assert any(not torch.equal(one["error_dict"][bucket], other["error_dict"][bucket]) for bucket in one["error_dict"])
    assert all(
        torch.equal(one["q_memory_dict"][bucket], other["q_memory_dict"][bucket]) for bucket in one["q_memory_dict"]
    )


@pytest.mark.parametrize("step", [2, 5], ids=["first_compressed_step", "later"])
def test_a_step_that_is_not_finite_leaves_the_memory_as_it_was(starter: Starter, step: int) -> None:
    """`step` counts from 1; after the uncounted backward and one plain step, the second is compressed."""
    run = (*RUN, "checkpoint.every=1", "log.every=1")
    results = starter.train(2, *planted(spoilt=[(step - 1) * BATCH]), *run, name="run")
    assert [event["skipped_step"] for event in results.events("skip")] == [step]
    for rank in (0, 1):
        after = memory(results, step, rank)
        for name, buckets in after.items():
            if name == "iteration":
                continue
            for bucket, tensor in buckets.items():
                assert tensor.isfinite().all(), (name, bucket)
                if step > 2:
                    assert torch.equal(tensor, memory(results, step - 1, rank)[name][bucket])
        factors = memory(results, 10, rank)["q_memory_dict"][0]
        assert (factors == 0).double().mean() < 0.1, "a column that became zero would stay so"
    losses = [line["loss"] for line in results.metrics("train")]
    assert losses[-1] < losses[0]


def test_several_buckets_over_gloo_are_refused(starter: Starter) -> None:
    """Gloo's threads would send the messages of two buckets in another order on another rank."""
    ended = starter.run(2, *planted(), *RUN, "parallel.bucket_mb=0.0001")
    assert ended.codes == [2, 2]
    assert "Type parallel.bucket_mb=null" in ended.output
