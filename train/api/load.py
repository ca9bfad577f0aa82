"""What Python sees of a run: its config, what it recorded, and its model with its weights. torch comes with the latter."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from phalanx.common.files import read_text
from phalanx.common.suggest import nearest
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.run_folder.checkpoints import Checkpoint, Checkpoints, source
from phalanx.run_folder.jsonl import read_events, read_lines
from phalanx.run_folder.links import check_links

if TYPE_CHECKING:
    import torch
    from torch import nn

    from phalanx.config.schema import Config

Which = Literal["best", "last"] | int
_RUNS = Path("runs")


def load(run: str | Path, trust: Sequence[str] = ()) -> "Run":
    """The run in a folder, or of a name below ./runs. Nothing is built or imported before it is asked for.

    `trust` are packages that may be imported and called to build its model, such as your own. Without it a config builds
    what a stranger's may. Raises ConfigError.
    """
    for folder in (Path(run), _RUNS / run):
        if (folder / names.RESOLVED).is_file():
            check_links(folder)
            return Run(folder.absolute(), tuple(trust))
    there = sorted(path.parent.name for path in _RUNS.glob(f"*/{names.RESOLVED}"))
    hint = nearest(str(run), there) or (f"There are: {', '.join(there)}" if there else "There is none at all")
    raise ConfigError(f"{run} is no run's folder, and ./{_RUNS} has no run of that name. {hint.strip()}")


class Run:
    """A run folder, which is only read. What it holds is read anew each time, but for the config: a run may go on."""

    def __init__(self, folder: Path, trust: Sequence[str] | None) -> None:
        """`trust` is that of `load`; None is for a config that was typed here, which may name any class."""
        self.folder = folder
        self._trust = trust

    def __repr__(self) -> str:
        return f"phalanx.load({str(self.folder)!r})"

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def config(self) -> "Config":
        """The config in full, in the keys of this version. Raises ConfigError where the file is damaged."""
        from phalanx.compose.resolved import read

        try:
            return read(self.folder / names.RESOLVED)
        except ConfigError as error:
            raise ConfigError(f"{self.folder / names.RESOLVED} is damaged: {error}") from None

    def metrics(self, split: str | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl in their order, or those of one `split`: what pandas.DataFrame takes."""
        return [line for line in read_lines(self.folder) if split in (None, line["split"])]

    def events(self) -> list[dict[str, Any]]:
        """The lines of events.jsonl in their order."""
        return list(read_events(self.folder))

    @property
    def summary(self) -> dict[str, Any] | None:
        """What the run came to; None before it has finished."""
        try:
            found: dict[str, Any] = json.loads(read_text(self.folder / names.SUMMARY))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.folder / names.SUMMARY} cannot be read: {error}") from None
        return found

    def weights(self, which: Which = "best") -> dict[str, "torch.Tensor"]:
        """The weights of a checkpoint by name, on the CPU: their average where the run keeps one. Raises ConfigError.

        `which` is "best" (the last one where none was evaluated), "last" or a step.
        """
        from ..checkpoint import weights

        return weights.read(weights.averaged(self._checkpoint(which)))

    def model(self, which: Which = "best") -> "nn.Module":
        """The model as the config builds it, on the CPU in eval mode, with the weights that `weights` gives.

        Raises ConfigError, also where the config names what is not on the list for stored configs and in no package of
        `trust`, or where the weights do not fit what it builds.
        """
        import torch
        from torch import nn

        from phalanx.compose.user_imports import import_modules
        from phalanx.targets.instantiate import Targets
        from phalanx.targets.trust import Trust

        from ..checkpoint.preserve import unchanged
        from ..checkpoint.state import restore_model
        from ..checkpoint.weights import averaged
        from ..engine.parts.config_targets import KINDS
        from ..loading.rng import seed_all
        from ..optim.precision import choose

        checkpoint, config = self._checkpoint(which), self.config
        if self._trust is None:
            import_modules(config.run.imports)
        targets = Targets(KINDS, None if self._trust is None else Trust(self._trust, "trust="))
        targets.check(config.model, "model", nn.Module)
        with unchanged():  # the caller's generators
            seed_all(config.seed, torch.device("cpu"))
            model = targets.build(config.model, "model", nn.Module)
        if config.train.precision.name == "fp64":
            model = choose(config.train.precision, None).converted(model)
        restore_model(model, checkpoint, averaged(checkpoint))
        return model.eval()

    def _checkpoint(self, which: Which) -> Checkpoint:
        if which in ("best", "last"):
            return source(self.folder, want_best=which == "best")
        steps = Checkpoints(self.folder).steps()
        if which not in steps:
            known = ", ".join(map(str, steps)) or "none at all"
            raise ConfigError(f"{self.folder} has no checkpoint of step {which!r}. Steps: {known}; or 'best' or 'last'")
        return source(self.folder / names.CHECKPOINTS / names.step_folder(int(which)), want_best=False)
