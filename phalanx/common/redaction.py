"""Redact secrets in settings, command lines, log lines and any other text."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
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
# `label_key` and `token` are names as good as any: what stands under them must look like a secret all the more.
_OFTEN_OTHERS = frozenset({"key", "token", "pass", "auth", "cookie"})
_MAKE_SURE = frozenset({"o", "api", "access", "secret", "private", "auth", "bearer", "refresh", "session"})
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
_VALUE = re.compile(r"""(["'])((?:\\.|(?!\1)[^\\\n])*)\1|([^\s"',;&(){}\[\]]{1,256})""")
_BARE = re.compile(r"""[^\s"',;&(){}\[\]]*""")
_PLAIN = re.compile(r"(?:-?\d{1,5}(?:\.\d+)?(?:e-?\d+)?|true|false|null|none)?", re.IGNORECASE)
_A_PATH = re.compile(r"~?\.{0,2}/\S*")
_DIGIT = re.compile(r"\d")
_RUN = re.compile(r"[A-Za-z0-9]{16,}")
_HEXADECIMAL = re.compile(r"(?=.*\d)(?=.*[a-f])[\da-f]{20,}", re.IGNORECASE)
_OVERRIDE_NAME = re.compile(r"[\w.@/+~-]+")


def redact(value: T, secrets: Iterable[str] = ()) -> T:
    """`value` without its secrets: nested mappings, lists, tuples and strings are copied, all else is kept.

    A string that looks like a secret below a key that names one becomes `[redacted]`. In other strings that part is
    replaced which has a secret's form (a well-known prefix, a private key, a password in a URL, `password=...`) or occurs
    in `secrets`.
    """
    literals = sorted(filter(None, secrets), key=len, reverse=True)  # one secret may begin with another
    copy: T = _walk(value, literals, _Suspicion.none)
    return copy


def secrets_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The values of variables named like a secret, those of at least `SHORTEST_SECRET` characters, sorted."""
    # PWD is the shell's working directory.
    named = {value for name, value in environ.items() if name != "PWD" and names_a_secret(name)}
    return tuple(sorted(value for value in named if len(value) >= SHORTEST_SECRET))


def names_a_secret(name: object) -> bool:
    """Whether any word of `name` (bounded by punctuation, digits or camel case) may mean a secret."""
    words = [word.lower() for word in _WORD.findall(name)] if isinstance(name, str) else []
    return any(word in _SECRET_WORDS and before not in _OPEN_BEFORE for before, word in pairwise(["", *words]))


def redact_argv(argv: Sequence[str]) -> list[str]:
    """A command line without its secrets: `a.password=…`, `--token=x`, `--token x`, `{api_key: …}` and known forms.

    Numbers, booleans, null and words stay readable, as in `model.key_size=64` and `data.label_key=digit`.
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


class _Suspicion(IntEnum):
    """What a name says of its value."""

    none = 0
    some = 1  # a key or a token, which may be a word of a vocabulary
    strong = 2  # a password


def _walk(value: Any, secrets: Sequence[str], above: _Suspicion) -> Any:
    if isinstance(value, str):
        return REDACTED if _looks_secret(value, above) else _redact_text(value, secrets)
    if isinstance(value, Mapping):
        return {
            _walk(key, secrets, _Suspicion.none): _walk(item, secrets, max(above, _suspicion(key)))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_walk(item, secrets, above) for item in value]
    if isinstance(value, tuple):
        return tuple(_walk(item, secrets, above) for item in value)
    return value


def _suspicion(name: object) -> _Suspicion:
    """By the last word of `name` (bounded by punctuation, digits or camel case): `label_key` yes, `KeyError` no."""
    words = [word.lower() for word in _WORD.findall(name)] if isinstance(name, str) else []
    before, last = ["", *words][-2:] if words else ("", "")
    if last not in _SECRET_WORDS or before in _OPEN_BEFORE:
        return _Suspicion.none
    return _Suspicion.some if last in _OFTEN_OTHERS and before not in _MAKE_SURE else _Suspicion.strong


def _looks_secret(value: str, suspicion: _Suspicion) -> bool:
    if suspicion is _Suspicion.none or _PLAIN.fullmatch(value):
        return False
    if any(_is_random(run) for run in _RUN.findall(value.replace("-", "").replace("_", ""))):
        return True
    if suspicion is _Suspicion.some or _A_PATH.fullmatch(value):
        return False
    return len(value) >= SHORTEST_SECRET or (len(value) >= SHORTEST_SECRET - 2 and not value.isalpha())


def _is_random(run: str) -> bool:
    """Whether letters and digits take turns as in no word and no date, or all are hexadecimal."""
    if _HEXADECIMAL.fullmatch(run):
        return True
    kinds = ["digit" if c.isdigit() else "upper" if c.isupper() else "lower" for c in run]
    turns = sum(this != following for this, following in pairwise(kinds))
    return turns * 4 >= len(run) and "digit" in kinds and len(set(kinds)) > 1


def _redact_text(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    for form in _FORMS:
        text = form.sub(rf"\1{REDACTED}", text)
    return _redact_assigned(text, is_code=True)


def _redact_assigned(text: str, *, is_code: bool) -> str:
    """Replace what looks like a secret right behind a secret's name and `=` or `:`.

    In prose and code `key = lambda ...` and `password: str` are no secrets: there a bare value needs a digit to be one.
    """
    pieces, done = [], 0
    for assigns in _ASSIGNS.finditer(text):
        suspicion = _suspicion(assigns[1]) if assigns.start() >= done else _Suspicion.none
        if suspicion and text[assigns.start() - 1 : assigns.start()] in ("?", "&"):
            suspicion = _Suspicion.strong  # in the query of a URL
        if not suspicion or not (found := _VALUE.match(text, assigns.end())):
            continue
        quote, value = found[1] or "", found[2] if found[1] else found[3]
        if is_code and (len(value) < SHORTEST_SECRET or not (quote or _DIGIT.search(value))):
            continue
        if _looks_secret(value, suspicion):
            pieces += [text[done : assigns.end()], quote, REDACTED, quote]
            done = found.end() if quote else _BARE.match(text, found.end()).end()  # type: ignore[union-attr]
    return "".join([*pieces, text[done:]])


def _is_secret_flag(argument: str) -> bool:
    return argument.startswith("-") and "=" not in argument and _suspicion(argument) > _Suspicion.none


def _redact_argument(argument: str) -> str:
    name, _, value = argument.partition("=")
    if value and _OVERRIDE_NAME.fullmatch(name) and (suspicion := _suspicion(name)):
        if _PLAIN.fullmatch(value):
            return argument
        hidden = name.startswith("-") or _looks_secret(value.strip("'\""), suspicion)
        return f"{name}={REDACTED if hidden else _redact_text(value, ())}"
    return _redact_assigned(_redact_text(argument, ()), is_code=False)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # a malformed log call must not end a run, and its arguments may hold a secret
        return f"{record.msg} {record.args!r}"
