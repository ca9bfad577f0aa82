"""Pictures of bright rectangles and discs, with their boxes, drawn as they are asked for."""

import torch
from torch.utils.data import Dataset


class Shapes(Dataset):
    """`count` pictures of `size` pixels a side, with the targets that torchvision's detectors take: boxes and labels."""

    def __init__(self, count, size, seed):
        self.count, self.size, self.seed = count, size, seed

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        random = torch.Generator().manual_seed(self.seed + index)
        image = torch.rand(3, self.size, self.size, generator=random) * 0.3
        boxes, labels = [], []
        for _ in range(int(torch.randint(1, 4, (), generator=random))):
            w, h = torch.randint(self.size // 4, self.size // 2, (2,), generator=random).tolist()
            label = int(torch.randint(1, 3, (), generator=random))
            h = w if label == 2 else h
            x, y = (int(torch.randint(0, self.size - side, (), generator=random)) for side in (w, h))
            inside = torch.ones(h, w, dtype=torch.bool)
            if label == 2:
                ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
                inside = (xs - w / 2) ** 2 + (ys - h / 2) ** 2 < (w / 2) ** 2
            image[:, y : y + h, x : x + w][:, inside] = 0.4 + 0.6 * torch.rand(3, 1, generator=random)
            boxes.append([x, y, x + w, y + h])
            labels.append(label)
        return image, {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(labels)}


def collate(samples):
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)
