"""Reviews from a file of lines `label<TAB>text`, as a tokenizer reads them."""

from torch.utils.data import Dataset


class Reviews(Dataset):
    """Samples are what a transformers model takes, of as many tokens as the text has; the collate pads."""

    def __init__(self, file, tokenizer, longest):
        with open(file, encoding="utf-8") as lines:
            self.rows = [line.rstrip("\n").split("\t", 1) for line in lines]
        self.tokenizer, self.longest = tokenizer, longest

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        label, text = self.rows[index]
        return {**self.tokenizer(text, truncation=True, max_length=self.longest), "labels": int(label)}
