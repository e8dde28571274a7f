"""Linear regression, modular addition, sorting and the partner with moods, by hand; their best guessers against oracles."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from agents.co_players.diagnostics import MoodReader, Ridge
from envs.chance import Purpose, seeds_of
from envs.diagnostics.hidden_markov import HiddenMarkov, MoodState
from envs.diagnostics.linear_regression import (
    LinearRegression,
    RegressionState,
    attention_loss,
    attention_mu,
    gradient_step_loss,
    least_squares_loss,
    ridge_loss,
    zero_loss,
)
from envs.diagnostics.modular_addition import AdditionState, ModularAddition
from envs.diagnostics.sorting import Sorting, SortingState
from tests.games import told
from tests.test_golden import assert_golden
from training.evaluation.suites import FOCAL, alone
from training.experiment import Experiment
from training.occupants import check_fits
from training.population import co_player
from training.rollout import Rollout
from training.seating import one_table
from training.settings import BadInput

LUCK = 20251123


def seeds(count, first=0):
    return seeds_of(LUCK, Purpose.TRIAL, count, first=first)


def act(game, state, action):
    """One step of one game: (state, reward, turn)."""
    role = game.roles[0].name
    after, turn = game.step(state, {role: torch.tensor([[action]])})
    return after, turn.rewards[role].item(), turn


def played(game, occupant, count):
    """[steps, games] of every measure, one episode of each game with an occupant in its only seat."""
    role = game.roles[0].name
    state, own = game.start(seeds(count)), occupant.start(seeds(count, first=count))
    measured, reward = [], torch.zeros(count)
    for _ in range(game.max_steps):
        observation = {field: values[:, 0] for field, values in game.observe(state)[role].items()}
        decision, own = occupant.act(observation, own, reward)
        state, turn = game.step(state, {role: decision.action[:, None]})
        reward = turn.rewards[role][:, 0]
        measured.append(turn.measures)
    return {name: torch.stack([step[name] for step in measured]) for name in measured[0]}


class TestLinearRegression:
    game = LinearRegression(dimensions=2, pairs=2, bound=2.0)

    def open_question(self, y=-1.5, step=0):
        numbers = (torch.tensor([n]) for n in ([1.0, 2.0], [0.5, -1.0], y, 0.25, 0.75))
        return RegressionState(torch.tensor([7]), torch.tensor([step]), *numbers)

    def test_a_guess_costs_its_squared_error_and_then_the_answer_is_told(self):
        state, reward, turn = act(self.game, self.open_question(), -1.0)
        assert reward == -0.25
        assert turn.measures["squared_error"].tolist() == [0.25]
        assert self.game.observe(state)["guesser"]["y_before"].tolist() == [[-1.5]]

    def test_the_question_is_shown_and_the_answer_is_not(self):
        seen = self.game.observe(self.open_question())["guesser"]
        assert seen.keys() == {"x", "y_before"}
        assert seen["x"].tolist() == [[[0.5, -1.0]]]
        assert seen["y_before"].tolist() == [[0.25]]

    def test_the_last_error_is_that_of_the_question_after_all_pairs(self):
        turns = [act(self.game, self.open_question(step=step), -1.0)[2] for step in range(3)]
        assert [turn.over.item() for turn in turns] == [False, False, True]
        assert [math.isnan(turn.measures["last_squared_error"].item()) for turn in turns] == [True, True, False]
        assert turns[2].measures["last_squared_error"].item() == 0.25

    def test_the_right_action_is_the_answer_or_the_bound_next_to_it(self):
        assert self.game.answers(self.open_question())["guesser"].action.tolist() == [[-1.5]]
        assert self.game.answers(self.open_question(y=5.0))["guesser"].action.tolist() == [[2.0]]

    def test_without_noise_every_answer_is_the_product_with_the_same_weights(self):
        game = LinearRegression(dimensions=3, noise=0.0)
        state = game.start(seeds(5))
        weights = state.weights.numpy()
        for _ in range(3):
            np.testing.assert_allclose(state.y.numpy(), np.einsum("bd,bd->b", weights, state.x.numpy()), rtol=1e-5, atol=1e-6)
            state, _ = game.step(state, {"guesser": torch.zeros(5, 1)})
        assert np.array_equal(state.weights.numpy(), weights)

    def test_questions_weights_and_noise_are_normal_with_the_variances_promised(self):
        game = LinearRegression(dimensions=4, noise=0.25)
        state = game.start(seeds(20_000))
        noise = state.y - (state.x * state.weights).sum(1)
        assert stats.kstest(state.x.flatten().numpy(), stats.norm(0, 1).cdf).pvalue > 0.001
        assert stats.kstest(state.weights.flatten().numpy(), stats.norm(0, 0.5).cdf).pvalue > 0.001
        assert stats.kstest(noise.numpy(), stats.norm(0, 0.5).cdf).pvalue > 0.001
        numbers = torch.cat([state.x, state.weights, noise[:, None]], 1)
        assert (torch.corrcoef(numbers.T) - torch.eye(9)).abs().max() < 0.04

    def test_known_predictors_lose_what_the_literature_says(self):
        game = LinearRegression()
        assert round(zero_loss(game), 2) == 1.10
        assert round(gradient_step_loss(game), 2) == 0.24
        x = torch.from_numpy(np.random.default_rng(0).normal(size=(4000, 40, 5))).float()
        # Stated as 0.113, from 20,000 squared errors, whose mean is off by some 0.001.
        assert ridge_loss(game, x).mean().item() == pytest.approx(0.113, abs=0.002)

    @staticmethod
    def attention_loses(omega, mu=None):
        """Mean loss of heads at the last question; mu: by the closed form if None."""
        game, omega = LinearRegression(), torch.tensor(omega, dtype=torch.float64)
        luck = np.random.default_rng(5)
        x, question = (torch.from_numpy(luck.normal(size=shape)).float() for shape in ((20_000, 40, 5), (20_000, 5)))
        mu = attention_mu(game, omega) if mu is None else torch.tensor(mu, dtype=torch.float64)
        return attention_loss(game, x, question, omega, mu).mean().item()

    def test_one_head_of_softmax_attention_loses_what_the_literature_says(self):
        # Stated as 0.41, from 20,000 squared errors, whose mean is off by some 0.005. The closed form thinks 1 / sqrt(5) the best omega.
        assert self.attention_loses([5**-0.5]) == pytest.approx(0.41, abs=0.01)
        grid = [(omega, mu) for omega in (0.4, 0.5, 0.6) for mu in (1.3, 1.5, 1.7)]
        losses = {point: self.attention_loses(*([number] for number in point)) for point in grid}
        assert min(losses, key=losses.get) == (0.5, 1.5)
        assert losses[0.5, 1.5] == pytest.approx(0.41, abs=0.01)

    def test_two_opposite_heads_come_as_near_as_one_likes_to_one_step_of_gradient_descent_about_the_means(self):
        losses = [self.attention_loses([omega, -omega]) for omega in (0.02, 0.2, 0.35, 0.5)]
        assert losses == sorted(losses)
        # Taking the mean off costs a pair.
        assert losses[0] == pytest.approx(gradient_step_loss(LinearRegression(pairs=39)), abs=0.003)
        # Stated as 0.25, from 20,000 squared errors, whose mean is off by some 0.003.
        assert losses[0] == pytest.approx(0.25, abs=0.008)

    def test_attention_by_hand(self):
        # w . 3 + noise is guessed to be 0.5 (w . 2 + noise): missed are w . 2, and noise of 0.1 and 0.1 / 4.
        one, half = torch.tensor([0.7]).double(), torch.tensor([0.5]).double()
        loss = attention_loss(LinearRegression(1, 1), torch.tensor([[[2.0]]]), torch.tensor([[3.0]]), one, half)
        assert loss.item() == pytest.approx(4 + 0.1 + 0.025)
        # With L = 1, d = 1 and no noise: (0.49 + exp 0.49) mu = 0.7.
        assert attention_mu(LinearRegression(1, 1, noise=0.0), one).item() == pytest.approx(0.7 / (0.49 + math.exp(0.49)))

    def test_attentions_loss_is_the_mean_of_squared_errors(self):
        luck = np.random.default_rng(6)
        x, question, weights, noise = (luck.normal(size=shape) for shape in ((40, 5), 5, (200_000, 5), (200_000, 41)))
        weights, noise = weights / np.sqrt(5), noise * np.sqrt(0.1)
        omega, mu = (0.4, -0.3), (1.5, -1.0)
        answers, guess = weights @ x.T + noise[:, :40], 0.0
        for one, out in zip(omega, mu, strict=True):
            share = np.exp(one * x @ question)
            guess = guess + out * answers @ (share / share.sum())
        error = (guess - weights @ question - noise[:, 40]) ** 2
        arguments = (
            torch.from_numpy(numbers)
            for numbers in (x.astype(np.float32)[None], question.astype(np.float32)[None], *map(np.array, (omega, mu)))
        )
        assert attention_loss(LinearRegression(), *arguments).item() == pytest.approx(error.mean(), abs=4 * error.std() / 200_000**0.5)

    def test_least_squares_loses_what_the_inverse_wishart_distribution_says(self):
        # 0.1 (1 + 5 / 34)
        assert least_squares_loss(LinearRegression()) == pytest.approx(0.1147059)
        assert least_squares_loss(LinearRegression(pairs=6)) == math.inf
        x = torch.from_numpy(np.random.default_rng(1).normal(size=(4000, 40, 5))).float()
        assert ridge_loss(LinearRegression(), x, strength=0.0).mean().item() == pytest.approx(0.1147059, abs=2e-4)

    def test_no_ridge_is_better_than_the_bayes_predictors(self):
        x = torch.from_numpy(np.random.default_rng(2).normal(size=(2000, 10, 5))).float()
        bayes, *others = (ridge_loss(LinearRegression(), x, strength).mean().item() for strength in (None, 0.25, 1.0))
        assert bayes < min(others)

    def test_ridge_regression_by_hand(self):
        # In one dimension with strength 1: w = sum(x y) / (sum(x x) + 1). 2 * 4 / 5 = 1.6; (8 + 1) / 6 = 1.5.
        guesser = Ridge(dimensions=1, noise=1.0, bound=10.0)
        state, guesses = guesser.start(torch.tensor([0])), []
        for x, y_before in ((2.0, 0.0), (1.0, 4.0), (2.0, 1.0), (-20.0, 3.0)):
            seen = {"x": torch.tensor([[x]]), "y_before": torch.tensor([y_before])}
            decision, state = guesser.act(seen, state, torch.zeros(1))
            guesses.append(decision.action.item())
        assert guesses == pytest.approx([0.0, 1.6, 3.0, -10.0])

    def test_ridge_regression_agrees_with_solving_the_whole_system(self):
        x, y = np.random.default_rng(3).normal(size=(9, 5)), np.random.default_rng(4).normal(size=9)
        guesser = Ridge(strength=0.7, bound=100.0)
        state = guesser.start(torch.tensor([0]))
        for step in range(9):
            told = torch.tensor([y[step - 1] if step else 0.0]).float()
            decision, state = guesser.act({"x": torch.tensor(x[None, step]).float(), "y_before": told}, state, torch.zeros(1))
        solved = np.linalg.solve(x[:8].T @ x[:8] + 0.7 * np.eye(5), x[:8].T @ y[:8])
        assert decision.action.item() == pytest.approx(x[8] @ solved, abs=1e-4)

    def test_at_play_ridge_regression_reaches_the_bayes_loss(self):
        measured = played(LinearRegression(), Ridge(), 8192)
        # The mean of 8,192 squared errors of about 0.113 is off by some 0.002.
        assert measured["last_squared_error"][-1].mean().item() == pytest.approx(0.1144, abs=0.006)
        assert measured["squared_error"][0].mean().item() == pytest.approx(1.10, abs=0.08)

    def test_words(self):
        game = self.game
        state, _, _ = act(game, self.open_question(), -1.0)
        assert game.describe(self.open_question(), 0).text == "before question 1 of 3: which y belongs to x = (+0.5, -1.0)?"
        assert game.describe(state, 0).text.startswith("question 1: guesses -1.00, it was -1.50, reward -0.25; next x = (")
        last, _, _ = act(game, self.open_question(step=2), -1.0)
        assert game.describe(last, 0).text == "question 3: guesses -1.00, it was -1.50, reward -0.25"


class TestModularAddition:
    game = ModularAddition()

    def question(self, first, second, step=0):
        numbers = (torch.tensor([n]) for n in (7, step, first * 7 + second, -1, -1))
        return AdditionState(*numbers)

    @pytest.mark.parametrize(("first", "second", "total"), [(0, 0, 0), (5, 4, 2), (3, 4, 0), (6, 6, 5), (1, 2, 3)])
    def test_the_sum_goes_round(self, first, second, total):
        state = self.question(first, second)
        seen = self.game.observe(state)["adder"]
        assert (seen["first"].item(), seen["second"].item()) == (first, second)
        assert self.game.answers(state)["adder"].action.item() == total
        for said in range(7):
            _, reward, turn = act(self.game, state, said)
            assert (reward, turn.measures["correct"].item()) == ((1.0, 1.0) if said == total else (0.0, 0.0))

    def test_the_end(self):
        assert [act(self.game, self.question(1, 2, step), 3)[2].over.item() for step in (8, 9)] == [False, True]

    def asked(self, **settings):
        game = ModularAddition(modulus=3, rounds=40, **settings)
        state, questions = game.start(seeds(20)), []
        for _ in range(40):
            questions += state.question.tolist()
            state, _ = game.step(state, {"adder": torch.zeros(20, 1, dtype=torch.int64)})
        return questions

    def test_questions_held_out_are_never_asked_elsewhere(self):
        seen, held_out, everything = (set(self.asked(held_out=0.4, asks=asks)) for asks in ("seen", "held_out", "all"))
        assert (len(seen), len(held_out)) == (6, 3)
        assert not seen & held_out
        assert seen | held_out == everything == set(range(9))

    def test_questions_are_drawn_evenly(self):
        assert stats.chisquare(np.bincount(self.asked(), minlength=9)).pvalue > 0.001

    def test_words(self):
        state, _, _ = act(self.game, self.question(5, 4), 2)
        assert self.game.describe(self.question(5, 4), 0).text == "before question 1 of 10: what is 5 + 4 mod 7?"
        assert self.game.describe(state, 0).text.startswith("question 1: 5 + 4 mod 7? says 2, right, +1; next: ")
        state, _, _ = act(self.game, self.question(5, 4, 9), 3)
        assert self.game.describe(state, 0).text == "question 10: 5 + 4 mod 7? says 3, wrong, it is 2"


class TestSorting:
    game = Sorting(items=3)

    def fresh(self):
        yes = torch.tensor([True])
        numbers = torch.tensor([[32, 8, 16]])
        return SortingState(torch.tensor([7]), torch.tensor([0]), numbers, numbers > 0, yes, torch.tensor([-1]), ~yes)

    def history(self, game, choices):
        """(rewards, correct, sorted, masks before each choice)."""
        state, rows = self.fresh(), []
        for choice in choices:
            mask = game.observe(state)["sorter"]["action_mask"][0, 0].tolist()
            state, reward, turn = act(game, state, choice)
            rows.append((reward, turn.measures["correct"].item(), turn.measures["sorted"].item(), mask))
        return [list(column) for column in zip(*rows, strict=True)]

    def test_the_smallest_left_is_right_even_after_a_mistake(self):
        rewards, correct, is_sorted, masks = self.history(self.game, [1, 0, 2])
        assert rewards == [1, 0, 1]
        assert correct == pytest.approx([1, 0, math.nan], nan_ok=True)
        assert is_sorted == pytest.approx([math.nan, math.nan, 0], nan_ok=True)
        assert masks == [[1, 1, 1], [1, 0, 1], [0, 0, 1]]

    def test_a_faultless_row_is_sorted(self):
        rewards, _, is_sorted, _ = self.history(self.game, [1, 2, 0])
        assert (rewards, is_sorted[-1]) == ([1, 1, 1], 1)

    def test_it_ends_when_nothing_is_left_and_the_mask_allows_something_even_then(self):
        state = self.fresh()
        for choice, ends in ((1, False), (2, False), (0, True)):
            state, _, turn = act(self.game, state, choice)
            assert turn.over.item() is ends
        assert self.game.observe(state)["sorter"]["action_mask"].tolist() == [[[1, 1, 1]]]

    def test_what_is_seen_and_what_is_seen_only_once(self):
        for recalls, later in ((False, [[0.125, 1], [0, 0], [0.0625, 1]]), (True, [[0, 1], [0, 0], [0, 1]])):
            game = Sorting(items=3, recalls=recalls)
            assert game.observe(self.fresh())["sorter"][game.field].tolist() == [[[[0.125, 1], [0.03125, 1], [0.0625, 1]]]]
            state, _, _ = act(game, self.fresh(), 1)
            assert game.observe(state)["sorter"][game.field].tolist() == [[later]]

    def test_answers_sort_every_row(self):
        game = Sorting(items=7)
        state, taken = game.start(seeds(50)), []
        for _ in range(7):
            action = game.answers(state)["sorter"].action
            taken.append(state.numbers.gather(1, action))
            state, _ = game.step(state, {"sorter": action})
        assert torch.equal(torch.cat(taken, 1), game.start(seeds(50)).numbers.sort(1).values)

    def test_numbers_differ_and_stand_in_any_order(self):
        numbers = Sorting(items=3).start(seeds(3000)).numbers
        assert (numbers.sort(1).values.diff(dim=1) > 0).all()
        orders = numbers.argsort(1) @ torch.tensor([9, 3, 1])
        assert stats.chisquare(np.unique(orders, return_counts=True)[1]).pvalue > 0.001
        assert len(orders.unique()) == 6

    def test_words(self):
        game = self.game
        assert game.describe(self.fresh(), 0).text == "before step 1 of 3: [32 8 16], the smallest first"
        state, _, _ = act(game, self.fresh(), 1)
        assert game.describe(state, 0).text == "step 1: takes 8, right, +1; left [32 - 16]"
        state, _, _ = act(game, state, 0)
        assert game.describe(state, 0).text == "step 2: takes 32, wrong, 16 is smaller; left [- - 16]"


CPU = torch.device("cpu")


class TestHiddenMarkov:
    def test_moods_move_as_the_settings_say(self):
        chain = [[0.9, 0.1, 0.0], [0.05, 0.9, 0.05], [0.0, 0.1, 0.9]]
        cycle = [[0.7, 0.3, 0.0], [0.0, 0.7, 0.3], [0.3, 0.0, 0.7]]
        full = [[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.1, 0.1, 0.1, 0.7]]
        for settings, to in (((3, "chain", 0.9), chain), ((3, "cycle", 0.7), cycle), ((4, "full", 0.7), full)):
            torch.testing.assert_close(HiddenMarkov(*settings).tables(CPU).to, torch.tensor(to))

    def test_moods_act_as_the_source_says(self):
        does = HiddenMarkov(moods=3).tables(CPU).does
        torch.testing.assert_close(does, torch.tensor([[0.99, 0.01, 0.0], [0.495, 0.01, 0.495], [0.0, 0.01, 0.99]]))

    def test_a_guess_is_right_where_the_partner_does_it_and_then_the_act_is_seen(self):
        game = HiddenMarkov(rounds=2)
        for step, guess, reward in ((0, 2, 1.0), (0, 0, 0.0), (1, 2, 1.0)):
            state = MoodState(*(torch.tensor([n]) for n in (7, step, 1, 2, 0, 0)))
            assert game.observe(state)["guesser"]["seen"].item() == 0
            assert game.answers(state)["guesser"].action.item() == 2
            after, got, turn = act(game, state, guess)
            assert (got, turn.measures["correct"].item(), turn.over.item()) == (reward, reward, step == 1)
            assert game.observe(after)["guesser"]["seen"].item() == 3

    def test_moods_and_acts_come_as_often_as_the_tables_say(self):
        game = HiddenMarkov(moods=3, stay=0.8)
        state, moves, acts = game.start(seeds(4000)), np.zeros((3, 3)), np.zeros((3, 3))
        assert stats.chisquare(state.mood.bincount(minlength=3).numpy()).pvalue > 0.001
        for _ in range(5):
            after, _ = game.step(state, {"guesser": state.act[:, None]})
            np.add.at(moves, (state.mood.numpy(), after.mood.numpy()), 1)
            np.add.at(acts, (state.mood.numpy(), state.act.numpy()), 1)
            state = after
        shares = [table / table.sum(1, keepdims=True) for table in (moves, acts)]
        np.testing.assert_allclose(shares[0], [[0.8, 0.2, 0], [0.1, 0.8, 0.1], [0, 0.2, 0.8]], atol=0.02)
        np.testing.assert_allclose(shares[1], [[0.99, 0.01, 0], [0.495, 0.01, 0.495], [0, 0.01, 0.99]], atol=0.02)

    @pytest.mark.parametrize("settings", [(3, "chain", 0.9), (2, "full", 0.6), (3, "cycle", 0.5)])
    def test_the_reader_believes_what_all_paths_together_say(self, settings):
        to, does = (table.double().numpy() for table in HiddenMarkov(*settings).tables(CPU))
        reader, moods = MoodReader(*settings), settings[0]
        for acts in itertools.product((0, 2), repeat=4):
            # Every path of five moods, weighted by its probability and that of the four acts.
            believed = np.zeros(moods)
            for path in itertools.product(range(moods), repeat=5):
                weight = np.prod([to[a, b] for a, b in itertools.pairwise(path)]) / moods
                believed[path[-1]] += weight * np.prod([does[mood, act] for mood, act in zip(path, acts, strict=False)])
            if believed.sum() == 0:
                continue
            state = reader.start(torch.tensor([0]))
            for seen in (0, *(act + 1 for act in acts)):
                decision, state = reader.act({"seen": torch.tensor([seen])}, state, torch.zeros(1))
            np.testing.assert_allclose(state.moods[0].numpy(), believed / believed.sum(), atol=1e-5)
            expected = believed @ does
            assert expected[decision.action.item()] == pytest.approx(expected.max())

    def test_the_reader_is_right_as_often_as_can_be(self):
        # Two moods that never change: the first guess is right with probability 0.495, then one act tells them apart, which act 1, of
        # probability 0.01, does not.
        correct = played(HiddenMarkov(moods=2, stay=1.0, rounds=6), MoodReader(moods=2, stay=1.0), 4000)["correct"]
        assert correct[0].mean().item() == pytest.approx(0.495, abs=0.03)
        assert correct[1].mean().item() == pytest.approx(0.99 * 0.99 + 0.01 * 0.495, abs=0.01)
        assert correct[2:].mean().item() == pytest.approx(0.99, abs=0.005)

    def test_the_reader_does_better_than_repeating_the_last_act(self):
        game = HiddenMarkov(moods=5, stay=0.95)
        reads = played(game, MoodReader(), 2000)["correct"]
        state, repeats = game.start(seeds(2000)), []
        for _ in range(game.rounds):
            state, turn = game.step(state, {"guesser": (state.seen - 1).clamp(min=0)[:, None]})
            repeats.append(turn.measures["correct"])
        assert reads[1:].mean() > torch.stack(repeats)[1:].mean() + 0.03

    def test_impossible_acts_leave_every_mood_possible(self):
        reader = MoodReader(moods=2, moves="full", stay=1.0)
        state = reader.start(torch.tensor([0]))
        for seen in (0, 1, 3):
            _, state = reader.act({"seen": torch.tensor([seen])}, state, torch.zeros(1))
        assert state.moods.tolist() == [[0.5, 0.5]]

    def test_words(self):
        game = HiddenMarkov()
        state = MoodState(*(torch.tensor([n]) for n in (7, 0, 1, 2, 0, 0)))
        assert game.describe(state, 0).text == "before act 1 of 50: the partner is in mood 1 of 0 to 4"
        right, wrong = (game.describe(act(game, state, guess)[0], 0).text for guess in (2, 0))
        assert right.startswith("act 1: guesses 2, the partner does 2, right, +1; the next act is in mood ")
        assert wrong.startswith("act 1: guesses 0, the partner does 2, wrong; the next act is in mood ")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LinearRegression(dimensions=0), "dimensions is 0; want from 1"),
        (lambda: LinearRegression(pairs=0), "pairs is 0; want from 1"),
        (lambda: LinearRegression(noise=-1.0), "noise is -1.0; want a variance"),
        (lambda: LinearRegression(bound=0.0), "bound is 0.0; want a number above 0"),
        (lambda: ModularAddition(modulus=1), "modulus is 1; want from 2"),
        (lambda: ModularAddition(rounds=0), "rounds is 0; want from 1"),
        (lambda: ModularAddition(held_out=1.0), "held_out is 1.0; want a share"),
        (lambda: ModularAddition(asks="some"), "asks is 'some'; want one of seen, held_out, all"),
        (lambda: ModularAddition(asks="held_out"), "asks is 'held_out', but held_out is 0.0"),
        (lambda: Sorting(items=1), "items is 1; want from 2 to 256"),
        (lambda: HiddenMarkov(moods=1), "moods is 1; want from 2"),
        (lambda: HiddenMarkov(moves="star"), "moves is 'star'; want one of chain, cycle, full"),
        (lambda: HiddenMarkov(stay=1.5), "stay is 1.5; want a probability"),
        (lambda: HiddenMarkov(rounds=0), "rounds is 0; want from 1"),
        (lambda: MoodReader(moods=1), "moods is 1; want from 2"),
        (lambda: Ridge(dimensions=0), "dimensions is 0; want at least 1"),
        (lambda: Ridge(noise=0.0), "noise is 0.0; want a number above 0"),
        (lambda: Ridge(strength=0.0), "strength is 0.0; want a number above 0, or -1"),
    ],
)
def test_bad_settings_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("game", "guesser", "measure"),
    [
        (HiddenMarkov(moods=2, stay=1.0, rounds=6), MoodReader(moods=2, stay=1.0), "correct"),
        (LinearRegression(pairs=6), Ridge(), "squared_error"),
    ],
)
def test_the_best_guesser_takes_nothing_along_into_the_next_episode(game, guesser, measure):
    """Whose partner, and whose weights, are others: it does as well in every episode of a trial."""
    rollout = Rollout(game, one_table(("me",), 2000), {"me": guesser}, episodes=3)
    _, log = rollout.play(rollout.start(seeds(2000)), rollout.trial_steps)
    first, *others = log.measures[measure].unflatten(0, (3, -1)).mean((1, 2)).tolist()
    assert others == pytest.approx([first] * 2, rel=0.05)


@pytest.mark.parametrize(("game", "name"), [(LinearRegression(), "ridge"), (HiddenMarkov(), "mood_reader")])
def test_playthrough_of_the_best_guesser(game, name):
    lines = told(game, (name,), {name: co_player(name)}, torch.tensor([2]), 20)
    assert_golden(f"{name}.txt", "\n".join(lines) + "\n")


def test_guessers_sit_only_where_they_see_what_they_read():
    check_fits("ridge", co_player("ridge"), LinearRegression().roles[0])
    check_fits("mood_reader", co_player("mood_reader"), HiddenMarkov().roles[0])
    with pytest.raises(BadInput, match="reads x as numbers of shape"):
        check_fits("ridge", co_player("ridge"), LinearRegression(dimensions=3).roles[0])
    with pytest.raises(BadInput, match="reads seen as 4 symbols"):
        check_fits("mood_reader", co_player("mood_reader"), Sorting().roles[0])


def test_the_suite_for_one_seat_seats_the_agent_alone_and_refuses_other_games():
    assert [scenario.seats for scenario in alone(Experiment(game=HiddenMarkov())).scenarios] == [(FOCAL,)]
    with pytest.raises(BadInput, match="suite 'alone' is for games of one seat; this game has 2; try --suite together"):
        alone(Experiment())
