"""TensorRT, on a GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from .runtime import Arrays, Runtime


def tensorrt() -> Any:
    """The package. Raises ConfigError where it or a GPU is missing."""
    if not torch.cuda.is_available():
        raise ConfigError(
            "TensorRT builds and runs engines on an NVIDIA GPU, and this machine has none that torch can use. Type "
            "--to onnx here, or this command on a machine with a GPU"
        )
    try:
        import tensorrt as found
    except ImportError as error:
        raise ConfigError(f"TensorRT cannot be imported: {error}. Type pip install tensorrt") from None
    return found


class TensorRTRuntime(Runtime):
    """An engine, with buffers of torch's on the first GPU."""

    def __init__(self, path: Path) -> None:
        trt = tensorrt()
        self._trt = trt
        logger = trt.Logger(trt.Logger.ERROR)
        self._engine = trt.Runtime(logger).deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise ConfigError(
                f"TensorRT {trt.__version__} does not load {path}: an engine is of one version and one kind of GPU. Export "
                "it anew on this machine"
            )
        self._context = self._engine.create_execution_context()
        self._names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self.told = f"tensorrt {trt.__version__} on {torch.cuda.get_device_name()}"

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        held = {name: torch.from_numpy(np.ascontiguousarray(array)).cuda() for name, array in inputs.items()}
        for name, tensor in held.items():
            self._context.set_input_shape(name, tuple(tensor.shape))
            self._context.set_tensor_address(name, tensor.data_ptr())
        found = {}
        for name in self._names:
            if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.OUTPUT:
                dtype = torch.from_numpy(np.empty(0, self._trt.nptype(self._engine.get_tensor_dtype(name)))).dtype
                found[name] = torch.empty(tuple(self._context.get_tensor_shape(name)), dtype=dtype, device="cuda")
                self._context.set_tensor_address(name, found[name].data_ptr())
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        self._context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return {name: tensor.cpu().numpy() for name, tensor in found.items()}
