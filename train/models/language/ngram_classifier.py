"""Classes of texts from their bytes: hashed n-grams, as fastText's, beside a convolution over words."""

import torch
from torch import nn
from torch.nn import functional as F

_BASE = 257  # of the numbers that n-grams are: seven bytes stay below 2 ** 63
_SHORTEST = 2  # bytes of an n-gram
_SPACE, _LETTER, _SIGN = 0, 1, 2  # what a byte is: between words, part of one, or one by itself
_LETTERS = [*range(ord("0"), ord("9") + 1), *range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1), ord("'")]


class NgramClassifier(nn.Module):
    """Adds up two answers: a linear one of hashed n-grams, and one of a convolution over word vectors.

    The n-grams (Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification"; of bytes: Bojanowski et al. 2017)
    are all pieces of 2 to `longest_ngram` bytes, the words, and pairs of neighbouring words; each is hashed into one of
    `buckets`, which hold a number a class. The convolution (Kim 2014, "Convolutional Neural Networks for Sentence
    Classification") has `channels` filters of each width in `kernels` over the first `words` words, whose vectors of
    `width` numbers are hashed, too, and takes the largest answer of each. `dropout` is on word vectors and filters, and
    drops half as many n-grams.

    A text may be of any bytes but 0, which is padding: there is no vocabulary, and no word is unknown.
    """

    def __init__(
        self,
        classes: int,
        buckets: int,
        longest_ngram: int,
        words: int,
        vectors: int,
        width: int,
        channels: int,
        kernels: list[int],
        dropout: float,
    ) -> None:
        super().__init__()
        if not 1 <= longest_ngram <= 7 or not all(kernel % 2 for kernel in kernels):
            raise ValueError(
                f"longest_ngram={longest_ngram} lies within 1 and 7, and kernels={kernels} are odd numbers of words"
            )
        self._buckets, self._longest, self._words = buckets, longest_ngram, words
        self._dropout = dropout
        self.ngrams = nn.Embedding(buckets, classes)
        nn.init.zeros_(self.ngrams.weight)
        self.vectors = nn.Embedding(vectors, width)
        nn.init.normal_(self.vectors.weight, std=0.1)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, channels, kernel, padding=kernel // 2) for kernel in kernels)
        self.out = nn.Linear(channels * len(kernels), classes)
        kinds = torch.full((256,), _SIGN)
        kinds[: ord(" ") + 1] = _SPACE
        kinds[_LETTERS] = _LETTER
        kinds[128:] = _LETTER  # parts of other letters, in UTF-8
        self.register_buffer("_kinds", kinds, persistent=False)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Bytes (b, t) of int64, 0 at the end for padding, to logits (b, classes)."""
        words = self._hashed_words(text)  # (b, words), 0 where there is none
        return self._of_ngrams(text, words) + self._of_words(words)

    def _of_ngrams(self, text: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        pairs = (words[:, :-1] * 3 + words[:, 1:]) * (words[:, 1:] > 0)
        pieces = [*self._pieces(text)]
        answer = self._bag(torch.cat([words, pairs], 1))
        return answer + self._bag(torch.cat(pieces, 1)) if pieces else answer

    def _bag(self, numbers: torch.Tensor) -> torch.Tensor:
        """The sum of what the buckets of numbers (b, n) hold, by the root of how many there are: 0 is none of them."""
        there = (numbers > 0).to(self.ngrams.weight.dtype)
        weights = there / there.sum(1, keepdim=True).clamp(min=1).sqrt()
        weights = F.dropout(weights, self._dropout / 2, self.training)
        return F.embedding_bag(numbers % self._buckets, self.ngrams.weight, mode="sum", per_sample_weights=weights)

    def _pieces(self, text: torch.Tensor) -> list[torch.Tensor]:
        """A number for each piece of 2, 3 … bytes, other ones for other lengths; 0 where it reaches into the padding."""
        found, numbers = [], text
        for length in range(_SHORTEST, min(self._longest, text.shape[1]) + 1):
            last = text[:, length - 1 :]
            numbers = (numbers[:, : last.shape[1]] * _BASE + last) * (last > 0)
            found.append(numbers)
        return found

    def _of_words(self, words: torch.Tensor) -> torch.Tensor:
        there = (words > 0).unsqueeze(1)
        vectors = F.dropout(self.vectors(words % self.vectors.num_embeddings), self._dropout, self.training)
        x = vectors.transpose(1, 2) * there
        filters = torch.cat([(convolve(x).relu() * there).amax(2) for convolve in self.convolutions], 1)
        answer: torch.Tensor = self.out(F.dropout(filters, self._dropout, self.training))
        return answer

    def _hashed_words(self, text: torch.Tensor) -> torch.Tensor:
        """A positive number for each of the first words (b, words), 0 where there are fewer."""
        kinds: torch.Tensor = self._kinds[text]  # type: ignore[index]
        before = F.pad(kinds, (1, 0))[:, :-1]
        begins = (kinds == _SIGN) | ((kinds == _LETTER) & (before != _LETTER))
        places = begins.cumsum(1)  # 1 in the first word; what stands between words is left out below
        position = torch.arange(text.shape[1], device=text.device).expand_as(text)
        starts = text.new_zeros(text.shape[0], text.shape[1] + 1).scatter_add(1, places * begins, position * begins)
        within = position - starts.gather(1, places)
        # A polynomial in a large base, whose powers are reduced so far that no sum leaves 64 bits.
        powers = self._powers(text.shape[1], text.device)
        parts = text * powers[within.clamp(min=0)] * (kinds != _SPACE)
        sums = text.new_zeros(text.shape[0], text.shape[1] + 1).scatter_add(1, places, parts)[:, 1:]
        sums = sums[:, : self._words]
        return F.pad(sums, (0, self._words - sums.shape[1]))

    @staticmethod
    def _powers(count: int, device: torch.device) -> torch.Tensor:
        """Powers (count,) of a base, modulo the prime 2 ** 31 - 1."""
        found, power = [], 1
        for _ in range(count):
            found.append(power)
            power = power * 1_000_003 % 2_147_483_647
        return torch.tensor(found, device=device)
