"""Text that a model was given, what it makes of it, and what it should have made."""

from collections.abc import Mapping, Sequence

from phalanx.exit.codes import ConfigError

from ...sinks.shown import Table

LONGEST = 2000  # characters of a cell


def texts(columns: Mapping[str, Sequence[object]], *, limit: int = 16) -> Table:
    """A table of the first `limit` texts, such as {"source": […], "translation": […], "reference": […]}.

    All columns have one length; numbers, such as a score, may stand in one. A cell is cut after 2,000 characters. Raises
    ConfigError.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{length} of {name}" for name, length in lengths.items())
        raise ConfigError(f"Texts to show have columns of different lengths: {told}. Give each one entry a sample")
    rows = zip(*(column[:limit] for column in columns.values()), strict=True)
    return Table(list(columns), [[_cut(cell) for cell in row] for row in rows])


def _cut(cell: object) -> object:
    return f"{cell[:LONGEST]}…" if isinstance(cell, str) and len(cell) > LONGEST else cell
