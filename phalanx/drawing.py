"""Pictures for a task's `show`, and metrics that are drawn: `phalanx.drawing.labelled_images(images, labels, answers)`."""

from typing import TYPE_CHECKING

from .common.lazy import handed_on

__all__ = [
    "ConfusionMatrix",
    "PredictedAgainstTrue",
    "attention",
    "boxes",
    "confusion_matrix",
    "labelled_images",
    "masks",
    "predicted_against_true",
    "spectrogram",
    "texts",
]

if TYPE_CHECKING:
    from .train.tasks.drawing.attention import attention
    from .train.tasks.drawing.boxes import boxes
    from .train.tasks.drawing.confusion_matrix import ConfusionMatrix, confusion_matrix
    from .train.tasks.drawing.labelled_images import labelled_images
    from .train.tasks.drawing.masks import masks
    from .train.tasks.drawing.predicted_against_true import PredictedAgainstTrue, predicted_against_true
    from .train.tasks.drawing.spectrogram import spectrogram
    from .train.tasks.drawing.texts import texts
else:
    __getattr__, __dir__ = handed_on(
        __package__,
        __name__,
        {
            "train.tasks.drawing.attention": ["attention"],
            "train.tasks.drawing.boxes": ["boxes"],
            "train.tasks.drawing.confusion_matrix": ["ConfusionMatrix", "confusion_matrix"],
            "train.tasks.drawing.labelled_images": ["labelled_images"],
            "train.tasks.drawing.masks": ["masks"],
            "train.tasks.drawing.predicted_against_true": ["PredictedAgainstTrue", "predicted_against_true"],
            "train.tasks.drawing.spectrogram": ["spectrogram"],
            "train.tasks.drawing.texts": ["texts"],
        },
    )
