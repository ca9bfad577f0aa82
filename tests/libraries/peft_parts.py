"""A BERT with LoRA adapters, as peft makes it, and a task for it. Imported in ranks, by name."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from phalanx import Ratio, Task
from tests.train.faulty_parts import CLASSES, WIDTH


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
