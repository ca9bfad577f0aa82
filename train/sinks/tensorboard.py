"""TensorBoard sink."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, final

from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names

from .scalars import scalars
from .shown import Audio, Image, Shown, Table, Text
from .sink import Sink

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@final
class TensorBoard(Sink):
    """Writes to `folder`/tensorboard. `step` is the step this start continues from; 0 begins anew.

    Raises ConfigError when the package is missing.
    """

    def __init__(self, folder: Path, step: int) -> None:
        # What an earlier start wrote past its last checkpoint is taken again.
        repeated_from = step + 1 if step else 0
        self._writer = summary_writer()(str(folder / names.TENSORBOARD), purge_step=repeated_from)

    def write(self, line: Mapping[str, object]) -> None:
        for chart, value in scalars(line).items():
            self._writer.add_scalar(chart, value, line["step"], line["time"])

    def event(self, event: Mapping[str, object]) -> None:
        """Events are no curves."""

    def show(self, line: Mapping[str, object], shown: Mapping[str, Shown]) -> None:
        at = (line["step"], line["time"])
        for name, item in shown.items():
            chart = f"{line['split']}/{name}"
            match item:
                case Image():
                    self._add_png(chart, item, *at)
                case Audio():
                    first = item.array()[:, 0].astype("float32") / 32767
                    self._writer.add_audio(chart, first[None], line["step"], item.rate, line["time"])
                case Table():
                    self._writer.add_text(chart, item.markdown(), *at)
                case Text():
                    self._writer.add_text(chart, item.text, *at)

    def _add_png(self, chart: str, item: Image, step: object, time_s: object) -> None:
        """The file as it is: torch's own `add_image` would encode it a second time."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height = (int.from_bytes(item.content[at : at + 4], "big") for at in (16, 20))  # of the PNG's header
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=item.content)
        writer = self._writer._get_file_writer()  # type: ignore[no-untyped-call]
        writer.add_summary(Summary(value=[Summary.Value(tag=chart, image=image)]), step, time_s)

    def close(self, summary: Mapping[str, object] | None) -> None:
        self._writer.close()


def summary_writer() -> "type[SummaryWriter]":
    """torch's writer of event files. Raises ConfigError when the package that it needs is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"tensorboard.enabled=true was set, but its package cannot be imported ({error}). "
            "Type: pip install 'phalanx[tensorboard]'"
        ) from error
    return SummaryWriter
