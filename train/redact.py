"""What must not be written down: secrets in settings, command lines, log lines and any other text."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

T = TypeVar("T")

REDACTED = "[redacted]"
SHORTEST_SECRET = 8  # characters; a shorter literal would blank out innocent words everywhere

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET_WORDS = frozenset(
    {"key", "apikey", "token", "authtoken", "accesstoken", "secret", "secrets", "password", "passwords", "passwd"}
    | {"passphrase", "pass", "pwd", "credential", "credentials", "auth", "oauth", "authorization", "cookie"}
)
# `pad_token` names a word of a vocabulary, and a public key may be read by anyone.
_OPEN_BEFORE = frozenset({"public", "pad", "bos", "eos", "unk", "cls", "sep", "mask", "special"})

# Group 1 is what stays in front of the secret. None begins inside a run that it scans: long lines cost linear time.
_FORMS = tuple(
    re.compile(form)
    for form in (
        r"()-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----(?s:.*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|\Z)",
        r"()(?<![A-Za-z0-9])(?:gh[pousr]_|hf_|npm_)[A-Za-z0-9]{16,}",
        r"()(?<![A-Za-z0-9])(?:github_pat_|wandb_v\d+_)\w{16,}",
        r"()(?<![A-Za-z0-9])(?:sk(?!-learn)|xox[a-z]|xapp|glpat|pypi)-[\w-]{16,}",
        r"()(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])|AIza[\w-]{35})",
        r"()(?<![\w-])eyJ[\w-]{6,}+\.[\w-]{6,}+\.[\w-]*",
        r"(://[^\s/:@]*:)[^\s/]+(?=@)",
        r"(://)[^\s/:@]{20,}(?=@)",
        r"((?i:\bbearer|\bauthorization[\"']?\s*[:=]\s*[\"']?\w+)\s+)[\w.~+/-]{6,}=*",
        r"((?i:[?&](?:x-amz-|x-goog-)?sig(?:nature)?=))[^&\s\"']+",
    )
)

_ASSIGNS = re.compile(r"""(?<![\w.-])([\w.-]++)["']?[ \t]*[:=]{1,2}[ \t]*(?:[bfru](?=["']))?""")
_BARE = r"""[^\s"',;&(){}\[\]]"""
_QUOTED = r"""(["'])(?:\\.|(?!\1)[^\\\n])"""
_PLAIN = r"(?i:-?\d{1,5}(?:\.\d+)?(?:e-?\d+)?|true|false|null|none)"
# In prose and code `key = lambda ...` and `token: str` are no secrets: a quoted or a digit-bearing value may be one.
_LIKELY_SECRET = re.compile(rf"{_QUOTED}{{8,}}\1|(?={_BARE}{{0,256}}\d){_BARE}{{8,}}")
_ANY_VALUE = re.compile(rf"(?!{_PLAIN}(?!{_BARE})){_QUOTED}*\1|(?!{_PLAIN}(?!{_BARE})){_BARE}+")
_PLAIN_VALUE = re.compile(_PLAIN)
_OVERRIDE_NAME = re.compile(r"[\w.@/+~-]+")


def redact(value: T, secrets: Iterable[str] = ()) -> T:
    """`value` without its secrets: nested mappings, lists, tuples and strings are copied, all else is kept.

    A string below a key that names a secret becomes `[redacted]`. In other strings that part is replaced which has
    a secret's form (a well-known prefix, a private key, a password in a URL, `password=...`) or occurs in `secrets`.
    """
    literals = sorted(filter(None, secrets), key=len, reverse=True)  # one secret may begin with another
    copy: T = _walk(value, literals, hidden=False)
    return copy


def secrets_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The values of variables named like a secret, those of at least `SHORTEST_SECRET` characters, sorted."""
    # PWD is the shell's working directory.
    named = {value for name, value in environ.items() if name != "PWD" and _names_a_secret(name)}
    return tuple(sorted(value for value in named if len(value) >= SHORTEST_SECRET))


def redact_argv(argv: Sequence[str]) -> list[str]:
    """A command line without its secrets: `a.password=x`, `--token=x`, `--token x`, `{api_key: x}` and known forms.

    Small numbers, booleans and null stay readable, as in `model.key_size=64`.
    """
    return [
        REDACTED if _is_secret_flag(before) and not argument.startswith("--") else _redact_argument(argument)
        for before, argument in pairwise(["", *argv])
    ]


class RedactingFilter(logging.Filter):
    """Redacts a record's final text, its exception's and its stack's.

    Add it to each handler: a logger's filter does not see what the loggers below it log.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = tuple(secrets)

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite `record` in place; always true."""
        record.msg, record.args = redact(_message(record), self._secrets), None
        if record.exc_info:
            record.exc_text = record.exc_text or logging.Formatter().formatException(record.exc_info)
            record.exc_info = None  # a handler could format it anew, unredacted
        record.exc_text = redact(record.exc_text, self._secrets)
        record.stack_info = redact(record.stack_info, self._secrets)
        return True


def _walk(value: Any, secrets: Sequence[str], hidden: bool) -> Any:
    if isinstance(value, str):
        return REDACTED if hidden and value else _redact_text(value, secrets)
    if isinstance(value, Mapping):
        return {
            _walk(key, secrets, False): _walk(item, secrets, hidden or _names_a_secret(key))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_walk(item, secrets, hidden) for item in value]
    if isinstance(value, tuple):
        return tuple(_walk(item, secrets, hidden) for item in value)
    return value


def _names_a_secret(name: object) -> bool:
    """Whether a whole word of `name` (bounded by punctuation, digits or camel case) means a secret."""
    words = (word.lower() for word in _WORD.findall(name)) if isinstance(name, str) else ()
    return any(word in _SECRET_WORDS and before not in _OPEN_BEFORE for before, word in pairwise(["", *words]))


def _redact_text(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    for form in _FORMS:
        text = form.sub(rf"\1{REDACTED}", text)
    return _redact_assigned(text, _LIKELY_SECRET)


def _redact_assigned(text: str, secret: re.Pattern[str]) -> str:
    """Replace what matches `secret` right behind a secret's name and `=` or `:`."""
    pieces, done = [], 0
    for assigns in _ASSIGNS.finditer(text):
        named = assigns.start() >= done and _names_a_secret(assigns[1])
        if named and (found := secret.match(text, assigns.end())):
            quote = found[1] or ""
            pieces += [text[done : assigns.end()], quote, REDACTED, quote]
            done = found.end()
    return "".join([*pieces, text[done:]])


def _is_secret_flag(argument: str) -> bool:
    return argument.startswith("-") and "=" not in argument and _names_a_secret(argument)


def _redact_argument(argument: str) -> str:
    name, _, value = argument.partition("=")
    if value and _OVERRIDE_NAME.fullmatch(name) and _names_a_secret(name):
        return argument if _PLAIN_VALUE.fullmatch(value) else f"{name}={REDACTED}"
    return _redact_assigned(_redact_text(argument, ()), _ANY_VALUE)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # a malformed log call must not end a run, and its arguments may hold a secret
        return f"{record.msg} {record.args!r}"
