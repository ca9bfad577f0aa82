"""A package of the system's own registry, as `apt-get download` brings it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from phalanx.common.files import sha256
from phalanx.exit.codes import ConfigError
from phalanx.train.prepared.downloads import Apt, Download

pytestmark = pytest.mark.zoo
PACKAGE = "hostname"  # 11 kB, in every Debian and Ubuntu


@pytest.fixture
def listed() -> tuple[str, str]:
    """Version and SHA-256 that the system's lists state."""
    if shutil.which("apt-cache") is None:
        pytest.skip("this system has no apt")
    shown = subprocess.run(["apt-cache", "show", "--no-all-versions", PACKAGE], capture_output=True, text=True).stdout
    found = [re.search(rf"^{name}: (\S+)$", shown, re.MULTILINE) for name in ("Version", "SHA256")]
    if not all(found):
        pytest.skip("apt has no lists here: apt-get update")
    version, digest = (match[1] for match in found if match)
    return version, digest


def test_a_package_is_fetched_by_name_and_version(listed: tuple[str, str], tmp_path: Path) -> None:
    version, digest = listed
    file = Download([Apt(PACKAGE, version)], digest, "GPL", "Debian").get(tmp_path)
    assert (file.suffix, sha256(file)) == (".deb", digest)
    assert file.read_bytes().startswith(b"!<arch>\ndebian-binary")
    with pytest.raises(ConfigError, match="it is another file"):
        Download([Apt(PACKAGE, version)], "0" * 64, "GPL", "Debian").get(tmp_path)
    for package, wanted in ((PACKAGE, "0.0"), ("no-such-package", "1")):
        with pytest.raises(ConfigError, match=rf"data cannot be fetched here.*{package}"):
            Download([Apt(package, wanted)], "1" * 64, "GPL", "Debian").get(tmp_path)
