"""What ran is written down in full, without secrets, and without letting a checkout's config run anything."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from phalanx.run_folder import environment
from tests.ranks import ROOT

TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0"  # put together, so that no scanner takes this file for a leak
ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", *who, *arguments], cwd=folder, env=ENVIRON, capture_output=True, text=True)
    return done.stdout


def commit(folder: Path, files: Mapping[str, str]) -> Path:
    """A repository at `folder` on branch `main` with these files committed."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return commit(tmp_path / "re po", {"train/step.py": "x = 1\n", "a.txt": "one\n"})


def checkout(root: Path, environ: Mapping[str, str] = ENVIRON) -> Any:
    return environment.describe([], environ, root)["git"]


def test_the_description_is_json_and_names_what_ran(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo)
    found = environment.describe(["train/main.py", "train.steps=3"], ENVIRON, repo)
    assert json.loads(json.dumps(found)) == found
    assert found["command"] == ["train/main.py", "train.steps=3"]
    assert found["directory"] == str(repo)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["torch"] == torch.__version__
    assert found["cores"] == os.cpu_count()
    assert found["cpu"]
    assert found["memory_gib"] > 0
    age = datetime.now(UTC) - datetime.fromisoformat(found["time"])
    assert 0 <= age.total_seconds() < 60


def test_no_secret_of_command_environment_directory_or_diff_is_in_it(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repo / "swordfish").mkdir()
    monkeypatch.chdir(repo / "swordfish")
    (repo / "a.txt").write_text(f"token {TOKEN}\nthe swordfish\npassword: hunter22\n")
    recorded = {"NCCL_NAME": "swordfish", "TORCH_AUTH": "hunter22", "CUDA_URL": "a://u:pw@h"}
    environ = {**ENVIRON, "WANDB_API_KEY": "swordfish", **recorded}
    found = environment.describe(["main.py", "+d.password=pw1234", "say=swordfish"], environ, repo)
    text = json.dumps(found)
    assert not [secret for secret in (TOKEN, "swordfish", "hunter22", "=pw1234", ":pw@") if secret in text]
    assert found["environment"] == {
        "CUDA_URL": "a://u:[redacted]@h",
        "NCCL_NAME": "[redacted]",
        "TORCH_AUTH": "[redacted]",
    }
    assert "+token [redacted]\n+the [redacted]\n+password: [redacted]\n" in found["git"]["diff"]
    assert found["command"] == ["main.py", "+d.password=[redacted]", "say=[redacted]"]


def test_package_versions_survive_names_that_look_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "google_auth-2.1.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert environment.describe([], ENVIRON, tmp_path)["packages"]["google-auth"] == "2.1"


def test_only_variables_that_matter_for_a_run_are_recorded(tmp_path: Path) -> None:
    kept = {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_DEBUG": "WARN",
        "OMP_NUM_THREADS": "2",
        "SLURM_JOB_ID": "77",
        "SLURM_NNODES": "2",
        "TORCH_SHOW_CPP_STACKTRACES": "1",
    }
    dropped = dict.fromkeys(("USER", "SLURM_JOB_USER", "SSH_CLIENT", "XNCCL_DEBUG", "NCCL_"), "1")
    assert environment.describe([], {**ENVIRON, **kept, **dropped}, tmp_path)["environment"] == kept


def test_every_installed_distribution_is_listed_with_its_version(tmp_path: Path) -> None:
    expected: dict[str, str] = {}
    for found in importlib.metadata.distributions():
        expected.setdefault(re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(), found.version)
    assert environment.describe([], ENVIRON, tmp_path)["packages"] == dict(sorted(expected.items()))


