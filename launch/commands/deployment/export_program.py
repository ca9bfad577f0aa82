"""Starts the programs of train/ that work on an export, and reads what may be typed for them among the inputs."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from phalanx.config.overrides import key
from phalanx.exit.codes import ConfigError
from phalanx.system.module_path import PACKAGE

_DEVICE, _THREADS, _TRUST = "world.device", "train.threads", "run.trust"
_SETTINGS = (_DEVICE, _THREADS, _TRUST, "run.imports")


def split_words(inputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is to be predicted, and what is set: a word that begins with one of the few keys that have an effect."""
    settings = [word for word in inputs if "=" in word and key(word) in _SETTINGS]
    return [word for word in inputs if word not in settings], settings


def export_arguments(folder: Path, words: Sequence[str]) -> list[str]:
    """The arguments of a program of train/deploy for an export. Raises ConfigError."""
    found = [str(folder)]
    for word in words:
        name, value = key(word), word.partition("=")[2]
        if name == _DEVICE:
            found.append(f"--device={value}")
        elif name == _THREADS and value.isdecimal() and value.isascii() and int(value):
            found.append(f"--threads={value}")
        elif name == _TRUST:
            found += [f"--trust={part.strip()}" for part in value.strip("[]").split(",") if part.strip()]
        else:
            raise ConfigError(
                f"{word} says nothing to an export. It takes {_DEVICE}=cpu|cuda, {_THREADS}=<number>, {_TRUST}=[package]"
            )
    return found


def program(module: str, arguments: Sequence[str]) -> list[str]:
    """The command line of a module of train/deploy."""
    return [sys.executable, "-u", str(PACKAGE), "-m", f"train.deploy.{module}", *arguments]


def run_program(module: str, arguments: Sequence[str], said: str, *, keep: bool) -> tuple[int, str]:
    """Its exit code and, to `keep`, what it prints, which else goes to standard output. `said` is its standard input."""
    ended = subprocess.run(
        program(module, arguments),
        input=os.fsencode(said),
        stdout=subprocess.PIPE if keep else None,
        check=False,
    )
    return ended.returncode, ended.stdout.decode("utf-8") if keep else ""
