"""ONNX Runtime."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from .runtime import Arrays, Runtime


class OnnxRuntime(Runtime):
    """A session of ONNX Runtime on the CPU, or on a GPU where `device` is cuda and its package can."""

    def __init__(self, path: Path, device: str, threads: int | None = None) -> None:
        """`threads` of one operator; None for all cores."""
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(f"ONNX Runtime cannot be imported: {error}. Type pip install 'phalanx[onnx]'") from None
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        options.log_severity_level = 3
        wanted = ["CUDAExecutionProvider"] if device == "cuda" else []
        if lacking := [name for name in wanted if name not in onnxruntime.get_available_providers()]:
            raise ConfigError(
                f"ONNX Runtime has no {lacking[0]} here. Type pip install onnxruntime-gpu, or take the CPU"
            )
        try:
            self._session = onnxruntime.InferenceSession(path, options, [*wanted, "CPUExecutionProvider"])
        except Exception as error:
            line = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise ConfigError(
                f"ONNX Runtime {onnxruntime.__version__} does not load {path.name}: {line}. Type another --dtype, or "
                "export to another format: --to torch-export"
            ) from None
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.told = f"onnxruntime {onnxruntime.__version__} by {self._session.get_providers()[0]}"

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return dict(zip(self._outputs, self._session.run(None, inputs), strict=True))
