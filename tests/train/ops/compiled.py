"""Compile the kernels for GPUs that need not be here."""

import triton
from triton.backends.compiler import GPUTarget

from phalanx.train.ops import add_layer_norm_triton as kernels

POINTERS = {
    "_forward": "residual branch weight bias total normed means scales",
    "_backward": "grad_total grad_normed total means scales weight grad weight_sums bias_sums",
}
FEW_BITS = {"branch", "normed", "grad_normed"}  # under autocast


def main() -> None:
    for name, pointers in POINTERS.items():
        signature = {each: "*bf16" if each in FEW_BITS else "*fp32" for each in pointers.split()}
        signature |= {"width": "i32", "eps": "fp32"} if name == "_forward" else {"rows": "i32", "width": "i32"}
        constants: dict[str, int] = {"block": 1024} | ({} if name == "_forward" else {"has_grad_total": True})
        signature |= dict.fromkeys(constants, "constexpr")
        source = triton.compiler.ASTSource(getattr(kernels, name), signature, constants)
        for capability in (80, 90):
            made = triton.compile(source, GPUTarget("cuda", capability, 32), {"num_warps": 4})
            assert len(made.asm["cubin"]) > 1000


if __name__ == "__main__":
    main()
