"""An encoder's classes of a text do not depend on what stands beside it in a batch."""

import torch

from phalanx.train.models.language.text_encoder import TextEncoder


@torch.no_grad()
def test_a_text_has_the_same_logits_in_any_batch_and_is_cut_at_the_longest() -> None:
    torch.manual_seed(0)
    net = TextEncoder(3, 20, 16, 4, 2, 32, 6, 0.1, 0).double().eval()
    texts = torch.tensor([[5, 6, 7, 0, 0, 0, 0], [8, 9, 5, 6, 7, 4, 3], [0, 0, 0, 0, 0, 0, 0]])
    together = net(texts)
    assert together.shape == (3, 3)
    assert together.isfinite().all()
    torch.testing.assert_close(net(texts[:1, :3]), together[:1])
    torch.testing.assert_close(net(texts[1:2, :6]), together[1:2])
    assert not torch.allclose(net(texts[:1].flip(0)[:, [1, 0, 2, 3]]), together[:1])
