"""Whole runs in every precision that a CPU has, deterministic and compiled."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import phalanx
from tests.ranks import Results, Starter
from tests.train.faulty_parts import CLASSES, WIDTH
from tests.train.small_runs import planted, undisturbed_and_killed
from tests.zoo.models import untamed

RUN = ("train.steps=60", "optim.lr=0.05", "log.every=20")


def resolved(results: Results) -> str:
    return str(results.events("start")[0]["precision"])


@pytest.mark.parametrize(
    ("precision", "weights", "ranks"),
    [("fp32", torch.float32, 1), ("bf16", torch.float32, 2), ("fp64", torch.float64, 2), ("auto", torch.float32, 2)],
)
def test_a_cpu_trains_in_it(starter: Starter, precision: str, weights: torch.dtype, ranks: int) -> None:
    results = starter.train(ranks, *planted(samples=480), *RUN, f"train.precision={precision}", name="run")
    losses = [line["loss"] for line in results.metrics("train")]
    assert losses[-1] < 0.8 * losses[0]
    assert resolved(results) == ("fp32" if precision == "auto" else precision)
    assert {tensor.dtype for tensor in results.weights().values()} == {weights}
    assert json.loads((results.folder / "environment.json").read_text())["auto"]["train.precision"] == resolved(results)


def test_bf16_computes_in_bf16_and_fp64_in_fp64(starter: Starter) -> None:
    """Seen in how far the first step's loss is from fp64's."""
    loss = {
        precision: starter.train(
            1, *planted(), "train.steps=1", f"train.precision={precision}", "log.every=1", name=precision
        ).metrics("train")[0]["loss"]
        for precision in ("fp64", "fp32", "bf16")
    }
    assert 0 < abs(loss["fp32"] - loss["fp64"]) < 1e-6
    assert 1e-6 < abs(loss["bf16"] - loss["fp64"]) < 0.05


def test_bf16_pure_keeps_weights_and_the_optimizers_state_in_bf16_but_batch_norms(starter: Starter) -> None:
    """It is killed and continues to the same bits; what its author made double stays so; the loaded model takes fp32."""
    words = (
        *untamed("OfManyTypes", planted(kill_at=8 * 4)),
        "train.precision=bf16_pure",
        "optim=adam",
        "train.steps=8",
    )
    undisturbed, killed = undisturbed_and_killed(starter, 2, *words, "train.epochs=null", "checkpoint.every=3")
    assert killed.sha256 == undisturbed.sha256
    dtypes = {name: tensor.dtype for name, tensor in killed.weights().items()}
    assert dtypes.pop("norm.num_batches_tracked") == torch.int64
    assert dtypes.pop("scale") == torch.float64
    assert {dtype for name, dtype in dtypes.items() if name.startswith("norm")} == {torch.float32}
    assert dtypes.pop("table") == torch.float32, "a buffer"
    assert {dtype for name, dtype in dtypes.items() if not name.startswith("norm")} == {torch.bfloat16}
    state = torch.load(max(killed.folder.glob("checkpoints/step_*/state.pt")), weights_only=True)
    kept = {found["exp_avg"].dtype for found in state["update"]["optimizer"]["state"].values()}
    assert kept == {torch.bfloat16, torch.float32, torch.float64}
    model = phalanx.load(killed.folder, trust=["tests"]).model()
    assert model(torch.ones(2, WIDTH)).shape == (2, CLASSES)


def test_deterministic_runs_end_with_equal_bits(starter: Starter) -> None:
    run = (*planted(), "train.steps=6", "train.deterministic=true", "model.dropout=0.3")
    one, other = (starter.train(2, *run, name=name) for name in ("one", "other"))
    assert one.sha256 == other.sha256
    assert one.timeless() == other.timeless()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_takes_the_same_steps(starter: Starter) -> None:
    run = (*planted(samples=44), "train.steps=null", "train.epochs=1", "train.ema_decay=0.9")
    plain = starter.train(2, *run, name="plain")
    # Without vectors, as torch compiles a program for each kind that the processor might have.
    environ = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_VEC_ISA_OK": "0"}
    compiled = starter.train(2, *run, "train.compile=true", name="compiled", environ=environ)
    for name, weight in load_file(plain.folder / "checkpoints" / "step_00000006" / "model.safetensors").items():
        torch.testing.assert_close(compiled.weights()[name], weight, rtol=1e-4, atol=1e-5)
