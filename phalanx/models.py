"""Models, by the names that configs use: `model._target_=phalanx.models.ConvNet`."""

from typing import TYPE_CHECKING

from .common.lazy import handed_on

__all__ = [
    "GPT",
    "MLP",
    "ConvGRU",
    "ConvNet",
    "EncoderDecoder",
    "FastSpeech",
    "MatrixFactorization",
    "NeuMF",
    "NgramClassifier",
    "SmallFCOS",
    "TextEncoder",
    "TwoTower",
    "UNet",
    "VideoNet",
]

if TYPE_CHECKING:
    from .train.models.convnet import ConvNet
    from .train.models.language.encoder_decoder import EncoderDecoder
    from .train.models.language.gpt import GPT
    from .train.models.language.ngram_classifier import NgramClassifier
    from .train.models.language.text_encoder import TextEncoder
    from .train.models.mlp import MLP
    from .train.models.ratings.matrix_factorization import MatrixFactorization
    from .train.models.ratings.neural_collaborative_filtering import NeuMF
    from .train.models.ratings.two_tower import TwoTower
    from .train.models.speech.conv_gru import ConvGRU
    from .train.models.speech.fast_speech import FastSpeech
    from .train.models.vision.small_fcos import SmallFCOS
    from .train.models.vision.unet import UNet
    from .train.models.vision.video_net import VideoNet
else:
    __getattr__, __dir__ = handed_on(
        __package__,
        __name__,
        {
            "train.models.convnet": ["ConvNet"],
            "train.models.language.encoder_decoder": ["EncoderDecoder"],
            "train.models.language.gpt": ["GPT"],
            "train.models.language.ngram_classifier": ["NgramClassifier"],
            "train.models.language.text_encoder": ["TextEncoder"],
            "train.models.mlp": ["MLP"],
            "train.models.speech.conv_gru": ["ConvGRU"],
            "train.models.speech.fast_speech": ["FastSpeech"],
            "train.models.vision.small_fcos": ["SmallFCOS"],
            "train.models.vision.unet": ["UNet"],
            "train.models.vision.video_net": ["VideoNet"],
            "train.models.ratings.matrix_factorization": ["MatrixFactorization"],
            "train.models.ratings.neural_collaborative_filtering": ["NeuMF"],
            "train.models.ratings.two_tower": ["TwoTower"],
        },
    )
