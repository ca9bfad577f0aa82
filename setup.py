"""All settings stand in pyproject.toml. This refuses what could only be built without most of its folders."""

from pathlib import Path

from setuptools import setup

if not (Path(__file__).parent / ".path/phalanx/train").is_dir():
    raise SystemExit(
        "phalanx/train and the three links beside it came as plain files, as pip and Windows unpack a zip. "
        "Install from a clone or a tar.gz: pip install git+URL, or pip install phalanx.tar.gz"
    )
setup()
