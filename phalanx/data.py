"""Data sets and augmentations, by the names that configs use: `data.train._target_=phalanx.data.Digits`."""

from typing import TYPE_CHECKING

from .common.lazy import handed_on

__all__ = [
    "MNIST",
    "Apt",
    "AudioFolder",
    "BlueMarble",
    "Cache",
    "CenterCrop",
    "Cifar10",
    "CocoDetection",
    "CropFlip",
    "DigitScenes",
    "Digits",
    "Download",
    "ImageFolder",
    "Images",
    "LogMel",
    "MappedArray",
    "MaskFolder",
    "MixupCutmix",
    "MovieLens",
    "MovingDigits",
    "Npm",
    "Output",
    "PackageSections",
    "PackageTranslations",
    "PadCropFlip",
    "Pip",
    "RandomCrop",
    "RatedSentences",
    "RatingTable",
    "Ratings",
    "Recipe",
    "Recordings",
    "Shakespeare",
    "ShiftRotate",
    "SpecAugment",
    "SpokenWords",
    "TextFiles",
    "TextPairs",
    "TextTable",
    "Tokens",
    "Url",
    "WaterTiles",
]

if TYPE_CHECKING:
    from .train.data.augment import ShiftRotate
    from .train.data.digits import Digits
    from .train.data.images import Images
    from .train.data.mnist import MNIST
    from .train.data.ratings.movielens import MovieLens
    from .train.data.ratings.ratings import Ratings, RatingTable
    from .train.data.speech.audio_folder import AudioFolder
    from .train.data.speech.log_mel import LogMel
    from .train.data.speech.recordings import Recordings
    from .train.data.speech.spec_augment import SpecAugment
    from .train.data.speech.spoken_words import SpokenWords
    from .train.data.text.labelled_texts import TextTable
    from .train.data.text.pairs.debian_packages import PackageSections, PackageTranslations
    from .train.data.text.pairs.text_pairs import TextPairs
    from .train.data.text.rated_sentences import RatedSentences
    from .train.data.text.shakespeare import Shakespeare
    from .train.data.text.text_files import TextFiles
    from .train.data.text.windows import Tokens
    from .train.data.vision.blue_marble import BlueMarble
    from .train.data.vision.cifar10 import Cifar10
    from .train.data.vision.coco_detection import CocoDetection
    from .train.data.vision.crop_flip import CropFlip
    from .train.data.vision.digit_scenes import DigitScenes
    from .train.data.vision.files.crops import CenterCrop, RandomCrop
    from .train.data.vision.files.image_folder import ImageFolder
    from .train.data.vision.mask_folder import MaskFolder
    from .train.data.vision.mixup_cutmix import MixupCutmix
    from .train.data.vision.moving_digits import MovingDigits
    from .train.data.vision.pad_crop_flip import PadCropFlip
    from .train.data.vision.water_tiles import WaterTiles
    from .train.prepared.cache import Cache, Output, Recipe
    from .train.prepared.downloads import Apt, Download, Npm, Pip, Url
    from .train.prepared.mapped_array import MappedArray
else:
    __getattr__, __dir__ = handed_on(
        __package__,
        __name__,
        {
            "train.data.augment": ["ShiftRotate"],
            "train.data.digits": ["Digits"],
            "train.data.images": ["Images"],
            "train.data.mnist": ["MNIST"],
            "train.data.speech.log_mel": ["LogMel"],
            "train.data.speech.spec_augment": ["SpecAugment"],
            "train.data.text.labelled_texts": ["TextTable"],
            "train.data.text.windows": ["Tokens"],
            "train.data.vision.cifar10": ["Cifar10"],
            "train.data.vision.coco_detection": ["CocoDetection"],
            "train.data.vision.crop_flip": ["CropFlip"],
            "train.data.vision.digit_scenes": ["DigitScenes"],
            "train.data.vision.mask_folder": ["MaskFolder"],
            "train.data.vision.moving_digits": ["MovingDigits"],
            "train.data.vision.files.crops": ["CenterCrop", "RandomCrop"],
            "train.data.vision.files.image_folder": ["ImageFolder"],
            "train.data.vision.mixup_cutmix": ["MixupCutmix"],
            "train.data.vision.pad_crop_flip": ["PadCropFlip"],
            "train.data.vision.water_tiles": ["WaterTiles"],
            "train.prepared.cache": ["Cache", "Output", "Recipe"],
            "train.prepared.downloads": ["Apt", "Download", "Npm", "Pip", "Url"],
            "train.prepared.mapped_array": ["MappedArray"],
            "train.data.ratings.movielens": ["MovieLens"],
            "train.data.ratings.ratings": ["RatingTable", "Ratings"],
            "train.data.text.shakespeare": ["Shakespeare"],
            "train.data.text.text_files": ["TextFiles"],
            "train.data.vision.blue_marble": ["BlueMarble"],
            "train.data.speech.audio_folder": ["AudioFolder"],
            "train.data.speech.recordings": ["Recordings"],
            "train.data.speech.spoken_words": ["SpokenWords"],
            "train.data.text.pairs.debian_packages": ["PackageSections", "PackageTranslations"],
            "train.data.text.pairs.text_pairs": ["TextPairs"],
            "train.data.text.rated_sentences": ["RatedSentences"],
        },
    )