def test_packages_are_found_in_every_layout_and_the_first_on_the_path_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Foo_Bar-1.2+cu13.dist-info", "foo.bar-1.1-py3.11.egg-info", "~ip-23.dist-info", "empty.egg-info"):
        (tmp_path / name).mkdir()
    (tmp_path / "old-2.0-py3.11.egg-info").write_text("")
    (tmp_path / "mine.egg-info").mkdir()
    (tmp_path / "mine.egg-info/PKG-INFO").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 0.3.dev1\n")
    (tmp_path / "later").mkdir()
    (tmp_path / "later/old-9.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "later"), "/absent", __file__])
    found = environment.describe([], ENVIRON, tmp_path)["packages"]
    assert found == {"empty": "unknown", "foo-bar": "1.2+cu13", "mine": "0.3.dev1", "old": "2.0"}


def test_a_clean_checkout_has_commit_and_branch_and_no_diff(repo: Path) -> None:
    found = checkout(repo / "train")
    assert found == {"commit": git(repo, "rev-parse", "HEAD").strip(), "branch": "main", "dirty": False, "diff": ""}


def test_staged_and_unstaged_changes_of_the_whole_checkout_are_in_the_diff_which_applies_again(repo: Path) -> None:
    (repo / "a.txt").write_text("two\n")
    (repo / "train/step.py").write_text("x = 2\n")
    git(repo, "add", "a.txt")
    git(repo, "config", "diff.noprefix", "true")
    git(repo, "config", "diff.relative", "true")
    git(repo, "config", "color.ui", "always")
    found = checkout(repo / "train")
    assert found["dirty"] is True
    git(repo, "reset", "-q", "--hard")
    (repo.parent / "patch").write_text(found["diff"])
    git(repo, "apply", "../patch")
    assert ((repo / "a.txt").read_text(), (repo / "train/step.py").read_text()) == ("two\n", "x = 2\n")


def test_a_detached_head_has_no_branch(repo: Path) -> None:
    git(repo, "checkout", "-q", "--detach")
    assert checkout(repo)["branch"] is None


def test_a_branch_may_have_any_name_that_git_allows(repo: Path) -> None:
    git(repo, "checkout", "-q", "-b", "fe\u2028at/\u00a0x")
    assert checkout(repo)["branch"] == "fe\u2028at/\u00a0x"


def test_remote_urls_are_not_recorded(repo: Path) -> None:
    git(repo, "remote", "add", "origin", "https://host.example/x.git")
    assert "host.example" not in json.dumps(environment.describe([], ENVIRON, repo))


def test_no_repository_no_commit_and_no_git_are_none(tmp_path: Path, repo: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "unborn").mkdir()
    git(tmp_path / "unborn", "init", "-q")
    assert checkout(tmp_path / "plain") is None
    assert checkout(tmp_path / "unborn") is None
    assert checkout(tmp_path / "absent") is None
    assert checkout(repo, {"PATH": str(tmp_path)}) is None


def test_gits_own_variables_do_not_lead_to_another_checkout(repo: Path, tmp_path: Path) -> None:
    other = commit(tmp_path / "other", {"b.txt": "b"})
    environ = {**ENVIRON, "GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other)}
    assert checkout(repo, environ) == checkout(repo)


def test_a_long_diff_is_cut_after_a_whole_line_with_a_note(repo: Path) -> None:
    line = "word " * 20 + TOKEN + "\n"
    (repo / "a.txt").write_text(line * 20_000)
    diff = checkout(repo)["diff"]
    assert diff.endswith(" [redacted]\n[cut: more than 1048576 bytes]\n")
    assert TOKEN[:8] not in diff
    assert 800_000 < len(diff) <= 2**20 + 100


@pytest.mark.parametrize("script", ["exec sleep 60", "sleep 60; exit 0"])
def test_a_git_that_hangs_is_ended_in_time_with_all_it_started(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "git").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setattr(environment, "GIT_TIMEOUT_S", 0.2)
    started = time.monotonic()
    assert checkout(tmp_path, {"PATH": f"{tmp_path}:{ENVIRON['PATH']}"}) is None
    assert time.monotonic() - started < 20


def test_a_touched_file_is_no_change_and_the_index_is_left_as_it_was(repo: Path) -> None:
    os.utime(repo / "a.txt", (1, 1))
    os.utime(repo / "train/step.py", (1, 1))
    before = (repo / ".git/index").read_bytes()
    assert checkout(repo)["dirty"] is False
    assert (repo / ".git/index").read_bytes() == before


def test_changes_without_a_changed_line_stay_in_the_diff(repo: Path) -> None:
    (repo / "empty.txt").write_text("")
    git(repo, "add", "-N", "empty.txt")
    (repo / "train/step.py").chmod(0o755)
    os.utime(repo / "a.txt", (1, 1))
    diff = checkout(repo)["diff"]
    assert re.findall("^diff.*|^new file.*|^new mode.*", diff, re.MULTILINE) == [
        "diff --git a/empty.txt b/empty.txt",
        "new file mode 100644",
        "diff --git a/train/step.py b/train/step.py",
        "new mode 100755",
    ]


def _config(name: str, attribute: str = "") -> Callable[[Path, str], object]:
    def lay(repo: Path, trap: str) -> None:
        (repo / ".gitattributes").write_text(f"* {attribute}\n")
        git(repo, "config", name, trap)

    return lay


def _hook(repo: Path, trap: str) -> None:
    hook = repo / ".git/hooks/post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{trap}\n")
    hook.chmod(0o755)
    (repo / "a.txt").write_text("one\n")
    os.utime(repo / "a.txt", (1, 1))


def _lazy_fetch(repo: Path, trap: str) -> None:
    for name, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": "ssh://host.invalid/x",
        "protocol.ssh.allow": "always",
        "core.sshCommand": trap,
    }.items():
        git(repo, "config", name, value)
    blob = git(repo, "rev-parse", "HEAD:a.txt").strip()
    (repo / ".git/objects" / blob[:2] / blob[2:]).unlink()


