"""What a trained recogniser hears in what a trained voice says."""

import torch
from torch.nn.utils.rnn import pad_sequence

from phalanx import load
from phalanx.train.data.speech.alphabet import Alphabet
from phalanx.train.prepared.cache import Cache
from phalanx.train.tasks.speech.ctc_decoding import best_path
from phalanx.train.tasks.speech.edit_distance import edit_distance
from phalanx.train.tasks.speech.griffin_lim import griffin_lim
from phalanx.train.tasks.speech.text_to_mel import TextToMel
from tests.experiments.composed import data_set
from tests.experiments.speech_baselines import shuffled_error
from tests.ranks import Results


def heard_word_error_rates(recognition: Results, synthesis: Results, cache: Cache) -> dict[str, float]:
    """Word error rates of the recogniser on phrases that the voice was not trained on.

    `spoken` by the trained voice, `copied`: sound made of the recorded clips' features, `recorded`: the clips themselves,
    `shuffled`: of answering with another of these phrases.
    """
    data = data_set("speech_synthesis", "eval", cache)
    recorded = [data[i][0].float() / 32768 for i in range(len(data))]
    features = [data.collate([data[i]])["features"][0] for i in range(len(data))]
    task = TextToMel(data.features, data.alphabet.characters)
    sounds = {
        "spoken": task.speak(load(synthesis.folder).model(), data.texts),
        "copied": [griffin_lim(each, data.features) for each in features],
        "recorded": recorded,
    }
    found = {name: _error(recognition, waves, data.texts, cache) for name, waves in sounds.items()}
    return {**found, "shuffled": shuffled_error(data.texts)}


def _error(recognition: Results, waves: list[torch.Tensor], texts: list[str], cache: Cache) -> float:
    listening = data_set("speech_recognition", "train", cache)
    characters: Alphabet = listening.alphabet
    model = load(recognition.folder).model().eval()
    features, lengths = listening.features(pad_sequence(waves, batch_first=True), torch.tensor([len(w) for w in waves]))
    with torch.no_grad():
        logits, frames = model(features, lengths)
    edits = 0
    for text, row, count in zip(texts, logits.log_softmax(-1).numpy(), frames.tolist(), strict=True):
        edits += edit_distance(text.split(), characters.decode(best_path(row[:count])[0]).split())
    return edits / sum(len(text.split()) for text in texts)
