"""Small data and models for what libraries bring: scores, tokens, boxes. Built by name, from configs."""

from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset


class Tokens(Dataset[dict[str, torch.Tensor]]):
    """Sequences of tokens, as dicts; the class is that of the token that stands first."""

    def __init__(self, samples: int, length: int = 6, classes: int = 3) -> None:
        draw = torch.Generator().manual_seed(samples)
        self.ids = torch.randint(1, 30, (samples, length), generator=draw)
        self.labels = self.ids[:, 0] % classes

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        mask = torch.ones_like(self.ids[index])
        return {"input_ids": self.ids[index], "attention_mask": mask, "labels": self.labels[index]}


def tiny_bert(classes: int = 3) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        num_labels=classes,
        hidden_dropout_prob=0.0,  # whose masks depend on the ranks, without train.micro_batch
        attention_probs_dropout_prob=0.0,
    )
    made: nn.Module = BertForSequenceClassification(config)
    return made


class Boxes(Dataset[Any]):
    """Bright rectangles on noise, one or two a picture, of two classes by their colour. A batch is put together already."""

    def __init__(self, samples: int, size: int = 48) -> None:
        draw = torch.Generator().manual_seed(samples)
        self.images, self.targets = [], []
        for _ in range(samples):
            image = 0.1 * torch.rand(3, size, size, generator=draw)
            boxes, labels = [], []
            for _ in range(int(torch.randint(1, 3, (1,), generator=draw))):
                x, y = torch.randint(0, size - 20, (2,), generator=draw).tolist()
                kind = int(torch.randint(1, 3, (1,), generator=draw))
                image[kind, y : y + 18, x : x + 18] = 1.0
                boxes.append([float(x), float(y), x + 18.0, y + 18.0])
                labels.append(kind)
            self.images.append(image)
            self.targets.append({"boxes": torch.tensor(boxes), "labels": torch.tensor(labels)})

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.images[index], self.targets[index]

    def __getitems__(self, indices: Any) -> Any:
        return [self.images[i] for i in indices], [self.targets[i] for i in indices]


def tiny_faster_rcnn(size: int = 48) -> nn.Module:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign

    class Backbone(nn.Sequential):
        out_channels = 16

    backbone = Backbone(
        nn.Conv2d(3, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()
    )
    made: nn.Module = FasterRCNN(
        backbone,
        num_classes=3,
        rpn_anchor_generator=AnchorGenerator(((18,),), ((1.0,),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 4, 2),
        min_size=size,
        max_size=size,
        rpn_pre_nms_top_n_train=50,
        rpn_post_nms_top_n_train=20,
        rpn_pre_nms_top_n_test=50,
        rpn_post_nms_top_n_test=20,
        box_detections_per_img=10,
    )
    return made
