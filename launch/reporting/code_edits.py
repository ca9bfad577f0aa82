"""Finds trials of a sweep that were trained with different code, by the hashes in their folders."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from phalanx.common.files import read_json
from phalanx.run_folder import names

from ..sweep.results import TrialRow

_FILES, _TRIALS = 3, 8  # that are named


def differences(sweep: Path, rows: Sequence[TrialRow]) -> str:
    """What to say where complete trials differ in their code, such as when it was edited between two starts; empty where
    they do not."""
    versions: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))  # file -> hash -> trials
    for row in rows:
        if row.state == "complete":
            for file, found in _code(sweep / row.run).items():
                versions[file][found].append(row.trial)
    edited = {file: list(of.values()) for file, of in versions.items() if len(of) > 1}
    if not edited:
        return ""
    groups = max(edited.values(), key=len)
    told = "; ".join(f"trials {_listed(group)}" for group in groups)
    return (
        f"these were trained with different code ({', '.join([*edited][:_FILES])}): {told}. They are ranked together all "
        "the same; type run.name=… for a sweep with one code"
    )


def _code(run: Path) -> dict[str, str]:
    """The files of a run's code with their hashes."""
    found = read_json(run / names.ENVIRONMENT)
    code = found.get("code") if isinstance(found, dict) else None
    return {str(file): str(sha256) for file, sha256 in code.items()} if isinstance(code, dict) else {}


def _listed(trials: Sequence[int]) -> str:
    return ", ".join(map(str, trials[:_TRIALS])) + (" …" if len(trials) > _TRIALS else "")
