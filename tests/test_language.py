"""Figures about messages, worked by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.co_players.referential import Captioner, ExactSpeaker, LiteralListener, SimulatedPerson
from envs.referential import Referential
from training.evaluation.language import (
    bleu,
    edit_distances,
    measure,
    message_lengths,
    references,
    topographic_similarity,
    vocabulary_in_use,
)

MESSAGES = torch.tensor([[1, 2, 0, 0], [3, 0, 5, 5], [0, 1, 1, 1], [1, 2, 3, 4]])


def test_a_message_is_as_long_as_up_to_its_end() -> None:
    assert message_lengths(MESSAGES).tolist() == [2, 1, 0, 4]


def test_only_words_that_are_said_are_in_use() -> None:
    # 1 2 | 3 | | 1 2 3 4: three words twice, one once.
    found = vocabulary_in_use(MESSAGES)
    assert found["words_in_use"] == 4
    assert found["perplexity"] == pytest.approx(math.exp(3 * (2 / 7) * math.log(7 / 2) + (1 / 7) * math.log(7)))
    assert vocabulary_in_use(torch.tensor([[1, 2], [2, 1]])) == pytest.approx({"words_in_use": 2, "perplexity": 2})
    assert vocabulary_in_use(torch.tensor([[0, 5]])) == {"words_in_use": 0, "perplexity": 0}


def test_distances_count_words_to_insert_delete_or_replace() -> None:
    pairs = [
        # The same; what follows the end does not count.
        ([1, 2, 0, 9], [1, 2, 0, 0], 0),
        ([1, 2, 3, 0], [1, 3, 0, 0], 1),
        ([1, 2, 3, 4], [2, 3, 4, 1], 2),
        ([0, 0, 0, 0], [5, 6, 7, 8], 4),
        ([1, 2, 3, 4], [5, 6, 7, 8], 4),
        # kitten and sitting, in letters of their own: k i t t e n, s i t t i n g.
        ([1, 2, 3, 3, 4, 5, 0], [6, 2, 3, 3, 2, 5, 7], 3),
    ]
    for first, second, distance in pairs:
        assert edit_distances(torch.tensor([first]), torch.tensor([second])).tolist() == [distance]
    several = torch.tensor([pairs[1][0], pairs[2][0]]), torch.tensor([pairs[1][1], pairs[2][1]])
    assert edit_distances(*several).tolist() == [1, 2]


def test_a_language_of_one_word_per_attribute_is_wholly_topographic() -> None:
    meanings = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert topographic_similarity(meanings, torch.tensor([[1, 3], [1, 4], [2, 3], [2, 4]])) == pytest.approx(1.0)
    # A word of its own for each: all messages are equally far apart.
    assert math.isnan(topographic_similarity(meanings, torch.tensor([[1, 0], [2, 0], [3, 0], [4, 0]])))


def test_topographic_similarity_is_a_rank_correlation_over_pairs() -> None:
    # Meanings are 1, 1, 2, 2, 1, 1 apart, messages 1, 2, 1, 1, 2, 1. Ranks: 2.5 and 5.5; 2.5 and 5.5. Two of six agree in being far,
    # none of four: covariance (2 (2) (-1) + 2 (-1) (2) + 2 (-1) (-1)) of 12: -1/2.
    meanings = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    messages = torch.tensor([[1, 1], [1, 2], [2, 2], [2, 1]])
    assert edit_distances(messages[[0, 0, 0, 1, 1, 2]], messages[[1, 2, 3, 2, 3, 3]]).tolist() == [1, 2, 1, 1, 2, 1]
    assert topographic_similarity(meanings, messages) == pytest.approx(-0.5)
    # 1, 3 and 2 apart, messages 1, 4 and 3: the same order, though no straight line.
    meanings, messages = torch.tensor([[0, 0, 0], [0, 0, 1], [1, 1, 1]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 2], [2, 2, 2, 2]])
    assert topographic_similarity(meanings, messages) == pytest.approx(1.0)


def test_real_meanings_are_compared_by_their_directions() -> None:
    # At 0, 45 and 90 degrees, however long.
    meanings = torch.tensor([[1.0, 0.0], [7.0, 7.0], [0.0, 2.0]])
    assert topographic_similarity(meanings, torch.tensor([[1, 1], [1, 2], [2, 2]])) == pytest.approx(1.0)


def test_bleu_is_100_for_the_same_words_and_0_for_others() -> None:
    sentence = "there is a small red circle"
    assert bleu([sentence], [[sentence, "something else"]]) == pytest.approx(100)
    assert bleu([sentence.upper()], [[sentence]]) == pytest.approx(100)
    assert bleu(["no word in common here"], [[sentence]]) < 5


def test_bleu_of_a_sentence_worked_by_hand() -> None:
    # a b c d e against a b c d f: 4/5, 3/4, 2/3, 1/2 of one to four words; their product is 1/5. No penalty: as long.
    assert bleu(["a b c d e"], [["a b c d f"]]) == pytest.approx(100 * 0.2**0.25)
    # Four words of five: precision 1 and the penalty exp(1 - 5 / 4).
    assert bleu(["a b c d"], [["a b c d f"]]) == pytest.approx(100 * math.exp(-0.25))


def test_bleu_takes_different_numbers_of_references() -> None:
    assert bleu(["a b c d", "e f g h"], [["x y", "a b c d"], ["e f g h"]]) == pytest.approx(100)
    with pytest.raises(ValueError, match=r"references is 1 lists for 2 hypotheses; want one that is not empty for each"):
        bleu(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match=r"references is 1 lists for 1 hypotheses"):
        bleu(["a"], [[]])


def test_who_names_exactly_scores_as_expected() -> None:
    game = Referential()
    found = measure(game, ExactSpeaker(), LiteralListener(), trials=300)
    assert found["accuracy"] == 1.0
    assert found["message_length"] == 5.0
    # Six nouns in two numbers, and 6 + 2 + 3 + 5 words.
    assert found["words_in_use"] == 28
    # Near 1, but a noun also changes with the number.
    assert 0.9 < found["topographic_similarity"] < 1
    assert 0 < found["bleu"] < 30


def test_people_sound_like_people() -> None:
    world = {"vocabulary": 32, "values": (4, 4)}
    # Number 1000 is one of those whose descriptions are the references, and says shape and colour every time; number 4 is none.
    own = measure(
        Referential(candidates=4, length=5, **world),
        SimulatedPerson(number=1000, length=5, **world),
        LiteralListener(4, **world),
        trials=100,
    )
    assert own["bleu"] == pytest.approx(100)
    stranger = measure(Referential(), SimulatedPerson(number=4), LiteralListener(), trials=200)
    assert 15 < stranger["bleu"] < 90
    assert 0.2 < stranger["topographic_similarity"] < 1


def test_a_vocabulary_without_peoples_words_has_no_bleu() -> None:
    game = Referential(candidates=3, length=2, vocabulary=10, values=(3, 3))

    class Silent:
        def start(self, seeds):
            return (seeds,)

        def act(self, observation, state, reward=None):
            from agents.occupant import Decision

            return Decision(torch.zeros_like(state[0])), state

    found = measure(game, Silent(), Silent(), trials=60)
    assert "bleu" not in found
    assert (found["message_length"], found["words_in_use"]) == (0, 0)
    assert math.isnan(found["topographic_similarity"])
    assert 0.15 < found["accuracy"] < 0.55


def test_captions_are_their_own_best_translation(tmp_path: Path) -> None:
    texts = [
        ["a red bus in the street", "one red bus"],
        ["a dog runs on the grass"],
        ["two cats on a sofa"],
        ["some green trees in a park"],
    ]
    data = {
        "images": [{"id": k} for k in range(4)],
        "annotations": [{"image_id": k, "caption": text} for k, several in enumerate(texts) for text in several],
    }
    (tmp_path / "c.json").write_text(json.dumps(data))
    np.save(tmp_path / "f.npy", np.eye(4, dtype=np.float32))
    files = {"captions": str(tmp_path / "c.json"), "features": str(tmp_path / "f.npy")}
    game = Referential(candidates=2, length=6, vocabulary=40, shows="features", **files)

    class First:
        def start(self, seeds):
            return (seeds,)

        def act(self, observation, state, reward=None):
            from agents.occupant import Decision

            return Decision(torch.zeros_like(state[0])), state

    found = measure(game, Captioner(vocabulary=40, length=6, **files), First(), trials=100)
    assert found["bleu"] == pytest.approx(100)
    assert references(game, torch.tensor([1, 0])) == [["a dog runs on the grass"], ["a red bus in the street", "one red bus"]]
