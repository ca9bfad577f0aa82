"""The operator phalanx::add_layer_norm against torch's two operators, by themselves and compiled, forward and backward.

    python bench/add_layer_norm.py

In the sizes of GPT-2 (16 windows of 1,024 tokens, 768 wide), with a residual stream of float32 and a branch of bfloat16, as
under autocast. Prints the median milliseconds of each and its share of the GPU's memory bandwidth, by the bytes that one
kernel has to move. On a machine without a GPU there is nothing to measure, and it says so.
"""

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import torch
from torch.nn import functional as F

from phalanx.train.ops.add_layer_norm import add_layer_norm

ROWS, WIDTH, TURNS, CALLS = 16 * 1024, 768, 20, 50
# A row's numbers: forward x, branch, sum and normed; backward both gradients, the sum, and the gradient: 4 or 2 bytes each.
MOVED = ROWS * WIDTH * ((4 + 2 + 4 + 2) + (4 + 2 + 4 + 4))

Answer = tuple[torch.Tensor, torch.Tensor]


def plain(residual: torch.Tensor, branch: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Answer:
    total = residual + branch
    return total, F.layer_norm(total, [WIDTH], weight, bias, 1e-5).bfloat16()


def fused(residual: torch.Tensor, branch: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> Answer:
    with torch.autocast("cuda", dtype=torch.bfloat16):
        return add_layer_norm(residual, branch, weight, bias, 1e-5)


def main() -> None:
    if not torch.cuda.is_available():
        print("phalanx::add_layer_norm: no GPU here, so its speed is not measured")
        return
    residual = torch.randn(ROWS, WIDTH, device="cuda", requires_grad=True)
    branch = torch.randn(ROWS, WIDTH, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight, bias = (torch.ones(WIDTH, device="cuda", requires_grad=True) for _ in range(2))
    grads = torch.randn_like(residual), torch.randn_like(branch)
    contestants: dict[str, Callable[..., Answer]] = {
        "eager": plain,
        "torch.compile": torch.compile(plain),
        "phalanx": fused,
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(TURNS + 1):
        for name, contestant in contestants.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            for _ in range(CALLS):
                answers = contestant(residual, branch, weight, bias)
                torch.autograd.grad(answers, (residual, branch, weight, bias), grads)
            end.record()
            end.synchronize()
            if turn:  # the first compiles
                times[name].append(begin.elapsed_time(end) / CALLS)
    print(f"{torch.cuda.get_device_name()}: {ROWS} x {WIDTH}, forward and backward, medians of {TURNS} turns")
    for name, of_one in times.items():
        median = statistics.median(of_one)
        print(f"  {name:<14} {median:.3f} ms  {MOVED / median / 1e6:.0f} GB/s")


if __name__ == "__main__":
    main()