def _submodule(repo: Path, trap: str) -> None:
    inner = commit(repo.parent / "inner", {"i.txt": "i\n"})
    git(repo, "submodule", "add", "-q", str(inner), "sub")
    git(repo, "commit", "-q", "-m", "submodule")
    git(repo / "sub", "config", "filter.evil.clean", trap)
    (repo / "sub/.gitattributes").write_text("* filter=evil\n")
    (repo / "sub/i.txt").write_text("j\n")


TRAPS: Mapping[str, Callable[[Path, str], object]] = {
    "fsmonitor": _config("core.fsmonitor"),
    "external diff": _config("diff.external"),
    "diff driver": _config("diff.evil.command", "diff=evil"),
    "textconv": _config("diff.evil.textconv", "diff=evil"),
    "clean filter": _config("filter.evil.clean", "filter=evil"),
    "filter process": _config("filter.evil.process", "filter=evil"),
    "filter with an equals sign": _config("filter.e=vil.clean", "filter=e=vil"),
    "hook": _hook,
    "lazy fetch": _lazy_fetch,
    "submodule's filter": _submodule,
}


@pytest.mark.parametrize("kind", TRAPS)
def test_no_command_of_a_hostile_checkout_is_run(kind: str, tmp_path: Path) -> None:
    repo = commit(tmp_path / "repo", {"a.txt": "one\n"})
    (repo / "a.txt").write_text("two\n")
    sprung = tmp_path / "sprung"
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch '{sprung}'\nexit 1\n")
    trap.chmod(0o755)
    TRAPS[kind](repo, str(trap))
    found = checkout(repo)
    assert not sprung.exists()
    assert found["branch"] == "main"
    git(repo, "diff", "HEAD")
    assert sprung.exists(), "the trap itself is broken: a plain git diff must spring it"


