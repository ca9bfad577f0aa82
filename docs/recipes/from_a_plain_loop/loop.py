"""Before: a training loop as one writes it by hand."""

import torch
from digits import Digits, Net
from torch import nn

torch.manual_seed(0)
train, held_out = Digits("train"), Digits("held_out")
model = Net(width=64)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
loader = torch.utils.data.DataLoader(train, batch_size=64, shuffle=True)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10 * len(loader))

for epoch in range(10):
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        correct = sum(int((model(x[None]).argmax(1) == y).sum()) for x, y in held_out)
    print(f"epoch {epoch}: loss {loss.item():.3f}, accuracy {correct / len(held_out):.3f}")
torch.save(model.state_dict(), "model.pt")
