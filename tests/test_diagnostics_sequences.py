"""Diagnostics in which a sequence is shown: parity, match to sample, recall, flip-flop, sine, path integration."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from envs.chance import Purpose, seeds_of
from envs.diagnostics.associative_recall import AssociativeRecall
from envs.diagnostics.flip_flop import FlipFlop
from envs.diagnostics.match_to_sample import MatchToSample
from envs.diagnostics.n_parity import NParity
from envs.diagnostics.path_integration import PathIntegration, _reflected
from envs.diagnostics.sequence import SequenceTask, tape
from envs.diagnostics.sine import Sine

TASKS: dict[str, SequenceTask] = {
    "n_parity": NParity(3),
    "dense parity": NParity(3, dense=True),
    "many parities": NParity(5, curriculum="many"),
    "many dense parities": NParity(5, dense=True, curriculum="many"),
    "match_to_sample": MatchToSample(n=3, symbols=3, queries=3, gap=2),
    "many delays": MatchToSample(n=5, symbols=3, queries=2, curriculum="many"),
    "unmarked": MatchToSample(n=3, queries=2, gap=3, marked=False),
    "associative_recall": AssociativeRecall(pairs=3, keys=5, values=4, slots=6),
    "flip_flop": FlipFlop(steps=20),
    "sine": Sine(steps=20),
    "path_integration": PathIntegration(steps=20),
    "in space": PathIntegration(dimensions=3, steps=20),
}
every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def luck(count: int) -> Tensor:
    return seeds_of(20261123, Purpose.GAME, count)


def play(task: SequenceTask, seed: int, said: list[Any]) -> list[tuple[float, float, bool]]:
    """(reward, measure, over) of every step of one game in which a player says this."""
    state, turns = task.start(torch.tensor([seed])), []
    for action in said:
        state, turn = task.step(state, {"player": torch.tensor([[action]])})
        (measure,) = turn.measures.values()
        turns.append((turn.rewards["player"].item(), measure.item(), bool(turn.over)))
    return turns


@every_task
def test_whoever_says_what_is_right_earns_all_there_is(task: SequenceTask) -> None:
    state = task.start(luck(50))
    going = torch.ones(50, dtype=torch.bool)
    asked_ever = torch.zeros(50)
    for _ in range(task.max_steps):
        answer = task.answers(state)["player"]
        state, turn = task.step(state, {"player": answer.action})
        (name, measure), *_ = turn.measures.items()
        best = 0.0 if name == "squared_error" else 1.0
        assert torch.equal(measure.isnan(), ~answer.asked[:, 0])
        assert (measure[answer.asked[:, 0]] == best).all()
        assert torch.equal(turn.rewards["player"], answer.asked * best)
        asked_ever += answer.asked[:, 0] & going
        going &= ~turn.over
    assert not going.any()
    assert (asked_ever > 0).all()


@every_task
def test_what_is_right_does_not_depend_on_what_is_said(task: SequenceTask) -> None:
    state = other = task.start(luck(4))
    for _ in range(task.max_steps):
        for seen, again in zip(task.observe(state)["player"].values(), task.observe(other)["player"].values(), strict=True):
            assert torch.equal(seen, again)
        answer = task.answers(state)["player"]
        assert torch.equal(answer.action, task.answers(other)["player"].action)
        state, _ = task.step(state, {"player": answer.action})
        other, _ = task.step(other, {"player": answer.action * 0})


def test_a_step_at_which_nothing_is_asked_earns_nothing() -> None:
    # Bits 0 1 1 0 1 0 0 0: asked in the end, whether the last two, 0 and 0, are odd.
    turns = play(NParity(2), 2, [1, 0, 1, 1, 0, 1, 0, 0])
    assert [reward for reward, _, _ in turns] == [0, 0, 0, 0, 0, 0, 0, 1]
    assert [math.isnan(measure) for _, measure, _ in turns] == [True] * 7 + [False]
    assert [over for _, _, over in turns] == [False] * 7 + [True]
    assert play(NParity(2), 2, [1, 0, 1, 1, 0, 1, 0, 1])[-1] == (0, 0, True)


def test_of_several_choices_the_share_that_is_right_is_earned() -> None:
    # Two channels: up and down at first, the same two again, then nothing.
    turns = play(FlipFlop(channels=2, probability=0.3, steps=8), 0, [[1, 0], [1, 1], [0, 1]])
    assert [(reward, measure) for reward, measure, _ in turns] == [(1, 1), (0.5, 0.5), (0, 0)]


def test_numbers_lose_their_squared_distance() -> None:
    # The walk's first place is (-0.0684, -0.0484).
    ((reward, error, _),) = play(PathIntegration(), 0, [[0.4316, -0.0484]])
    assert error == pytest.approx(0.25, abs=1e-4)
    assert reward == -error
    # In space three numbers count.
    place = PathIntegration(dimensions=3).script(torch.tensor([0])).right[0, 0]
    ((reward, error, _),) = play(PathIntegration(dimensions=3), 0, [(place + torch.tensor([0.1, 0.2, 0.2])).tolist()])
    assert error == pytest.approx(0.09, abs=1e-5)


class TestNParity:
    def test_three_episodes_by_hand(self) -> None:
        script = NParity(2, dense=True).script(torch.tensor([1, 2]))
        assert script.shown["bit"].tolist() == [[0, 0, 1, 0, 1, 0, 0, 0, 1], [0, 1, 1, 0, 1, 0, 0, 0, 0]]
        # 00 01 10 01 10 00 00 01 and 01 11 10 01 10 00 00 00
        assert script.right[:, 1:].tolist() == [[0, 1, 1, 1, 1, 0, 0, 1], [1, 0, 1, 1, 1, 0, 0, 0]]
        assert script.asked.tolist() == [[False] + [True] * 8] * 2

    @pytest.mark.parametrize("n", [1, 4, 7])
    def test_the_ones_among_the_last_n_bits_are_counted(self, n: int) -> None:
        script = NParity(n).script(luck(40))
        for bits, right in zip(script.shown["bit"].tolist(), script.right.tolist(), strict=True):
            for t in range(n - 1, len(bits)):
                assert right[t] == bits[t - n + 1 : t + 1].count(1) % 2

    def test_episodes_end_after_any_number_of_steps_from_n_plus_2_to_4n_plus_1_and_ask_at_their_last(self) -> None:
        script = NParity(3).script(luck(4_000))
        counts = script.length.bincount(minlength=14)
        assert counts[:5].sum() == 0
        assert stats.chisquare(counts[5:].numpy()).pvalue > 1e-3
        assert (script.asked.sum(1) == 1).all()
        assert torch.equal(script.asked.long().argmax(1), script.length - 1)

    @pytest.mark.parametrize("dense", [False, True])
    def test_with_many_each_episode_draws_its_n_and_tells_it_where_it_asks(self, dense: bool) -> None:
        script = NParity(5, dense, curriculum="many").script(luck(4_000))
        told = script.shown["n"]
        assert torch.equal(told > 0, script.asked)
        drawn = told.amax(1)
        assert torch.equal(told, drawn[:, None] * script.asked)
        assert drawn.bincount().tolist()[:2] == [0, 0]
        assert stats.chisquare(drawn.bincount()[2:].numpy()).pvalue > 1e-3
        for bits, right, asked, n in zip(
            script.shown["bit"][:100].tolist(), script.right.tolist(), script.asked.tolist(), drawn.tolist(), strict=False
        ):
            for t in range(n - 1, len(bits)):
                assert right[t] == bits[t - n + 1 : t + 1].count(1) % 2
            assert not dense or asked == [t >= n - 1 for t in range(21)]

    def test_how_long_an_episode_is_says_nothing_about_its_n(self) -> None:
        many, single = NParity(5, curriculum="many").script(luck(50)), NParity(5).script(luck(50))
        assert torch.equal(many.length, single.length)
        assert torch.equal(many.shown["bit"], single.shown["bit"])

    def test_every_episode_has_a_bias_of_its_own_drawn_evenly(self) -> None:
        share = NParity(100).script(luck(4_000)).shown["bit"].float().mean(1)
        assert stats.kstest(share.numpy(), "uniform").statistic < 0.05


class TestMatchToSample:
    def test_an_episode_by_hand(self) -> None:
        script = MatchToSample(n=3, symbols=3, queries=2, gap=2).script(torch.tensor([0, 2]))
        # The first: one distractor, the sample 0, two distractors, the test 0; one distractor, the sample 0, two distractors, the test 0.
        # The second: one distractor, the sample 0, two distractors, the test 1; the sample 1, two distractors, the test 1.
        cues = ["010020100200", "010021002000"]
        assert ["".join(map(str, row)) for row in script.shown["cue"].tolist()] == cues
        assert ["".join(map(str, row)) for row in script.shown["symbol"].tolist()] == ["001000010022", "000111101122"]
        assert script.asked.tolist() == [[cue == "2" for cue in row] for row in cues]
        assert script.right[script.asked].tolist() == [1, 1, 0, 1]
        assert script.length.tolist() == [10, 9]

    @pytest.mark.parametrize(
        "task", [MatchToSample(n=4, symbols=3, queries=4, gap=2), MatchToSample(n=6, symbols=3, queries=4, curriculum="many")]
    )
    def test_a_test_is_compared_with_the_sample_n_steps_before(self, task: MatchToSample) -> None:
        script = task.script(luck(200))
        delays = set()
        for symbols, cues, right, length in zip(
            script.shown["symbol"].tolist(), script.shown["cue"].tolist(), script.right.tolist(), script.length.tolist(), strict=True
        ):
            own = set()
            assert cues.count(1) == cues.count(2) == 4
            assert cues[length - 1 :] == [2] + [0] * (task.max_steps - length)
            for t, cue in enumerate(cues):
                if cue == 1:
                    kept, since = symbols[t], t
                elif cue == 2:
                    assert right[t] == (symbols[t] == kept)
                    own.add(t - since)
            assert len(own) == 1
            delays |= own
        assert delays == ({4} if task.curriculum == "single" else {1, 2, 3, 4, 5, 6})

    def test_half_of_the_tests_are_the_same_and_the_others_any_other(self) -> None:
        script = MatchToSample(n=2, symbols=4, queries=1).script(luck(6_000))
        difference = (script.shown["symbol"][:, 2] - script.shown["symbol"][:, 0]) % 4
        counts = difference.bincount(minlength=4).numpy()
        assert stats.chisquare(counts, [3_000, 1_000, 1_000, 1_000]).pvalue > 1e-3
        assert stats.chisquare(script.shown["symbol"][:, 1].bincount().numpy()).pvalue > 1e-3

    def test_up_to_gap_distractors_come_before_a_sample(self) -> None:
        script = MatchToSample(n=2, queries=2, gap=3).script(luck(2_000))
        first = (script.shown["cue"] == 1).long().argmax(1)
        assert stats.chisquare(first.bincount().numpy()).pvalue > 1e-3
        assert set(script.length.tolist()) == set(range(6, 13))

    def test_unmarked_samples_look_like_distractors_and_nothing_else_differs(self) -> None:
        marked, unmarked = (MatchToSample(n=3, gap=2, marked=marked).script(luck(20)) for marked in (True, False))
        assert torch.equal(unmarked.shown["cue"], torch.where(marked.shown["cue"] == 1, 0, marked.shown["cue"]))
        for one, other in (
            (marked.shown["symbol"], unmarked.shown["symbol"]),
            (marked.right, unmarked.right),
            (marked.asked, unmarked.asked),
        ):
            assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [NParity, MatchToSample])
def test_with_many_the_hardest_episodes_are_measured_by_themselves(kind: type[Any]) -> None:
    task = kind(4, curriculum="many")
    state = task.start(luck(200))
    n = state.script.shown["n"].amax(1) if kind is NParity else task._delay(state.seed)
    for step in range(task.max_steps):
        # Whoever is right in every other game.
        answer = task.answers(state)["player"]
        said = (answer.action[:, 0] + torch.arange(200) % 2) % 2
        state, turn = task.step(state, {"player": said[:, None]})
        asked = answer.asked[:, 0]
        assert set(turn.measures) == {"correct", "hardest_correct"}
        for name, counts in (("correct", asked), ("hardest_correct", asked & (n == 4))):
            measure = turn.measures[name]
            assert torch.equal(~measure.isnan(), counts), step
            assert torch.equal(measure[counts], (torch.arange(200)[counts] % 2 == 0).float())
    assert 20 < (n == 4).sum() < 120


@pytest.mark.parametrize("kind", [NParity, MatchToSample])
@pytest.mark.parametrize("curriculum", ["single", "many"])
def test_a_curriculum_may_raise_n_because_no_space_depends_on_it(kind: type[Any], curriculum: str) -> None:
    (one,), (other,) = (kind(n, curriculum=curriculum).roles for n in (2, 90))
    assert (one.observation_space, one.action_space) == (other.observation_space, other.action_space)


class TestAssociativeRecall:
    def test_an_episode_by_hand(self) -> None:
        script = AssociativeRecall(pairs=3, keys=5, values=4, slots=6).script(torch.tensor([0]))
        # Keys are tokens 1 to 5, values 6 to 9: k2 v2, k0 v2, k4 v1; then k2, k4, nothing, k0, nothing, nothing.
        assert script.shown["token"].tolist() == [[3, 8, 1, 8, 5, 7, 3, 5, 0, 1, 0, 0]]
        assert script.asked[0].nonzero()[:, 0].tolist() == [6, 7, 9]
        assert script.right[0, [6, 7, 9]].tolist() == [2, 1, 2]
        assert script.length.tolist() == [12]

    def test_every_key_comes_once_more_and_its_value_is_the_one_behind_it(self) -> None:
        task = AssociativeRecall(pairs=4, keys=6, values=5, slots=9)
        script = task.script(luck(100))
        for tokens, right, asked in zip(script.shown["token"].tolist(), script.right.tolist(), script.asked.tolist(), strict=True):
            value_of = dict(zip(tokens[0:8:2], tokens[1:8:2], strict=True))
            assert len(value_of) == 4
            assert all(1 <= key <= 6 for key in value_of)
            assert all(7 <= value <= 11 for value in value_of.values())
            assert sorted(token for token in tokens[8:] if token) == sorted(value_of)
            assert asked == [t >= 8 and token > 0 for t, token in enumerate(tokens)]
            assert all(right[t] == value_of[token] - 7 for t, token in enumerate(tokens) if asked[t])

    def test_keys_and_values_are_drawn_evenly(self) -> None:
        token = AssociativeRecall(pairs=2, keys=5, values=4, slots=2).script(luck(3_000)).shown["token"]
        assert stats.chisquare((token[:, 0] - 1).bincount(minlength=5).numpy()).pvalue > 1e-3
        assert stats.chisquare((token[:, 3] - 6).bincount(minlength=4).numpy()).pvalue > 1e-3

    def test_a_key_comes_again_soon_by_the_power_law(self) -> None:
        script = AssociativeRecall(pairs=1, slots=4, power=0.5).script(luck(20_000))
        counts = script.asked[:, 2:].sum(0).numpy()
        # 1, 1/sqrt 2, 1/sqrt 3 and 1/2, of 2.78446 in all.
        assert stats.chisquare(counts, [7182.7, 5078.9, 4146.9, 3591.5]).pvalue > 1e-3

    def test_with_power_1_every_order_of_all_slots_is_as_likely(self) -> None:
        token = AssociativeRecall(pairs=3, keys=3, slots=3, power=1.0).script(luck(6_000)).shown["token"]
        order = (token[:, 6:] == token[:, [0]]).long().argmax(1) * 3 + (token[:, 6:] == token[:, [2]]).long().argmax(1)
        assert stats.chisquare(order.bincount(minlength=9)[[1, 2, 3, 5, 6, 7]].numpy()).pvalue > 1e-3


class TestFlipFlop:
    def test_an_episode_by_hand(self) -> None:
        task = FlipFlop(channels=2, probability=0.3, steps=8)
        script = task.script(torch.tensor([0]))
        seen = [task.sees({"pulses": pulses}) for pulses in script.shown["pulses"][0]]
        assert seen == ["+-", "+-", "..", "+.", "-+", "..", "-+", ".."]
        assert [task.names(right) for right in script.right[0]] == ["+-", "+-", "+-", "+-", "-+", "-+", "-+", "-+"]

    def test_what_counts_is_the_last_pulse_of_each_channel(self) -> None:
        script = FlipFlop(channels=4, probability=0.2, steps=50).script(luck(20))
        for pulses, right in zip(script.shown["pulses"].tolist(), script.right.tolist(), strict=True):
            held = [None] * 4
            for now, answer in zip(pulses, right, strict=True):
                held = [int(pulse > 0) if pulse else before for pulse, before in zip(now, held, strict=True)]
                assert answer == held

    def test_channels_are_pulsed_with_the_probability_and_as_often_up_as_down(self) -> None:
        pulses = FlipFlop(probability=0.1, steps=100).script(luck(500)).shown["pulses"]
        assert pulses[:, 0].abs().eq(1).all()
        later = pulses[:, 1:]
        assert later.abs().mean().item() == pytest.approx(0.1, abs=0.005)
        assert (later == 1).float().mean().item() == pytest.approx(0.05, abs=0.003)


class TestSine:
    def test_a_wave_by_hand(self) -> None:
        script = Sine(shortest=4.0, longest=8.0, steps=5).script(torch.tensor([0]))
        place, (cosine, sine) = script.shown["frequency"][0, 0].item(), script.shown["phase"][0, 0].tolist()
        assert (place, cosine, sine) == pytest.approx((0.0873, 0.8801, -0.4748), abs=1e-4)
        # 0.125 + 0.0873 * 0.125 = 0.13591 turns or 0.85396 radians a step; the phase is -0.49473: sines of it, of 0.35923 and of 1.21319.
        assert script.right[0, :3].tolist() == pytest.approx([-0.4748, 0.3515, 0.9367], abs=2e-4)

    def test_waves_obey_the_pendulums_law_and_their_cue_stays(self) -> None:
        script = Sine(shortest=10.0, longest=40.0, steps=300).script(luck(50))
        # sin(x + w) + sin(x - w) = 2 cos(w) sin(x), with w between a tenth and a fortieth of a turn.
        turn = 2 * math.pi * (0.025 + 0.075 * script.shown["frequency"][:, :1].double())
        wave = script.right.double()
        torch.testing.assert_close(wave[:, 2:] + wave[:, :-2], 2 * turn.cos() * wave[:, 1:-1], rtol=0, atol=1e-6)
        torch.testing.assert_close(script.right[:, 0], script.shown["phase"][:, 0, 1])
        torch.testing.assert_close(script.shown["phase"].square().sum(2), torch.ones(50, 300))
        for cue in script.shown.values():
            assert (cue == cue[:, :1]).all()

    def test_frequencies_and_phases_are_drawn_evenly(self) -> None:
        shown = Sine(steps=1).script(luck(4_000)).shown
        phase = torch.atan2(shown["phase"][:, 0, 1], shown["phase"][:, 0, 0]) / (2 * math.pi) + 0.5
        assert stats.kstest(shown["frequency"][:, 0].numpy(), "uniform").pvalue > 1e-3
        assert stats.kstest(phase.numpy(), "uniform").pvalue > 1e-3


class TestPathIntegration:
    def test_walls_reflect(self) -> None:
        free = torch.tensor([0.0, 0.5, 1.0, 1.2, -1.3, 2.5, 3.1, -5.0])
        torch.testing.assert_close(_reflected(free), torch.tensor([0.0, 0.5, 1.0, 0.8, -0.7, -0.5, -0.9, -1.0]))

    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_places_are_the_sum_of_the_steps_shown_and_stay_in_the_room(self, dimensions: int) -> None:
        task = PathIntegration(dimensions=dimensions, speed=0.3, steps=200)
        script = task.script(luck(100))
        torch.testing.assert_close(script.right, 0.3 * script.shown["velocity"].cumsum(1), rtol=0, atol=1e-4)
        assert script.right.abs().max() <= 1
        assert script.right.abs().amax((0, 1)).min() > 0.99

    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_steps_are_up_to_speed_long_and_turn_by_up_to_turn(self, dimensions: int) -> None:
        # Twenty steps of at most 0.04 reach no wall.
        velocity = PathIntegration(dimensions=dimensions, speed=0.04, turn=0.3, steps=20).script(luck(400)).shown["velocity"].double()
        length = velocity.norm(dim=2)
        assert stats.kstest(length[:, 0].numpy(), "uniform").pvalue > 1e-3
        assert length.max() <= 1 + 1e-5
        heading = velocity / length[..., None]
        seen = (length[:, 1:] > 0.01) & (length[:, :-1] > 0.01)
        angle = (heading[:, 1:] * heading[:, :-1]).sum(2).clamp(-1, 1).acos()[seen]
        # In space the heading turns in azimuth and in elevation.
        most = 0.3 if dimensions == 2 else 0.3 * math.sqrt(2)
        assert 0.9 * most < angle.max() < most + 1e-3
        if dimensions == 2:
            assert angle.mean().item() == pytest.approx(0.15, abs=0.005)

    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_the_first_heading_is_any(self, dimensions: int) -> None:
        velocity = PathIntegration(dimensions=dimensions, turn=0.0, steps=1).script(luck(4_000)).shown["velocity"][:, 0]
        azimuth = torch.atan2(velocity[:, 1], velocity[:, 0]) / (2 * math.pi) + 0.5
        assert stats.kstest(azimuth.numpy(), "uniform").pvalue > 1e-3
        if dimensions == 3:
            # Any height on a sphere is as likely (Archimedes).
            height = velocity[:, 2] / velocity.norm(dim=1) / 2 + 0.5
            assert stats.kstest(height.numpy(), "uniform").pvalue > 1e-3


WORDS = {
    "n_parity": (
        NParity(2),
        [1, 0, 1, 1, 0, 1, 0, 0],
        {
            0: "before step 1 of 8: say in the end whether the ones among the last 2 bits are odd or even in number",
            1: "step 1: sees 0; says odd, not asked",
            8: "step 8: sees 0; asked, says even: right",
        },
    ),
    "many parities": (
        NParity(5, curriculum="many"),
        [0] * 17,
        {
            # The last bits are 0 1 1.
            0: "before step 1 of 17: say in the end whether the ones among the last N bits are odd or even in number, with N from 2 to 5",
            1: "step 1: sees 0; says even, not asked",
            16: "step 16: sees 1; says even, not asked",
            17: "step 17: sees 1 and N is 3; asked, says even: right",
        },
    ),
    "match_to_sample": (
        MatchToSample(n=3, symbols=3, queries=2, gap=2),
        [0] * 9,
        {
            0: "before step 1 of 9: say at every test whether it is the same as the sample before it",
            2: "step 2: sees sample 0; says different, not asked",
            5: "step 5: sees test 1; asked, says different: right",
            6: "step 6: sees sample 1; says different, not asked",
            9: "step 9: sees test 1; asked, says different: it is same",
        },
    ),
    "associative_recall": (
        AssociativeRecall(pairs=3, keys=5, values=4, slots=6),
        [0] * 8,
        {
            0: "before step 1 of 12: keep 3 pairs of a key and a value; when a key comes again, say its value",
            1: "step 1: sees k4; says v0, not asked",
            2: "step 2: sees v2; says v0, not asked",
            7: "step 7: sees k2; asked, says v0: right",
            8: "step 8: sees k4; asked, says v0: it is v2",
        },
    ),
    "flip_flop": (
        FlipFlop(channels=2, probability=0.3, steps=8),
        [[1, 0], [1, 1]],
        {
            0: "before step 1 of 8: say at every step which way each of 2 channels was pulsed last",
            1: "step 1: sees ++; asked, says +-: it is ++",
            2: "step 2: sees ..; asked, says ++: right",
        },
    ),
    "sine": (
        Sine(shortest=4.0, longest=8.0, steps=5),
        [0.9, 0.0],
        {
            0: "before step 1 of 5: draw 5 steps of a sine wave of this frequency and phase",
            # 1 / (0.125 + 0.2169 * 0.125) = 6.57; the phase's sine is -0.0927.
            1: "step 1: sees a period of 6.6 steps and a phase of 355 degrees; asked, says +0.90: it is -0.09",
            2: "step 2: sees a period of 6.6 steps and a phase of 355 degrees; asked, says +0.00: it is +0.76",
        },
    ),
    "path_integration": (
        PathIntegration(steps=5),
        [[0.25, -0.5]],
        {
            0: "before step 1 of 5: walk 5 steps from the middle of a room; say at every step where you are",
            1: "step 1: sees a step of (+0.04, +0.07); asked, says (+0.25, -0.50): it is (+0.04, +0.07)",
        },
    ),
}


@pytest.mark.parametrize(("task", "said", "words"), WORDS.values(), ids=WORDS)
def test_a_replay_says_what_was_shown_said_and_right(task: SequenceTask, said: list[Any], words: dict[int, str]) -> None:
    state = task.start(torch.tensor([9, 2]))
    texts = [task.describe(state, 1).text]
    for action in said:
        state, _ = task.step(state, {"player": torch.tensor([[action], [action]])})
        texts.append(task.describe(state, 1).text)
    assert {step: texts[step] for step in words} == words


def test_a_verdict_is_green_or_red_and_a_tape_shows_the_newest_symbols() -> None:
    task = NParity(2)
    state = task.start(torch.tensor([2]))
    for action in (1, 0, 1, 1, 0, 1, 0):
        state, _ = task.step(state, {"player": torch.tensor([[action]])})
    green, red = ((64, 145, 108), (200, 80, 72))
    for action, colour in ((0, green), (1, red)):
        after, _ = task.step(state, {"player": torch.tensor([[action]])})
        assert task.describe(after, 0).marks[-1].colour == colour
    letters = [chr(97 + number % 26) for number in range(37)]
    marks = tape(letters, [(0, 0, 0)] * 37)
    # Five rows would be needed: the first row is left out.
    assert "".join(mark.text for mark in marks) == "".join(letters[8:])
    assert all(0 < mark.x < 1 and 0 < mark.y < 0.8 for mark in marks)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (NParity, {"n": 0}, "n is 0; want from 1 to 10,000"),
        (NParity, {"curriculum": "some"}, "curriculum is 'some'; want 'single' or 'many'"),
        (NParity, {"n": 1, "curriculum": "many"}, "n is 1; want from 2 to 100 with the curriculum 'many'"),
        (NParity, {"n": 101, "curriculum": "many"}, "n is 101; want from 2 to 100 with the curriculum 'many'"),
        (MatchToSample, {"n": 0}, "n is 0; want from 1 to 10,000"),
        (MatchToSample, {"symbols": 1}, "symbols is 1; want from 2 to 10,000"),
        (MatchToSample, {"queries": 0}, "queries is 0; want from 1 to 1,000"),
        (MatchToSample, {"gap": -1}, "gap is -1; want from 0 to 10,000"),
        (MatchToSample, {"curriculum": "some"}, "curriculum is 'some'; want 'single' or 'many'"),
        (MatchToSample, {"curriculum": "many", "marked": False}, "marked is False, .* nothing would tell N; want marked=true"),
        (AssociativeRecall, {"pairs": 0}, "pairs is 0; want from 1 to 100,000"),
        (AssociativeRecall, {"keys": 7}, r"keys is 7; want from 8 to 100,000 \(one for each pair\)"),
        (AssociativeRecall, {"slots": 7}, r"slots is 7; want from 8 to 100,000 \(one for each pair\)"),
        (AssociativeRecall, {"values": 1}, "values is 1; want from 2 to 100,000"),
        (AssociativeRecall, {"power": 0.0}, "power is 0.0; want a number above 0"),
        (FlipFlop, {"channels": 0}, "channels is 0; want from 1 to 100"),
        (FlipFlop, {"probability": 1.5}, "probability is 1.5; want from 0 to 1"),
        (FlipFlop, {"steps": 0}, "steps is 0; want from 1 to 100,000"),
        (Sine, {"shortest": 1.0}, "shortest is 1.0; want a period of at least 2 steps"),
        (Sine, {"longest": 10.0}, "longest is 10.0; want a period above the shortest, 10.0"),
        (Sine, {"steps": 0}, "steps is 0; want from 1 to 100,000"),
        (PathIntegration, {"dimensions": 1}, "dimensions is 1; want 2 or 3"),
        (PathIntegration, {"speed": 0.0}, "speed is 0.0; want a number above 0, up to 1"),
        (PathIntegration, {"turn": 4.0}, "turn is 4.0; want radians from 0 to pi"),
        (PathIntegration, {"steps": 0}, "steps is 0; want from 1 to 100,000"),
    ],
)
def test_settings_that_make_no_task_are_refused_by_name(task: type[Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**settings)
