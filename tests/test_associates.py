"""Paired associates and transitive inference by hand, and by a reader who knows only what was shown."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from envs.associates import AssociatesState, PairedAssociates, TransitiveInference
from envs.chance import Purpose, seeds_of
from tests.games import AnyLegal, told
from tests.test_golden import assert_golden

LEARN, WAIT, ASK = range(3)


def seeds(count):
    return seeds_of(20251123, Purpose.TRIAL, count)


def shown(game, state):
    """What is seen of one game, as numbers."""
    return {field: value.item() for field, value in game.observe(state)["learner"].items()}


def act(game, state, action):
    after, turn = game.step(state, {"learner": torch.tensor([[action]])})
    return after, turn.rewards["learner"].item(), {name: value.item() for name, value in turn.measures.items()}, turn.over.item()


def at(game, step, order=(2, 0, 1, 3), items=(5, 6, 7, 1, 2, 3)):
    """Two chains, 5 6 7 and 1 2 3, or the order 5 > 6 > 7 > 1 > 2 > 3."""
    return AssociatesState(*(torch.tensor([part]) for part in (9, step, items, order, -1)))


def watched(game, count):
    """For each of many games: [(what is seen, the right action, whether it is asked, measures and reward if it is given)]."""
    state, games = game.start(seeds(count)), [[] for _ in range(count)]
    for _ in range(game.max_steps):
        answer = game.answers(state)["learner"]
        seen = {field: value[:, 0].tolist() for field, value in game.observe(state)["learner"].items()}
        state, turn = game.step(state, {"learner": answer.action})
        measures = {name: value.tolist() for name, value in turn.measures.items()}
        columns = (answer.action[:, 0].tolist(), answer.asked[:, 0].tolist(), turn.rewards["learner"][:, 0].tolist())
        for row, (right, asked, reward) in enumerate(zip(*columns, strict=True)):
            of_row = ({name: values[row] for name, values in table.items()} for table in (seen, measures))
            games[row].append((next(of_row), right, asked, next(of_row), reward))
    return games


class TestPairedAssociates:
    game = PairedAssociates(chains=2, delay=1, questions=2)

    def test_every_pair_is_shown_in_the_order_of_the_state(self):
        pairs = []
        for step in range(4):
            seen = shown(self.game, at(self.game, step))
            assert (seen["phase"], seen["cue"]) == (LEARN, 0)
            pairs.append({seen["left"] - 1, seen["right"] - 1})
        assert pairs == [{1, 2}, {5, 6}, {6, 7}, {2, 3}]

    def test_then_nothing_is_shown_and_then_questions_come(self):
        assert shown(self.game, at(self.game, 4)) == {"phase": WAIT, "left": 0, "right": 0, "cue": 0}
        for step in (5, 6):
            seen = shown(self.game, at(self.game, step))
            assert seen["phase"] == ASK
            chains = [0 if seen[field] - 1 in (5, 6, 7) else 1 for field in ("cue", "left", "right")]
            assert sorted(chains[1:]) == [0, 1]
            right = chains[1:].index(chains[0])
            answer = self.game.answers(at(self.game, step))["learner"]
            assert (answer.action.item(), answer.asked.item()) == (right, True)
            for action in (0, 1):
                _, reward, measures, over = act(self.game, at(self.game, step), action)
                assert (reward, measures["correct"], over) == (float(action == right), float(action == right), step == 6)

    def test_nothing_is_earned_before_the_questions(self):
        for step in range(5):
            for action in (0, 1):
                _, reward, measures, over = act(self.game, at(self.game, step), action)
                assert (reward, over) == (0.0, False)
                assert all(math.isnan(value) for value in measures.values())
            assert not self.game.answers(at(self.game, step))["learner"].asked.item()

    def test_whoever_follows_the_pairs_shown_answers_everything(self):
        kinds = set()
        for steps in watched(PairedAssociates(chains=3, length=4, questions=5), 60):
            neighbours: dict[int, set[int]] = {}
            for seen, right, asked, measures, reward in steps:
                left_symbol, right_symbol = seen["left"], seen["right"]
                if seen["phase"] == LEARN:
                    neighbours.setdefault(left_symbol, set()).add(right_symbol)
                    neighbours.setdefault(right_symbol, set()).add(left_symbol)
                    continue
                far = distances(neighbours, seen["cue"])
                assert asked
                assert (left_symbol in far) != (right_symbol in far)
                assert right == int(right_symbol in far)
                distance = far[right_symbol if right else left_symbol]
                kinds.add(distance)
                assert (reward, measures["correct"]) == (1.0, 1.0)
                assert math.isnan(measures["correct_seen"]) == (distance > 1)
                assert math.isnan(measures["correct_inferred"]) == (distance == 1)
        assert kinds == {1, 2, 3}

    def test_the_lure_stands_at_the_same_place_of_another_chain(self):
        game = PairedAssociates(chains=2, questions=1)
        mirror = {5: 1, 6: 2, 7: 3, 1: 5, 2: 6, 3: 7}
        for seed in range(20):
            seen = shown(game, at(game, 4)._replace(seed=torch.tensor([seed])))
            assert mirror[seen["left"] - 1] == seen["right"] - 1

    def test_the_right_answer_stands_on_either_side_as_often_whatever_was_asked(self):
        right = [step[1] for steps in watched(PairedAssociates(questions=20), 50) for step in steps if step[2]]
        assert stats.binomtest(sum(right), len(right)).pvalue > 0.001

    def test_words(self):
        game = self.game
        assert game.describe(at(game, 0), 0).text == "before step 1 of 7: 4 pairs to learn, then 2 questions"
        state, *_ = act(game, at(game, 0), 0)
        assert game.describe(state, 0).text in ("learn 1 of 4: 1 goes with 2", "learn 1 of 4: 2 goes with 1")
        state, *_ = act(game, at(game, 4), 0)
        assert game.describe(state, 0).text == "step 5: nothing to see"
        seen = shown(game, at(game, 5))
        right = game.answers(at(game, 5))["learner"].action.item()
        told = [game.describe(act(game, at(game, 5), action)[0], 0).text for action in (right, 1 - right)]
        cue, left, other = (seen[field] - 1 for field in ("cue", "left", "right"))
        says = [(left, other)[action] for action in (right, 1 - right)]
        start = f"question 1 of 2: with {cue} goes {left} or {other}? says"
        kind = "shown" if 6 in (cue, says[0]) or 2 in (cue, says[0]) else "inferred"
        assert told == [f"{start} {says[0]}, right, +1 ({kind})", f"{start} {says[1]}, wrong ({kind})"]


def distances(neighbours, start):
    """Steps to every symbol that pairs shown lead to."""
    far, edge = {start: 0}, [start]
    while edge:
        one = edge.pop(0)
        for other in neighbours[one] - far.keys():
            far[other] = far[one] + 1
            edge.append(other)
    return far


class TestTransitiveInference:
    game = TransitiveInference(length=6, questions=30)

    def test_of_a_pair_shown_the_greater_is_on_the_left(self):
        state = at(self.game, 0, order=(2, 0, 1, 3, 4))
        pairs = []
        for _ in range(5):
            seen = shown(self.game, state)
            pairs.append((seen["phase"], seen["left"] - 1, seen["right"] - 1))
            state, *_ = act(self.game, state, 0)
        assert pairs == [(LEARN, 7, 1), (LEARN, 5, 6), (LEARN, 6, 7), (LEARN, 1, 2), (LEARN, 2, 3)]
        assert "cue" not in self.game.roles[0].observation_space.spaces

    def test_any_two_may_be_asked_and_the_greater_is_right(self):
        rank = {symbol: place for place, symbol in enumerate((5, 6, 7, 1, 2, 3))}
        kinds = {}
        for step in range(5, 35):
            state = at(self.game, step, order=(2, 0, 1, 3, 4))
            seen = shown(self.game, state)
            left, right = rank[seen["left"] - 1], rank[seen["right"] - 1]
            answer = int(right < left)
            assert self.game.answers(state)["learner"].action.item() == answer
            _, reward, measures, _ = act(self.game, state, answer)
            _, nothing, wrong, _ = act(self.game, state, 1 - answer)
            assert (reward, nothing, measures["correct"], wrong["correct"]) == (1.0, 0.0, 1.0, 0.0)
            is_seen, has_end = abs(left - right) == 1, {left, right} & {0, 5}
            kinds[(is_seen, bool(has_end))] = True
            assert math.isnan(measures["correct_seen"]) != is_seen
            assert math.isnan(measures["correct_inferred"]) == bool(is_seen or has_end)
        assert len(kinds) == 4

    def test_whoever_chains_what_was_shown_answers_everything(self):
        for steps in watched(TransitiveInference(length=5), 50):
            below = {seen["left"]: seen["right"] for seen, *_ in steps if seen["phase"] == LEARN}
            top = (set(below) - set(below.values())).pop()
            order = [top]
            while order[-1] in below:
                order.append(below[order[-1]])
            assert len(order) == 5
            for seen, right, asked, _, reward in steps:
                if asked:
                    assert right == int(order.index(seen["right"]) < order.index(seen["left"]))
                    assert reward == 1.0

    def test_words(self):
        state = at(self.game, 0, order=(2, 0, 1, 3, 4))
        told, _ = self.game.step(state, {"learner": torch.tensor([[1]])})
        assert self.game.describe(told, 0).text == "learn 1 of 5: 7 is greater than 1"
        texts = [self.game.describe(act(self.game, at(self.game, step, (2, 0, 1, 3, 4)), 0)[0], 0).text for step in range(5, 35)]
        for end in ("+1 (shown)", "+1 (inferred)", "+1 (with an end)", "wrong (shown)", "wrong (inferred)", "wrong (with an end)"):
            assert any(text.endswith(end) for text in texts), end


@pytest.mark.parametrize(
    ("name", "game"), [("paired_associates", PairedAssociates(delay=1)), ("transitive_inference", TransitiveInference(delay=1))]
)
def test_whole_playthrough(name, game):
    lines = told(game, ("learner",), {"learner": AnyLegal(game.roles[0])}, torch.tensor([1]), game.max_steps)
    assert_golden(f"{name}_whole.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("game", [PairedAssociates(passes=3), TransitiveInference(passes=3)])
def test_every_pass_shows_every_pair_once_in_an_order_of_its_own(game):
    order = game.start(seeds(200)).order.unflatten(1, (3, game.pairs)).numpy()
    assert (np.sort(order, 2) == np.arange(game.pairs)).all()
    assert (order[:, 0] != order[:, 1]).any(1).mean() > 0.9
    assert stats.chisquare(np.bincount(order[:, 2, 0])).pvalue > 0.001


def test_symbols_are_dealt_anew_and_none_twice():
    items = PairedAssociates(symbols=13).start(seeds(2000)).items.numpy()
    assert all(len(set(row)) == 12 for row in items)
    assert stats.chisquare(np.bincount(items.flatten())).pvalue > 0.001


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PairedAssociates(chains=1), "chains is 1; want from 2"),
        (lambda: PairedAssociates(length=1), "length is 1; want from 2"),
        (lambda: TransitiveInference(length=1), "length is 1; want from 2"),
        (lambda: PairedAssociates(symbols=11), "symbols is 11; want at least one for each of 12 items"),
        (lambda: TransitiveInference(symbols=6), "symbols is 6; want at least one for each of 7 items"),
        (lambda: PairedAssociates(passes=0), "passes is 0; want from 1"),
        (lambda: PairedAssociates(delay=-1), "delay is -1; want from 0"),
        (lambda: TransitiveInference(questions=0), "questions is 0; want from 1"),
    ],
)
def test_bad_settings_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
