"""What is said in referential games, measured: topographic similarity, vocabulary in use, length of messages, BLEU against captions.

`measure` plays a game and gives all that apply. The functions below it take messages and can be used by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64, Shaped
from sacrebleu.metrics.bleu import BLEU
from scipy import stats
from torch import Tensor

from agents.occupant import Occupant
from envs.captions import END, Person, lexicon, text_of
from envs.chance import Purpose, fold, seeds_of
from envs.referential import Referential
from training.rollout import Rollout
from training.seating import one_table

# Every pair of so many messages is compared: 79,800 pairs.
MOST_COMPARED = 400
# Whose descriptions stand for what can be said of a picture: people with whom no preset trains.
REFERENCE_PEOPLE = tuple(range(1000, 1008))


@torch.no_grad()
def measure(game: Referential, speaker: Occupant, listener: Occupant, trials: int = 512, seed: int = 20_260_101) -> dict[str, float]:
    """What a speaker says to a listener in the first message of `trials` games, on luck that no run trains on.

    accuracy, message_length: means. words_in_use, perplexity: see `vocabulary_in_use`. topographic_similarity: of messages with the
    targets' attributes, or with their features where those are shown. bleu: against the images' own captions, or against what simulated
    people say of the picture (only where the vocabulary holds their words), from 0 to 100.
    """
    rollout = Rollout(game, one_table(("speaker", "listener"), trials), {"speaker": speaker, "listener": listener}, keeps_states=True)
    _, log = rollout.play(rollout.start(seeds_of(seed, Purpose.EVALUATION, trials)), rollout.trial_steps)
    first_end, rows = log.ended.int().argmax(0), torch.arange(trials)
    messages, targets = log.game.said[first_end, rows, 0], log.game.objects[first_end, rows, 0]
    figures = {
        "accuracy": float(log.measures["accuracy"][first_end, rows].mean()),
        "message_length": float(message_lengths(messages).float().mean()),
        **vocabulary_in_use(messages),
        "topographic_similarity": topographic_similarity(game.meanings(targets), messages),
    }
    if game.shows == "features" or game.vocabulary >= len(lexicon(game.values)):
        figures["bleu"] = bleu([text_of(words, game.names) for words in messages.tolist()], references(game, targets))
    return figures


def message_lengths(messages: Int64[Tensor, "N L"]) -> Int64[Tensor, "N"]:
    """Words before the end of a message."""
    return (messages != END).long().cumprod(1).sum(1)


def vocabulary_in_use(messages: Int64[Tensor, "N L"]) -> dict[str, float]:
    """words_in_use: how many different words are said. perplexity: exp of their entropy, the number of words that would be as varied if all
    came equally often; 0 where nothing is said.
    """
    within = torch.arange(messages.shape[1]) < message_lengths(messages)[:, None]
    counts = messages[within].bincount()
    shares = counts[counts > 0].double() / counts.sum()
    perplexity = math.exp(-float((shares * shares.log()).sum())) if len(shares) else 0.0
    return {"words_in_use": float(len(shares)), "perplexity": perplexity}


def topographic_similarity(meanings: Shaped[Tensor, "N K"], messages: Int64[Tensor, "N L"]) -> float:
    """Spearman's correlation, over pairs, of the distance between two meanings with that between their messages (Brighton and Kirby 2006).

    Meanings: how many symbols differ; of real numbers, one minus the cosine. Messages: words to insert, delete or replace (Levenshtein).
    The first 400 are compared. NaN where all meanings or all messages are equally far apart.
    """
    meanings, messages = meanings[:MOST_COMPARED], messages[:MOST_COMPARED]
    first, second = torch.triu_indices(len(messages), len(messages), 1)
    if meanings.is_floating_point():
        apart = 1 - torch.nn.functional.cosine_similarity(meanings[first], meanings[second])
    else:
        apart = (meanings[first] != meanings[second]).sum(1)
    said = edit_distances(messages[first], messages[second])
    if len(first) < 2 or bool((apart == apart[0]).all()) or bool((said == said[0]).all()):
        return math.nan
    return float(stats.spearmanr(apart.numpy(), said.numpy()).statistic)


def edit_distances(a: Int64[Tensor, "N L"], b: Int64[Tensor, "N L"]) -> Int64[Tensor, "N"]:
    """Words to insert, delete or replace to make one message into the other, pair by pair; what follows a message's end does not count."""
    length = a.shape[1]
    ends_a, ends_b = message_lengths(a), message_lengths(b)
    # row[j]: from the first i words of a to the first j of b.
    row = torch.arange(length + 1).expand(len(a), -1)
    rows = [row]
    for i in range(length):
        after = [torch.full_like(ends_a, i + 1)]
        for j in range(length):
            replaced = row[:, j] + (a[:, i] != b[:, j])
            after.append(torch.minimum(replaced, 1 + torch.minimum(row[:, j + 1], after[j])))
        row = torch.stack(after, 1)
        rows.append(row)
    return torch.stack(rows, 1)[torch.arange(len(a)), ends_a, ends_b]


def bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU of up to four words at a time (Papineni et al. 2002), from 0 to 100, as sacrebleu computes it (Post 2018).

    references: per hypothesis, one or more. Words are set apart by spaces in both, capitals do not count.
    """
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        raise ValueError(f"references is {len(references)} lists for {len(hypotheses)} hypotheses; want one that is not empty for each")
    most = max(map(len, references))
    # sacrebleu wants the first references of all, then the second; where one is missing, None.
    streams: list[list[Any]] = [[several[which] if which < len(several) else None for several in references] for which in range(most)]
    return float(BLEU(lowercase=True, tokenize="none").corpus_score(list(hypotheses), streams).score)


def references(game: Referential, targets: Int64[Tensor, "N"]) -> list[list[str]]:
    """What people say of each target: the image's captions, or simulated people's descriptions, one of each."""
    if game.shows == "features":
        said = game.caption_set
        counted = zip(said.captions[targets.numpy()].tolist(), said.counts[targets.numpy()].tolist(), strict=True)
        return [[text_of(words, said.names) for words in several[:count]] for several, count in counted]
    meanings = game.meanings(targets)
    each = [
        Person(number, game.values).describe(meanings, fold(targets, Purpose.OCCUPANT, number), game.length) for number in REFERENCE_PEOPLE
    ]
    return [[text_of(words, game.names) for words in several] for several in torch.stack(each, 1).tolist()]
