"""Checks the extra options of sbatch in cluster.sbatch against those that a job sets itself."""

import re
from collections.abc import Mapping, Sequence

from phalanx.exit.codes import ConfigError

_TYPED = {  # options for which there is a word of ours
    **{name: f"cluster.{name.replace('-', '_')}" for name in ("partition", "account", "qos", "nodes", "cpus-per-task")},
    **{name: f"cluster.{name}" for name in ("mem", "time", "constraint")},
    **dict.fromkeys(("gpus", "gpus-per-task", "gpus-per-socket"), "cluster.gpus_per_node"),
    **{"mail-user": "cluster.mail", "job-name": "run.name", "signal": "cluster.notice_s"},
    **{"dependency": "--after", "array": "--array", "wait": "--wait", "test-only": "--test-only"},
}
_OURS = (  # what the job and its script count on
    *("comment", "output", "error", "input", "ntasks", "ntasks-per-node", "ntasks-per-gpu", "ntasks-per-core"),
    *("ntasks-per-socket", "export", "export-file", "open-mode", "requeue", "no-requeue", "parsable", "wrap", "chdir"),
    *("kill-on-invalid-dep", "clusters", "uid", "gid", "help", "usage", "version", "quiet"),
)


def extra_options(words: Sequence[str], asked: Mapping[str, str | None], gpus: int | None) -> dict[str, str | None]:
    """Each option by its name, with its value, None for a flag. `asked` is what the job sets.

    One that asks for `gpus` of a kind takes the place of the job's own --gpus-per-node. Raises ConfigError.
    """
    found: dict[str, str | None] = {}
    for word in words:
        name, value = _read(word)
        if name in _OURS or name in found:
            why = "is there twice" if name in found else "is set by phalanx submit itself"
            raise ConfigError(f"cluster.sbatch has {word!r}: --{name} {why}. Leave it out")
        if name in _TYPED:
            raise ConfigError(f"cluster.sbatch has {word!r}, for which there is {_TYPED[name]}. Type that")
        if asked.get(name) is not None and name != "gpus-per-node":
            raise ConfigError(
                f"cluster.sbatch has {word!r}, and the job has --{name}={asked[name]} already. Leave it out"
            )
        _check_gpus(word, name, value, gpus)
        found[name] = value
    return found


def asks_for_gpus(name: str, value: str | None) -> bool:
    return name == "gpus-per-node" or (name == "gres" and bool(re.search(r"(^|,)gpu\b", value or "")))


def _read(word: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"(?:--)?([a-z][a-z0-9-]*)(?:=(.+))?", word)
    if match is None or not word.isprintable():
        raise ConfigError(
            f"cluster.sbatch has {word!r}, which is no long option of sbatch. Type such as "
            "cluster.sbatch=['exclude=node[3,7]',exclusive,'gres=gpu:a100:4']"
        )
    return match[1], match[2]


def _check_gpus(word: str, name: str, value: str | None, gpus: int | None) -> None:
    if not asks_for_gpus(name, value):
        return
    count = re.search(
        r"(?:^|:)(\d+)(?:\(.*)?$", next(part for part in (value or "").split(",") if "gpu" in part or name != "gres")
    )
    number = int(count[1]) if count else 1
    if number != gpus:
        raise ConfigError(
            f"cluster.sbatch has {word!r}, and cluster.gpus_per_node={'null' if gpus is None else gpus}. Type "
            f"cluster.gpus_per_node={number} beside it, by which ranks are counted"
        )
