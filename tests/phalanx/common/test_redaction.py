"""No secret reaches a file or a log line, and what is no secret stays readable."""

import io
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.common.redaction import REDACTED, RedactingFilter, redact, redact_argv, secrets_of

# Put together here, so that no scanner takes this file itself for a leak.
BODY = "a1B2c3D4e5F6g7H8i9J0"
PEM = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEow" + BODY + "\nx/+" + BODY + "\n-----END RSA " + "PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9" + "." + "eyJzdWIiOiIxMjM0In0" + "." + "dozjgNryP4J3jVmNHl0w5N"
FORMS = [
    *(f"gh{kind}_" + BODY for kind in "pousr"),
    *("github_pat_" + BODY + "_" + BODY, "hf_" + BODY, "npm_" + BODY, "wandb_v1_" + BODY, "glpat-" + BODY),
    *("sk-" + BODY, "sk-proj-" + BODY + "-x_y", "sk-" + "abcdefghijklmnopqrst", "xoxb-" + "1234-5678-abcdefgh"),
    *("AKIA" + "IOSFODNN7EXAMPLE", "ASIA" + "IOSFODNN7EXAMPLE", "AIza" + BODY + "k1L2m3N4o5P6q7R"),
    *(JWT, PEM),
]
SECRET_NAMES = [
    *("api_key", "apiKey", "APIKey", "api-key", "wandb.api_key", "WANDB_API_KEY", "apikey", "auth.token"),
    *("secret", "client_secret", "clientSecret", "secrets", "access_token", "accessToken"),
    *("password", "PASSWORD", "db_password", "dbPassword", "passwd", "pwd", "credential", "credentials"),
    *("oauth", "OAuth", "authorization", "Authorization", "private_key", "privateKey"),
    *("ssh-private-key", "passphrase", "aws_secret_access_key", "password2"),
]
DOUBTFUL_NAMES = ["key", "label_key", "token", "token2", "HF_TOKEN", "hfToken", "auth", "pass", "cookie", "sort.key"]
WORDS = ["digit", "parity", "x", "first", "basic", "attention_mask", "column_12", "chocolate-chip-2024", "<pad>", "7"]
OPEN_NAMES = [
    *("tokenizer", "tokens_per_s", "num_tokens", "tokens", "keyboard", "monkey", "keys", "keyword", "turkey"),
    *("author", "authority", "secretary", "compass", "passes", "bypass", "passage", "pwdx", "pad_token"),
    *("bosToken", "special_token", "public_key", "hockey", "name", "auth_mode", "token_file", "key_size", "KeyError"),
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_what_looks_like_a_password_is_redacted_under_a_secret_name(name: str) -> None:
    for value in ("hunter2", "swordfish", "correct horse", BODY):
        assert redact({"a": [{name: value}]}) == {"a": [{name: REDACTED}]}, value


@pytest.mark.parametrize("name", [*DOUBTFUL_NAMES, *SECRET_NAMES])
def test_what_looks_random_is_redacted_under_any_name_that_may_be_a_secrets(name: str) -> None:
    for value in (BODY, "0123456789abcdef0123456789abcdef", "550e8400-e29b-41d4-a716-446655440000"):
        assert redact({"a": [{name: value}]}) == {"a": [{name: REDACTED}]}, value


@pytest.mark.parametrize("name", DOUBTFUL_NAMES)
def test_a_word_is_no_secret_because_its_key_has_a_word(name: str) -> None:
    kept = {name: [*WORDS, "/data/tokens/train_2024_shard_0001.bin"]}
    assert redact(kept) == kept
    assert redact_argv([f"data.train.{name}={word}" for word in WORDS]) == [f"data.train.{name}={w}" for w in WORDS]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_short_word_is_no_secret_under_any_name(name: str) -> None:
    assert redact({name: ["red", "parity", "/run/secrets/db.yaml", "12"]}) == {
        name: ["red", "parity", "/run/secrets/db.yaml", "12"]
    }


@pytest.mark.parametrize("name", OPEN_NAMES)
def test_a_name_that_only_resembles_a_secret_keeps_its_value(name: str) -> None:
    assert redact({name: "word piece 7"}) == {name: "word piece 7"}


def test_strings_anywhere_below_a_secret_name_are_redacted_and_other_kinds_are_not() -> None:
    list_, pair = ["hunter2", 1, None], ("swordfish", 2.5)
    value = {"credentials": {"user": "someone1", "list": list_, "pair": pair}, "key_size": 64, "auth": True}
    hidden = {"user": REDACTED, "list": [REDACTED, 1, None], "pair": (REDACTED, 2.5)}
    assert redact(value) == {"credentials": hidden, "key_size": 64, "auth": True}
    assert value["credentials"]["user"] == "someone1", "the argument itself stays as it was"  # type: ignore[index]


def test_an_unset_secret_stays_visibly_unset() -> None:
    assert redact({"api_key": "", "token": None}) == {"api_key": "", "token": None}


@pytest.mark.parametrize("secret", FORMS)
@pytest.mark.parametrize("frame", ["{}", "see {} here", "'{}'", "x={};y", "[{}]", "+{}\n context", "https://h/{}?q"])
def test_a_known_form_is_replaced_wherever_it_stands(secret: str, frame: str) -> None:
    assert redact(frame.format(secret)) == frame.format(REDACTED)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://me:hunter22@host/x", "https://me:[redacted]@host/x"),
        ("postgres://me:p@ss@host:5432/db", "postgres://me:[redacted]@host:5432/db"),
        ("redis://:hunter22@host", "redis://:[redacted]@host"),
        (f"https://{BODY}{BODY}@host/x.git", "https://[redacted]@host/x.git"),
        ("Bearer abc123def", "Bearer [redacted]"),
        ("authorization: bearer abc.def-ghi==", "authorization: bearer [redacted]"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic [redacted]"),
        ("'Authorization': 'Token 0123abcd'", "'Authorization': '[redacted]'"),
        ("https://b/o?x=1&X-Amz-Signature=0aF&y=2", "https://b/o?x=1&X-Amz-Signature=[redacted]&y=2"),
        ("https://b/o?sig=0%2FaF", "https://b/o?sig=[redacted]"),
        ("https://h/?api_key=0123456789&x=1", "https://h/?api_key=[redacted]&x=1"),
        ('url="https://h/?token=0123456789"', 'url="https://h/?token=[redacted]"'),
        ("password = 'correct horse'", "password = '[redacted]'"),
        ('    "apiKey": "swordfish", "n": 1', '    "apiKey": "[redacted]", "n": 1'),
        (r'secret=b"with \" a quote"', 'secret=b"[redacted]"'),
        ("+  password: hunter22\n", "+  password: [redacted]\n"),
        ("password = 'my api_key=0123456789'", "password = '[redacted]'"),
        ("-DB_PASSWORD=hunter22", "-DB_PASSWORD=[redacted]"),
        ("no override 'data.password=hunter22'.", "no override 'data.password=[redacted]'."),
        ("first " + PEM.partition("\n-----END")[0], "first [redacted]"),
    ],
)
def test_the_secret_part_of_a_text_is_replaced_and_the_rest_kept(text: str, kept: str) -> None:
    assert redact(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "task-oriented-and-rather-long-name",
        "sk-learn-is-no-secret-at-all-1234",
        "disk-abcdefghijklmnopqrstuvwxyz",
        "https://host:8080/path@v2",
        "ssh://git@host/repository",
        "git@host:me/repository.git",
        "hf_hub_download",
        "AKIA",
        "the bearer of news",
        "eyJ.no.token",
        "key = lambda item: item[1]",
        "def login(token: str, key: int = 7) -> None:",
        "sort(key=len)",
        "max(rows, key='loss')",
        "token == other",
        "password = os.environ['PW']",
        "tokens_per_s=123456.78",
        "tokenizer: 'bert-base-uncased-2'",
        "-----BEGIN PUBLIC KEY-----",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        "lr=0.001, epoch: 12345678",
        "KeyError: 'attention_mask'",
        "sample['label_key'] = 'attention_mask'",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


def test_literal_secrets_are_replaced_in_values_and_keys_the_longer_first() -> None:
    value = {"a-swordfish": ["xswordfishx", "swordfish99"], "n": 5}
    expected = {"a-[redacted]": ["x[redacted]x", "[redacted]"], "n": 5}
    assert redact(value, ("", "swordfish", "swordfish99")) == expected


@given(st.recursive(st.text() | st.integers() | st.none(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_redacting_twice_changes_nothing_more(value: Any) -> None:
    assert redact(redact(value)) == redact(value)


@given(st.text(), st.sampled_from([secret for secret in FORMS if secret is not PEM]), st.text())
def test_no_form_survives_between_words_of_any_text(before: str, secret: str, after: str) -> None:
    assert secret not in redact(f"{before} {secret} {after}")


@pytest.mark.parametrize(
    "piece", ["a", "eyJ-", "key=", "key='", "://a:", "-----BEGIN ", "bearer ", "token:\t", 'pwd="\\']
)
def test_a_long_line_takes_no_more_than_linear_time(piece: str) -> None:
    started = time.process_time()
    redact(piece * (200_000 // len(piece)))
    assert time.process_time() - started < 5, "0.3 s on a slow core; quadratic would be minutes"


def test_secrets_of_an_environment_are_the_long_values_of_secret_names() -> None:
    environ = {
        "WANDB_API_KEY": "0123456789",
        "HF_TOKEN": "abcdefgh",
        "OTHER_TOKEN": "abcdefgh",
        "DB_PASSWORD": "short77",
        "PWD": "/a/working/directory",
        "OLDPWD": "/another/directory",
        "TOKENIZERS_PARALLELISM": "false-false",
        "HOME": "/home/someone",
    }
    assert secrets_of(environ) == ("0123456789", "abcdefgh")


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["+data.password=hunter22"], ["+data.password=[redacted]"]),
        (["++data.password='a b=c d e'"], ["++data.password=[redacted]"]),
        (["data.password=hunter2"], ["data.password=[redacted]"]),
        (["wandb.api_key=0123", "train.steps=9"], ["wandb.api_key=0123", "train.steps=9"]),
        (["wandb.api_key=012345"], ["wandb.api_key=[redacted]"]),
        (["--token", "X", "Y"], ["--token", "[redacted]", "Y"]),
        (["--token", "--verbose"], ["--token", "--verbose"]),
        (["--token", "-dash"], ["--token", "[redacted]"]),
        (["--token=X", "Y"], ["--token=[redacted]", "Y"]),
        (["-api-key", "X"], ["-api-key", "[redacted]"]),
        (["+data.login={user: me, password: pw1234, n: 3}"], ["+data.login={user: me, password: [redacted], n: 3}"]),
        (["+data.login={password:'a horse'}"], ["+data.login={password:'[redacted]'}"]),
        (['--json={"api_key": "abc123"}'], ['--json={"api_key": "[redacted]"}']),
        (["data.url=https://me:pw@host/x"], ["data.url=https://me:[redacted]@host/x"]),
        (["data.url=https://h/?a=1&token=abc123&b=2"], ["data.url=https://h/?a=1&token=[redacted]&b=2"]),
        (["https://h/key/?x=abc", "the key is a=b"], ["https://h/key/?x=abc", "the key is a=b"]),
        (["--header", "X-Auth-Token: abc123"], ["--header", "X-Auth-Token: [redacted]"]),
        (["run.name=sk-" + BODY], ["run.name=[redacted]"]),
        (["model.key_size=64", "optim.token_lr=1e-4"], ["model.key_size=64", "optim.token_lr=1e-4"]),
        (["wandb.api_key=null", "auth=true"], ["wandb.api_key=null", "auth=true"]),
        (["{key_size: 64, secret: abc123}"], ["{key_size: 64, secret: [redacted]}"]),
        (["data.tokenizer=bert-2", "monkey=see"], ["data.tokenizer=bert-2", "monkey=see"]),
        (["train/main.py", "", "a b"], ["train/main.py", "", "a b"]),
    ],
)
def test_a_command_line_shows_no_secret_and_keeps_the_rest(argv: list[str], shown: list[str]) -> None:
    assert redact_argv(argv) == shown


@pytest.fixture
def logged() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger of its own with a redacting handler, and what it writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter(["swordfish"]))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    yield logger, stream
    handler.close()


def test_a_log_record_loses_secrets_of_its_message_and_arguments(logged: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = logged
    logger.info("%s and %s, %d %%", "ghp_" + BODY, "swordfish", 3)
    assert stream.getvalue() == "[redacted] and [redacted], 3 %\n"


def test_a_log_record_loses_secrets_of_its_exception_and_stack(logged: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = logged
    try:
        raise RuntimeError("login with swordfish failed")
    except RuntimeError:
        logger.exception("of swordfish", stack_info=True)
    text = stream.getvalue()
    assert "RuntimeError: login with [redacted] failed" in text
    assert "Traceback" in text
    assert "Stack (most recent call last)" in text
    assert "swordfish" not in text, "it stands in the stack's source lines, too"


def test_a_later_handler_cannot_format_the_exception_anew() -> None:
    try:
        raise RuntimeError("swordfish")
    except RuntimeError:
        record = logging.LogRecord("n", logging.ERROR, "f", 1, "m", None, sys.exc_info())
    assert RedactingFilter(["swordfish"]).filter(record)
    assert record.exc_info is None
    assert (record.exc_text or "").endswith("RuntimeError: [redacted]")


def test_a_malformed_log_call_neither_raises_nor_leaks(logged: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = logged
    logger.info("two %s %s", "swordfish")
    assert stream.getvalue() == "two %s %s ('[redacted]',)\n"
