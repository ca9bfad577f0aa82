"""Models of timm, transformers and peft for planted samples, and tasks for them. Imported in ranks, by name."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from phalanx import Ratio, Task
from tests.train.faulty_parts import CLASSES, WIDTH


class Pictured(nn.Module):
    """A model of timm for pictures that are made of planted vectors."""

    def __init__(self, name: str, pixels: int) -> None:
        import timm

        super().__init__()
        sizes = {"img_size": pixels} if "vit" in name else {}
        self.body = timm.create_model(name, in_chans=1, num_classes=CLASSES, drop_path_rate=0.2, **sizes)
        self.pixels = pixels

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        picture = inputs.repeat(1, self.pixels**2 // WIDTH + 1)[:, : self.pixels**2]
        logits: torch.Tensor = self.body(picture.view(-1, 1, self.pixels, self.pixels))
        return logits


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=WIDTH, n_positions=8, n_embd=16, n_layer=3, n_head=2, use_cache=False)
    model: nn.Module = GPT2LMHeadModel(config)
    return model


class NextToken(Task):
    def ratios(self, model: nn.Module, batch: Any) -> Mapping[str, Ratio]:
        tokens = batch[0].topk(6, 1).indices
        logits: torch.Tensor = model(input_ids=tokens).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
        return {"loss": Ratio(loss / 5, len(tokens))}


def bert_with_lora(rank: int = 2) -> nn.Module:
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=WIDTH, max_position_embeddings=16, num_labels=CLASSES, **sizes)
    lora = LoraConfig(task_type=TaskType.SEQ_CLS, r=rank, target_modules=["query", "value"])
    model: nn.Module = get_peft_model(BertForSequenceClassification(config), lora)
    return model


class Tokens(Task):
    def ratios(self, model: nn.Module, batch: Any) -> Mapping[str, Ratio]:
        inputs, labels = batch
        logits: torch.Tensor = model(input_ids=inputs.topk(6, 1).indices).logits
        loss = F.cross_entropy(logits, labels, reduction="sum")
        return {"loss": Ratio(loss, len(labels)), "accuracy": Ratio((logits.argmax(1) == labels).sum(), len(labels))}
