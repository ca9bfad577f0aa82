"""Weights in files that others wrote: torch's, safetensors, Hugging Face's folders. Nothing is unpickled."""

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from phalanx.common.files import read_text, sha256
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.run_folder.checkpoints import source

from ..checkpoint import weights

_TORCH = (".pt", ".pth", ".bin", ".ckpt", ".tar")  # what torch.save writes
_INDEX = ".index.json"  # of weights that are split over several files, https://huggingface.co/docs/safetensors
# Of a folder of Hugging Face's, the first that is there. These names are theirs, and hold whatever a run calls its own.
_WHOLE = ("model" + ".safetensors", "pytorch_model" + ".bin")
_OF_FOLDER = tuple(name for whole in _WHOLE for name in (whole + _INDEX, whole))
_NESTED = ("state_dict", "model_state_dict", "model")  # entries under which a training script keeps the model's weights


def files_of(given: Path) -> tuple[Path, ...]:
    """The files of the weights that `given` names; of a run its best, of a checkpoint its average where it has one.

    Raises ConfigError.
    """
    if given.is_file():
        return _shards(given) if given.name.endswith(_INDEX) else (given,)
    ours = any((given / name).exists() for name in (names.MANIFEST, names.CHECKPOINTS, names.RESOLVED))
    if given.is_dir() and not ours:
        return _of_folder(given)
    found = source(given, want_best=True)
    return (found.file(names.EMA if found.has(names.EMA) else names.MODEL),)


def read(files: Sequence[Path]) -> tuple[dict[str, Any], list[str]]:
    """The entries of the state_dict in `files`, on the CPU, and where in the files it was found. Raises ConfigError."""
    found: dict[str, Any] = {}
    nested: dict[str, None] = {}
    for path in files:
        entries: Mapping[str, Any]
        if zipfile.is_zipfile(path) or path.suffix in _TORCH:
            entries, within = _state_dict(_loaded(path), path)
            nested |= dict.fromkeys(within)
        else:
            entries = weights.read(path)
        found |= entries
    return found, [f"the entry {name} of the file" for name in nested]


def sha256_of(files: Sequence[Path]) -> str:
    """SHA-256 in hex of what the files hold; of one file it is that file's."""
    digests = [sha256(path) for path in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _of_folder(folder: Path) -> tuple[Path, ...]:
    for name in _OF_FOLDER:
        if (folder / name).is_file():
            return files_of(folder / name)
    others = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", *_TORCH))
    if len(others) == 1:
        return (others[0],)
    held = f"several files of weights ({', '.join(path.name for path in others[:5])})" if others else "no weights"
    raise ConfigError(
        f"{folder} is no run's folder and holds {held}. Type a file of weights (.safetensors, .pt, .pth, .bin, {_INDEX}), "
        f"a folder with {_WHOLE[0]}, a run's folder or a checkpoint's"
    )


def _shards(index: Path) -> tuple[Path, ...]:
    """The files beside an index of Hugging Face's, each once. Raises ConfigError where one lies elsewhere."""
    try:
        shards = sorted(set(json.loads(read_text(index))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{index} is no index of weights: {type(error).__name__}: {error}") from None
    if not shards or any(not isinstance(name, str) or Path(name).name != name for name in shards):
        raise ConfigError(f"{index} names no file, or one that does not lie beside it: {', '.join(map(str, shards))}")
    if lost := [name for name in shards if not (index.parent / name).is_file()]:
        raise ConfigError(f"{index} names {lost[0]}, which is not there. Bring it back beside the index")
    return tuple(index.parent / name for name in shards)


def _loaded(path: Path) -> Any:
    """What torch.load gives with weights_only=True; a file of the newer format is mapped, not read."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except MemoryError:
        raise
    except Exception as error:  # what is no pickle at all fails the unpickler anywhere
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"{path} is not loaded, as it holds something else than tensors and plain values, which only a pickle could "
            f'bring back ({why}). If you trust it: python -c "import torch; torch.save(torch.load('
            f"'{path.name}', weights_only=False).state_dict(), 'weights.pt')\", or ['state_dict'] for .state_dict(), and "
            "type train.init_from=weights.pt"
        ) from None


def _state_dict(found: Any, path: Path, within: tuple[str, ...] = ()) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The state_dict in what a file holds, and the entry it is under."""
    if isinstance(found, Mapping):
        for name in _NESTED:
            if isinstance(found.get(name), Mapping):
                return _state_dict(found[name], path, (".".join((*within, name)),))
        if all(isinstance(name, str) for name in found) and weights.tensors_of(found):
            return found, within
    held = ", ".join(map(str, list(found)[:8])) if isinstance(found, Mapping) else f"a {type(found).__name__}"
    raise ConfigError(
        f"{path} holds no state_dict, also not under {', '.join(_NESTED)}: it holds {held or 'nothing'}. Save one: "
        "torch.save(model.state_dict(), 'weights.pt')"
    )
