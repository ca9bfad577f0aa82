"""A translation is written token by token as it is trained: with the same logits, whatever stands beside it in a batch."""

import pytest
import torch

from phalanx.train.models.language.encoder_decoder import EncoderDecoder

SOURCE = torch.tensor([[5, 6, 7, 0, 0], [8, 9, 5, 6, 7], [9, 0, 0, 0, 0]])
TARGET = torch.tensor([[1, 4, 5, 2], [1, 6, 2, 0], [1, 7, 7, 7]])


def model(copies: bool = True) -> EncoderDecoder:
    torch.manual_seed(0)
    net = EncoderDecoder(vocabulary=11, width=16, heads=4, layers=2, hidden=32, longest=12, dropout=0.1, copies=copies)
    return net.double().eval()


@torch.no_grad()
def test_token_by_token_the_logits_are_those_of_the_whole_target() -> None:
    net = model()
    whole = net(SOURCE, TARGET)
    decoding = net.start(SOURCE, 4)
    for place in range(TARGET.shape[1]):
        torch.testing.assert_close(net.next_logits(TARGET[:, place], decoding), whole[:, place])


@torch.no_grad()
def test_padding_of_either_side_changes_nothing() -> None:
    net = model()
    whole = net(SOURCE, TARGET)
    torch.testing.assert_close(net(SOURCE[:1, :3], TARGET[:1]), whole[:1])
    torch.testing.assert_close(net(SOURCE[1:2], TARGET[1:2, :3]), whole[1:2, :3])


@torch.no_grad()
def test_rows_of_one_source_go_on_in_each_others_place() -> None:
    net = model()
    decoding = net.start(SOURCE[:2], 4)
    decoding.widen(2)
    net.next_logits(torch.tensor([1, 1, 1, 1]), decoding)
    net.next_logits(torch.tensor([4, 5, 6, 7]), decoding)
    decoding.select(torch.tensor([1, 1, 3, 2]))
    found = net.next_logits(torch.tensor([9, 8, 9, 9]), decoding)
    targets = torch.tensor([[1, 5, 9], [1, 5, 8], [1, 7, 9], [1, 6, 9]])
    torch.testing.assert_close(found, net(SOURCE[[0, 0, 1, 1]], targets)[:, -1])


@torch.no_grad()
def test_what_the_last_block_looks_at_adds_up_to_one_and_leaves_out_padding() -> None:
    weights = model().alignment(SOURCE, TARGET)
    assert weights.shape == (3, 4, 5)
    torch.testing.assert_close(weights.sum(2), torch.ones(3, 4))
    assert not weights[0, :, 3:].any()


def test_one_embedding_is_that_of_both_sides_and_of_the_answer() -> None:
    net = model(copies=False)
    assert net(SOURCE, TARGET).shape == (3, 4, 11)
    blocks = sum(p.numel() for name, p in net.named_parameters() if not name.startswith("embedding"))
    assert sum(p.numel() for p in net.parameters()) == blocks + 11 * 16


@torch.no_grad()
def test_where_the_gate_is_open_only_tokens_of_the_source_are_written() -> None:
    net = model()
    assert net.copy is not None
    torch.testing.assert_close(net(SOURCE, TARGET).exp().sum(2), torch.ones(3, 4, dtype=torch.float64))
    net.copy.gate.weight.zero_()
    net.copy.gate.bias.fill_(50.0)
    found = net(SOURCE, TARGET).exp()
    torch.testing.assert_close(found[0, :, SOURCE[0, :3]].sum(1), torch.ones(4, dtype=torch.float64))
    net.copy.gate.bias.fill_(-50.0)
    logits = net(SOURCE, TARGET)
    net.copy = None
    torch.testing.assert_close(logits, net(SOURCE, TARGET).log_softmax(2))


def test_more_tokens_than_there_are_positions_say_what_to_type() -> None:
    source, target = torch.ones(2, 99, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"99 tokens .* more than model\.longest=\d+.*Type model\.longest=99"):
        model()(source, target)
    with pytest.raises(ValueError, match=r"as many as task\.longest\) are more than model\.longest"):
        model().start(target, 100)
