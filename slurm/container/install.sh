#!/bin/sh
# Installs Phalanx from /opt/phalanx into an image that has PyTorch, which stays as it is: NVIDIA builds it for its CUDA,
# cuDNN and NCCL, and a wheel in its place would bring others. $1: the extras, such as data,onnx.
set -eu

torch() {
  python3 -c 'import torch, torchvision; print(torch.__version__, torch.__file__, torchvision.__version__)'
}

before=$(torch)
constraints=$(mktemp)
python3 -m pip list --format=freeze 2>/dev/null | grep -E '^(torch|torchvision|triton|pytorch-triton|numpy)==' >"$constraints" || true
python3 -m pip install --no-cache-dir --constraint "$constraints" "/opt/phalanx[$1]"
rm "$constraints"
after=$(torch)
[ "$before" = "$after" ] || {
  echo "error: the image had torch $before, and has $after now. Build with fewer extras, or on another release" >&2
  exit 1
}
cd / && phalanx --help >/dev/null && python3 -c 'import phalanx.train.main'
