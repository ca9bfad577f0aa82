"""Suggest the word that someone who mistyped may have meant."""

import difflib
from collections.abc import Sequence


def nearest(word: str, choices: Sequence[str]) -> str:
    """A question with the likeliest of `choices`, such as "Did you mean train.steps? "; empty when none is near.

    A dotted word is held against its siblings by its last part, then against same last parts anywhere (lr is optim.lr),
    then as a whole.
    """
    parent, _, last = word.rpartition(".")
    siblings = {choice.rpartition(".")[2]: choice for choice in choices if choice.rpartition(".")[0] == parent}
    found = [siblings[name] for name in difflib.get_close_matches(last, siblings, n=1)]
    same = [choice for choice in choices if choice.endswith(f".{last}")]
    found = found or difflib.get_close_matches(word, same, n=1, cutoff=0.0)
    found = found or difflib.get_close_matches(word, choices, n=1, cutoff=0.75)
    return f"Did you mean {found[0]}? " if found else ""
