"""The static scripts, without a cluster."""

import re
import shutil
import subprocess

import pytest

from phalanx.exit.codes import ExitCode
from phalanx.launch.submission.exit_policy import EXIT_POLICY, Action, Policy, policy_lines
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


@pytest.mark.parametrize("code", [*ExitCode, 77])
def test_what_follows_from_an_exit_code_is_what_the_table_says(code: int) -> None:
    """A code that nobody knows is a failure, as a bug is."""
    text = (ROOT / "slurm" / "train.sbatch").read_text()
    (decision,) = re.findall(r"^action=retry.*?^esac", text, re.MULTILINE | re.DOTALL)
    stubs = 'leave() { echo "done $*"; exit; }\nrequeue() { echo "requeue $code $*"; exit; }\ncode=$1\n'
    environ = {"PHALANX_EXIT_POLICY": policy_lines()}
    script = f"{stubs}{decision}\necho retry"
    done = subprocess.run(["bash", "-c", script, "_", str(code)], env=environ, capture_output=True, text=True)
    policy = EXIT_POLICY.get(ExitCode(code)) if code in set(ExitCode) else Policy(Action.RETRY, "")
    assert policy is not None
    said = "retry" if policy.action is Action.RETRY else f"{policy.action} {code:d} {policy.why}"
    assert (done.stdout.strip(), done.stderr) == (said, "")
