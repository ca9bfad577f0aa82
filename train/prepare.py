"""Prepare the data of a config, as `phalanx prepare` asks for: fetch and write what the cache lacks, once, before a run."""

import json
import sys

from phalanx.common.files import read_json
from phalanx.compose.compose import compose
from phalanx.compose.user_imports import import_modules
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.interpreter_exit import run_without_teardown
from phalanx.exit.messages import refuse


def main() -> None:
    """Build the data sets of the words of the command line with downloads allowed, and print what there is.

    A line of JSON a data set: {"data", "samples"}, then one for each prepared folder: {"prepared", "folder", "bytes",
    "sources"}. Ends with code 2 where data lack or are not what they should be.
    """
    try:
        _prepare(sys.argv[1:])
    except ConfigError as error:
        refuse(error, True)
    sys.exit(ExitCode.FINISHED)


def _prepare(words: list[str]) -> None:
    composed = compose(words)
    import_modules(composed.config.run.imports)
    import torch

    from .engine.parts.config_targets import targets
    from .engine.parts.rank_parts import build_datasets
    from .prepared.cache import MANIFEST, Cache, damaged

    cache = Cache(composed.config.data.cache, fetches=True)
    builder = targets(composed.config, composed.foreign, cache)
    for name, dataset in build_datasets(composed.config, builder, torch.device("cpu")).items():
        samples = len(dataset) if hasattr(dataset, "__len__") else None  # a stream has none
        print(json.dumps({"data": name, "samples": samples}), flush=True)
    for folder, name in cache.used.items():
        if wrong := damaged(folder):
            raise ConfigError(
                f"{folder / wrong[0]} is damaged: its content is not what was prepared. Remove {folder} and type the same "
                "again"
            )
        manifest = read_json(folder / MANIFEST)
        size = sum(facts["size"] for facts in manifest["files"].values())
        facts = {"prepared": name, "folder": str(folder), "bytes": size, "sources": manifest["sources"]}
        print(json.dumps(facts, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    run_without_teardown(main)
