"""Online where there is a key for the server, else offline, and never by asking."""

from pathlib import Path

import pytest

from phalanx.config.wandb_mode import resolve_mode

NETRC = "machine api.wandb.ai login user password secret\nmachine wandb.corp login user password secret\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".config" / "wandb").mkdir(parents=True)
    return tmp_path


def auto(home: Path, **environ: str) -> str:
    return resolve_mode("auto", {"HOME": str(home), **environ})


def settings(home: Path, text: str) -> None:
    (home / ".config" / "wandb" / "settings").write_text(f"[default]\n{text}\n")


def test_without_a_key_it_is_offline(home: Path) -> None:
    assert auto(home) == "offline"
    assert auto(home, WANDB_API_KEY="") == "offline"


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
def test_a_key_in_the_environment_makes_it_online(home: Path, name: str) -> None:
    assert auto(home, **{name: "x"}) == "online"


def test_a_key_for_the_server_in_netrc_makes_it_online(home: Path) -> None:
    (home / ".netrc").write_text(NETRC)
    assert auto(home) == "online"
    assert auto(home, WANDB_BASE_URL="https://api.forge.coreweave.com") == "online", "the same service"
    assert auto(home, WANDB_BASE_URL="https://wandb.corp") == "online"
    assert auto(home, WANDB_BASE_URL="https://wandb.other") == "offline"
    assert auto(home, NETRC=str(home / "none")) == "offline"
    assert resolve_mode("auto", {}, home / ".netrc") == "online"


def test_a_netrc_that_is_broken_or_for_others_is_no_key(home: Path) -> None:
    for text in ("machine\n", "default login user password secret\n", "machine other login a password b\n"):
        (home / ".netrc").write_text(text)
        assert auto(home) == "offline"


def test_w_and_b_s_settings_file_counts(home: Path) -> None:
    settings(home, "api_key = 50%off")
    assert auto(home) == "online"
    settings(home, "base_url = https://wandb.corp")
    (home / ".netrc").write_text(NETRC.splitlines()[1])
    assert auto(home) == "online"
    settings(home, "base_url = https://wandb.other")
    assert auto(home) == "offline"
    settings(home, "mode = disabled")
    assert auto(home, WANDB_API_KEY="x") == "disabled"
    assert auto(home, WANDB_API_KEY="x", WANDB_CONFIG_DIR=str(home / "none")) == "online"
    settings(home, "[[[")
    assert auto(home) == "offline"


@pytest.mark.parametrize(
    ("value", "mode"), [("online", "online"), ("offline", "offline"), ("disabled", "disabled"), ("dryrun", "offline")]
)
def test_auto_is_what_the_environment_says(home: Path, value: str, mode: str) -> None:
    assert auto(home, WANDB_MODE=value, WANDB_API_KEY="x") == mode


def test_a_mode_that_was_asked_for_is_taken(home: Path) -> None:
    for mode in ("online", "offline", "disabled"):
        assert resolve_mode(mode, {"WANDB_MODE": "offline", "WANDB_API_KEY": "x"}) == mode


def test_an_unknown_mode_lists_the_choices(home: Path) -> None:
    with pytest.raises(ValueError, match=r"wandb.mode is 'onlien'. Choose one of: auto, online, offline, disabled"):
        resolve_mode("onlien", {})
    with pytest.raises(ValueError, match="WANDB_MODE is 'shared'"):
        auto(home, WANDB_MODE="shared")
