"""Data sets and augmentations, by the names that configs use: `data.train._target_=phalanx.data.Digits`."""

from typing import TYPE_CHECKING

from .common.lazy import handed_on

__all__ = ["MNIST", "Digits", "Images", "LogMel", "ShiftRotate", "SpecAugment", "TextTable"]

if TYPE_CHECKING:
    from .train.data.augment import ShiftRotate
    from .train.data.digits import Digits
    from .train.data.images import Images
    from .train.data.mnist import MNIST
    from .train.data.speech.log_mel import LogMel
    from .train.data.speech.spec_augment import SpecAugment
    from .train.data.text.labelled_texts import TextTable
else:
    __getattr__, __dir__ = handed_on(
        __package__,
        __name__,
        {
            "train.data.speech.log_mel": ["LogMel"],
            "train.data.speech.spec_augment": ["SpecAugment"],
            "train.data.augment": ["ShiftRotate"],
            "train.data.digits": ["Digits"],
            "train.data.images": ["Images"],
            "train.data.mnist": ["MNIST"],
            "train.data.text.labelled_texts": ["TextTable"],
        },
    )