def test_a_filter_that_must_succeed_does_not_hide_the_diff(repo: Path) -> None:
    (repo / ".gitattributes").write_text("* filter=big\n")
    git(repo, "config", "filter.big.process", "absent-program")
    git(repo, "config", "filter.big.clean", "absent-program")
    git(repo, "config", "filter.big.required", "true")
    (repo / "a.txt").write_text("two\n")
    assert "+two\n" in checkout(repo)["diff"]


def test_gpus_and_driver_are_described_where_there_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="NVIDIA X", total_memory=80 * 2**30, major=9, minor=0)
    nvml = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: b"580.1",
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92100)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = environment.describe([], ENVIRON, tmp_path)
    assert found["cudnn"] == 92100
    assert found["gpus"] == [{"name": "NVIDIA X", "memory_gib": 80.0, "capability": "9.0"}] * 2
    assert found["driver"] == "580.1"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert environment.describe([], ENVIRON, tmp_path)["driver"] is None


def test_a_driver_or_cudnn_that_does_not_answer_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("no answer")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.cudnn, "version", fail)
    nvml = SimpleNamespace(
        NVMLError=RuntimeError, nvmlInit=lambda: None, nvmlShutdown=lambda: None, nvmlSystemGetDriverVersion=fail
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = environment.describe([], ENVIRON, tmp_path)
    assert (found["driver"], found["cudnn"]) == (None, None)


def test_the_module_imports_without_torch() -> None:
    program = "import sys; from phalanx.run_folder import environment; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def machine(**changes: Any) -> dict[str, Any]:
    gpu = {"name": "NVIDIA X", "memory_gib": 80.0, "capability": "9.0"}
    versions = {"python": "3.11.7", "torch": "2.11.0", "cuda": "13.0", "driver": None}
    hardware = {"gpus": [gpu, gpu], "cpu": "A", "cores": 8}
    return {**versions, **hardware, "packages": {"numpy": "2.1", "torch": "2.11.0"}, **changes}


def test_time_place_command_and_code_are_no_differences() -> None:
    rest = {"time": "t", "host": "h", "command": ["c"], "directory": "d", "git": None, "platform": "p", "memory_gib": 1}
    assert environment.differences(machine(**rest), machine(**dict.fromkeys(rest, "other"))) == []


def test_versions_and_hardware_that_changed_are_named_in_plain_words() -> None:
    other = {"name": "NVIDIA Y", "memory_gib": 40.0, "capability": "8.0"}
    now = machine(python="3.12.1", torch="2.14.1", driver="580.1", gpus=[other], cpu="B", cores=4)
    assert environment.differences(machine(), now) == [
        "Python: 3.11.7 before, 3.12.1 now",
        "torch: 2.11.0 before, 2.14.1 now",
        "GPU driver: none before, 580.1 now",
        "GPUs: 2 x NVIDIA X (80.0 GiB) before, 1 x NVIDIA Y (40.0 GiB) now",
        "CPU: A before, B now",
        "CPU cores: 8 before, 4 now",
    ]
    assert environment.differences(machine(gpus=[]), machine())[0].startswith("GPUs: none before, 2 x")


def test_a_field_that_an_older_version_did_not_record_is_no_difference() -> None:
    assert environment.differences({"python": "3.11.7"}, machine()) == []


def test_at_most_eight_packages_are_named_and_the_rest_counted() -> None:
    before = {f"p{number}": "1" for number in range(11)} | {"same": "1", "gone": "1", "torch": "1"}
    now = {f"p{number}": "2" for number in range(11)} | {"same": "1", "new": "1", "torch": "2"}
    lines = environment.differences(machine(packages=before), machine(packages=now))
    named = ", ".join(f"{name} 1 -> 2" for name in ("p0", "p1", "p10", "p2", "p3", "p4", "p5", "p6"))
    assert lines == [f"packages: {named} and 3 more"]
    eight = environment.differences(
        machine(packages=before), machine(packages={**now, "p7": "1", "p8": "1", "p9": "1"})
    )
    assert eight == [f"packages: {named}"]
