"""The files of a run folder that trackers attach to a run: its config and what it ran on, without secrets."""

import json
from pathlib import Path

from phalanx.common.files import as_json, read_text
from phalanx.common.redaction import REDACTED
from phalanx.run_folder import names

DIFF = "diff.patch"


def attached_files(folder: Path) -> dict[str, str]:
    """Their text by name. The diff of the code is a file of its own, and left out where a secret was found in it."""
    environment = json.loads(read_text(folder / names.ENVIRONMENT))
    diff = (environment["git"] or {}).pop("diff", None)
    files = {names.RESOLVED: read_text(folder / names.RESOLVED), names.ENVIRONMENT: as_json(environment)}
    return files if not diff or REDACTED in diff else {**files, DIFF: diff}


def git_commit(folder: Path) -> str | None:
    """The commit of the code; None where there is no git checkout."""
    git = json.loads(read_text(folder / names.ENVIRONMENT))["git"]
    return None if git is None else str(git["commit"])
