"""The static scripts, without a cluster."""

import re
import shutil
import subprocess

import pytest

from tests.ranks import ROOT

SCRIPTS = [*sorted((ROOT / "slurm").glob("*.[bs]*")), ROOT / "tests" / "slurm" / "cluster"]
FIRST = {
    "n1": "n1",
    "n[1-4]": "n1",
    "n[01-03,7],x": "n01",
    "n2,n[3-4]": "n2",
    "rack[3-4]n[7,9-11]": "rack3n7",
    "gpu-a[10].site,b": "gpu-a10.site",
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_has_nothing_to_say(script: object) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("nodes", "head"), FIRST.items())
def test_head_node_is_known_without_scontrol(nodes: str, head: str) -> None:
    text = (ROOT / "slurm" / "train.sbatch").read_text()
    (function,) = re.findall(r"^head_of\(\) \{.*?^\}", text, re.MULTILINE | re.DOTALL)
    done = subprocess.run(["bash", "-c", f'{function}\nhead_of "$1"', "_", nodes], capture_output=True, text=True)
    assert done.stdout.strip() == head
