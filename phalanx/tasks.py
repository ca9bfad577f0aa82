"""Tasks, by the names that configs use: `task._target_=phalanx.tasks.Classification`."""

from typing import TYPE_CHECKING

from .common.lazy import handed_on

__all__ = [
    "CTC",
    "Classification",
    "Detection",
    "LanguageModeling",
    "ModelLoss",
    "RatingPrediction",
    "Segmentation",
    "TextToMel",
    "Translation",
    "VideoClassification",
]

if TYPE_CHECKING:
    from .train.tasks.classification import Classification
    from .train.tasks.detection import Detection
    from .train.tasks.language.language_modeling import LanguageModeling
    from .train.tasks.language.translation import Translation
    from .train.tasks.model_loss import ModelLoss
    from .train.tasks.ratings.rating_prediction import RatingPrediction
    from .train.tasks.speech.ctc import CTC
    from .train.tasks.speech.text_to_mel import TextToMel
    from .train.tasks.vision.segmentation import Segmentation
    from .train.tasks.vision.video_classification import VideoClassification
else:
    __getattr__, __dir__ = handed_on(
        __package__,
        __name__,
        {
            "train.tasks.classification": ["Classification"],
            "train.tasks.detection": ["Detection"],
            "train.tasks.language.language_modeling": ["LanguageModeling"],
            "train.tasks.language.translation": ["Translation"],
            "train.tasks.model_loss": ["ModelLoss"],
            "train.tasks.speech.ctc": ["CTC"],
            "train.tasks.speech.text_to_mel": ["TextToMel"],
            "train.tasks.vision.segmentation": ["Segmentation"],
            "train.tasks.vision.video_classification": ["VideoClassification"],
            "train.tasks.ratings.rating_prediction": ["RatingPrediction"],
        },
    )
