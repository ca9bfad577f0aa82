"""What the recorder of a tracker's process is told of the files that a task shows."""

from collections.abc import Mapping
from pathlib import Path

from phalanx.run_folder import names

from ..shown import Image, Shown


def shown_message(folder: Path, line: Mapping[str, object], shown: Mapping[str, Shown]) -> dict[str, object]:
    """Each item's kind and file by its chart, such as "eval/examples". The files lie in the run's `folder` by then."""
    split, step = str(line["split"]), int(str(line["step"]))
    items = {
        f"{split}/{name}": {
            "kind": type(item).__name__.lower(),
            "path": str(folder / names.shown_file(split, step, name, item.suffix)),
            "caption": item.caption if isinstance(item, Image) else "",
        }
        for name, item in shown.items()
    }
    return {"step": step, "split": split, "time": line["time"], "show": items}
