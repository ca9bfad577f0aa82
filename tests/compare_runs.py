"""Compare two runs: their bits, their lines, the distance of their weights."""

import math

from tests.ranks import Results


def same(one: Results, other: Results) -> None:
    assert one.sha256 == other.sha256
    assert one.timeless() == other.timeless()
    newest = [max(run.folder.glob("checkpoints/step_*")) for run in (one, other)]
    assert newest[0].name == newest[1].name
    for name in ("model.safetensors", "ema.safetensors"):
        contents = [(folder / name).read_bytes() if (folder / name).exists() else None for folder in newest]
        assert contents[0] == contents[1]


def distance(one: Results, other: Results) -> float:
    """L2 norm of the weights' difference over that of the weights, in fp64."""
    ours, theirs = one.weights(), other.weights()
    apart = sum(float((ours[name].double() - theirs[name].double()).square().sum()) for name in theirs)
    return math.sqrt(apart / sum(float(weight.double().square().sum()) for weight in theirs.values()))


def moved(results: Results) -> float:
    """How far a run went from where it began, in the measure of `distance`."""
    from safetensors.torch import load_file

    first = load_file(results.folder / "checkpoints" / "step_00000001" / "model.safetensors")
    apart = sum(float((weight - first[name]).square().sum()) for name, weight in results.weights().items())
    return math.sqrt(apart / sum(float(weight.square().sum()) for weight in first.values()))
