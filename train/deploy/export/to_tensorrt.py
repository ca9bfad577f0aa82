"""TensorRT: an engine for the GPU that it is built on."""

from phalanx.deployment.layout import FP16, MODELS, TENSORRT
from phalanx.exit.codes import ConfigError

from ..call_form import BATCH
from ..runtimes.tensorrt_runtime import tensorrt
from . import to_onnx
from .exporting import Exporting

_LARGEST = 64  # samples of a batch at least, where evaluations have fewer


def check() -> None:
    """Raise ConfigError where there is no GPU or no TensorRT, before anything is computed."""
    tensorrt()
    to_onnx.check()


def write(exporting: Exporting) -> None:
    trt = tensorrt()
    whole = exporting.folder / "model.onnx"
    to_onnx.write_onnx(exporting, whole)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(whole)):
        raise ConfigError(f"TensorRT does not take this model: {parser.get_error(0)}. Type --to onnx")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if exporting.dtype == FP16 and hasattr(trt.BuilderFlag, "FP16"):
        config.set_flag(trt.BuilderFlag.FP16)
    config.add_optimization_profile(_profile(builder, exporting))
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ConfigError("TensorRT built no engine of this model. Type --to onnx, or another --dtype")
    (exporting.folder / MODELS[TENSORRT]).write_bytes(bytes(engine))
    for left in exporting.folder.glob("model.onnx*"):
        left.unlink()


def _profile(builder, exporting: Exporting):  # type: ignore[no-untyped-def]  # TensorRT has no types
    """The sizes that the engine takes: from 1 up to the largest that was seen."""
    profile, observed = builder.create_optimization_profile(), exporting.observed
    most = {**observed.largest, BATCH: max(_LARGEST, observed.largest[BATCH])}
    for name, dims in observed.form.shapes.items():
        largest = [most[dim] if isinstance(dim, str) else dim for dim in dims]
        profile.set_shape(name, [1 if isinstance(dim, str) else dim for dim in dims], largest, largest)
    return profile
