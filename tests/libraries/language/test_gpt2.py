"""GPT-2 of transformers, its weights in our GPT."""

from pathlib import Path

import pytest
import torch

from phalanx.compose.compose import compose
from phalanx.exit.codes import ConfigError
from phalanx.train.models.language.gpt import GPT
from phalanx.train.start_point.init_from import load_initial, start_point

pytestmark = pytest.mark.zoo


def test_weights_of_hugging_face_give_their_logits(tmp_path: Path) -> None:
    """And what they generate; a file of another size is told by the names that do not fit."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "n_positions": 16, "n_embd": 24, "n_layer": 3, "n_head": 4}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, initializer_range=0.3)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = gpt(3)
    run = compose([f"train.init_from='{tmp_path}'"]).config
    matched = load_initial(ours, start_point(run), run.train)
    assert matched is not None
    assert (matched.new, matched.left) == ([], [])
    tokens = torch.randint(0, 61, (2, 9))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-4, rtol=1e-4)
    generated = theirs.generate(tokens, max_new_tokens=6, do_sample=False, pad_token_id=0)
    if not generated[:, 9:].eq(0).any():  # which ends theirs
        assert ours.generate(tokens, 6, temperature=0).tolist() == generated.tolist()
    with pytest.raises(ConfigError, match=r"blocks.3.attention"):
        load_initial(gpt(4), start_point(run), run.train)


def gpt(layers: int) -> GPT:
    return GPT(vocabulary=61, length=16, width=24, heads=4, layers=layers, dropout=0.0, fused=True).eval()
