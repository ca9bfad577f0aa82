"""Names and layout of GPT-2's weights at Hugging Face, and back."""

import re
from collections.abc import Mapping
from typing import Any

# Theirs to ours. Matrices of their blocks are (in, out), as in OpenAI's code; those of torch's layers are (out, in).
_NAMES = (
    (r"^wte\.", "tokens."),
    (r"^wpe\.", "positions."),
    (r"^ln_f\.", "norm."),
    (r"^h\.(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.attn\.c_attn\.", ".attention.qkv."),
    (r"\.attn\.c_proj\.", ".attention.out."),
    (r"\.mlp\.c_fc\.", ".feed_forward.up."),
    (r"\.mlp\.c_proj\.", ".feed_forward.down."),
)
_PREFIX = "transformer."
_TURNED = (".qkv.weight", ".out.weight", ".up.weight", ".down.weight")
_NO_WEIGHTS = (".attn.bias", ".attn.masked_bias")  # masks that old files hold
_HEAD = "lm_head.weight"  # of a file that holds it; it is the embedding of tokens


def from_hugging_face(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    """Entries of GPT-2's file at Hugging Face under our names; any other's as they are."""
    if not any(name.removeprefix(_PREFIX) == "wte.weight" for name in entries):
        return entries
    found = {}
    for theirs, value in entries.items():
        if theirs == _HEAD or theirs.endswith(_NO_WEIGHTS):
            continue
        name = theirs.removeprefix(_PREFIX)
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        found[name] = value.T.contiguous() if name.endswith(_TURNED) else value
    return found
