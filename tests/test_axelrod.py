"""The Axelrod library's strategies at our tables and our occupants at its tables, by letters: C cooperates, D defects."""

import multiprocessing
import re
from functools import cache

import pytest
import torch

from agents.agent import AgentConfig
from agents.co_players import CO_PLAYERS
from agents.co_players.axelrod import AxelrodCoPlayer, as_axelrod_player, library
from agents.co_players.tables import RandomTable, Table
from agents.occupant import Decision, Occupant
from envs.chance import Purpose, seeds_of
from envs.iterated_dilemma import IteratedDilemma, matching_pennies
from training.population import co_player
from training.rollout import Rollout
from training.seating import one_table
from training.settings import load

# What a player sees after (own action, the other's action).
SYMBOL = {"": 0, "CC": 1, "CD": 2, "DC": 3, "DD": 4}

OPPONENTS = (
    "Cooperator",
    "Defector",
    "Alternator",
    "Grudger",
    "Tit For Tat",
    "Tit For 2 Tats",
    "Two Tits For Tat",
    "Suspicious Tit For Tat",
    "Win-Stay Lose-Shift",
    "Cycler CCD",
    "Cycler DDC",
    "Cycler CCCDCD",
    "Go By Majority",
    "ThueMorse",
)
# Ours, by the name in CO_PLAYERS, and theirs that does the same, without chance. Its "Gradual" is a later variant.
OURS_AND_THEIRS = {
    "always_cooperate": "Cooperator",
    "always_defect": "Defector",
    "alternator": "Alternator",
    "cycler": "Cycler CCD",
    "tit_for_tat": "Tit For Tat",
    "suspicious_tit_for_tat": "Suspicious Tit For Tat",
    "contrite_tit_for_tat": "Contrite Tit For Tat",
    "anti_tit_for_tat": "Anti Tit For Tat",
    "tit_for_two_tats": "Tit For 2 Tats",
    "two_tits_for_tat": "Two Tits For Tat",
    "hard_tit_for_tat": "Hard Tit For Tat",
    "hard_tit_for_two_tats": "Hard Tit For 2 Tats",
    "slow_tit_for_tat": "Slow Tit For Two Tats 2",
    "spiteful_tit_for_tat": "Spiteful Tit For Tat",
    "bully": "Bully",
    "win_stay_lose_shift": "Win-Stay Lose-Shift",
    "win_shift_lose_stay": "Win-Shift Lose-Stay",
    "appeaser": "Appeaser",
    "grim_trigger": "Grudger",
    "soft_grudger": "Soft Grudger",
    "fool_me_once": "Fool Me Once",
    "forgiver": "Forgiver",
    "gradual": "Original Gradual",
    "soft_majority": "Go By Majority",
    "hard_majority": "Hard Go By Majority",
    "davis": "First by Davis",
    "nydegger": "First by Nydegger",
    "shubik": "First by Shubik",
    "handshake": "Handshake",
    "prober": "Prober",
    "prober_2": "Prober 2",
    "prober_3": "Prober 3",
    "hard_prober": "Hard Prober",
}
# Theirs sees a slip otherwise: it is contrite only if the other cooperated, and asks for the other's first two moves alone.
APART_AFTER_SLIPS = {"contrite_tit_for_tat", "nydegger"}
# The same for those with chance: it is their probabilities that are compared.
WITH_CHANCE = {
    "random": "Random",
    "generous_tit_for_tat": "GTFT",
    "generous_tit_for_tat:generosity=0.1": "Soft Joss",
    "firm_but_fair": "Firm But Fair",
    "table:cooperates=[1.0,0.95,0.05,0.05,0.95]": "Stochastic WSLS",
    "joss": "First by Joss",
    "grofman": "First by Grofman",
    "feld": "First by Feld",
    "tullock": "First by Tullock",
}
CLASSICAL = "temptation=5,mutual=3,punishment=1,sucker=0"
# After CC, CD, DC, DD; the first move differs. Shares of the largest scale: theirs times the gap that limits it.
ZERO_DETERMINANT = {
    f"extortion:slope=2,{CLASSICAL},scale=0.5": "ZD-Extort-2",
    f"extortion:slope=4,{CLASSICAL}": "ZD-Extort-4",
    f"generosity:slope=2,{CLASSICAL}": "ZD-GTFT-2",
    f"generosity:slope=2,{CLASSICAL},scale=0.5": "ZD-GEN-2",
    f"equalizer:baseline=2,{CLASSICAL},scale=0.75": "ZD-SET-2",
    f"equalizer:baseline=1,{CLASSICAL},scale=0.4": "ZD-Mischief",
}


@cache
def strategy(name):
    return AxelrodCoPlayer(name)


def seeds(count, first=0):
    return seeds_of(20261123, Purpose.OCCUPANT, count, first=first)


def letters(actions):
    return "".join("CD"[int(action)] for action in actions)


def answers(player, others, luck=None):
    """What a co-player does while the other plays the letters `others`."""
    state, outcome, played = player.start(seeds(1) if luck is None else luck), torch.tensor([0]), ""
    for letter in others:
        decision, state = player.act({"outcome": outcome}, state, torch.zeros(1))
        played += letters(decision.action)
        outcome = 1 + 2 * decision.action + "CD".index(letter)
    return played


def sees(player, situations):
    """What a co-player does at each of the situations that it is told it is in."""
    state, played = player.start(seeds(1)), ""
    for situation in situations:
        decision, state = player.act({"outcome": torch.tensor([SYMBOL[situation]])}, state, torch.zeros(1))
        played += letters(decision.action)
    return played


def match(first, second, turns, seed=1):
    """The letters of both in a match of the library's."""
    plays = library().Match((first, second), turns=turns, seed=seed).play()
    return tuple("".join(str(pair[side]) for pair in plays) for side in (0, 1))


def theirs(name, **settings):
    """A new player of the library's."""
    (kind,) = (kind for kind in library().all_strategies if kind.name == name)
    return kind(**settings)


@pytest.mark.parametrize(
    ("name", "others", "expected"),
    [
        ("Tit For Tat", "DDCDC", "CDDCD"),
        ("Win-Stay Lose-Shift", "CDDDD", "CCDCD"),
        ("Grudger", "CCDCC", "CCCDD"),
        ("Tit For 2 Tats", "DDCDD", "CCDCC"),
        ("Suspicious Tit For Tat", "CDCC", "DCDC"),
        ("Alternator", "DDCDC", "CDCDC"),
        ("Cycler CCD", "DDCDCDD", "CCDCCDC"),
        ("Hard Tit For Tat", "CDCCCC", "CCDDDC"),
    ],
)
def test_strategies_answer_as_they_should(name, others, expected):
    assert answers(strategy(name), others) == expected


@pytest.mark.parametrize("name", ["Tit For Tat", "tit for tat", "TitForTat", "TITFORTAT", "tit_for_tat"])
def test_a_strategy_goes_by_its_name_or_its_classes_however_it_is_written(name):
    assert answers(strategy(name), "DDCDC") == "CDDCD"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "Tit For Tatt"}, "the Axelrod library has no strategy 'Tit For Tatt'; did you mean 'Tit For Tat'?"),
        ({"name": "###"}, "the Axelrod library has no strategy '###'; there are 'Tit For Tat' and the rest of its all_strategies"),
        ({"name": "darwin"}, "name is 'darwin', a strategy that inspects its opponent's code; want one that goes by the moves alone"),
        (
            {"name": "ZD-Extortion", "payoffs": (4.0, 2.0, 5.0, 3.0)},
            "payoffs is (4.0, 2.0, 5.0, 3.0), which 'ZD-Extortion' cannot play; want other payoffs for it",
        ),
        (
            {"name": "Tit For Tat", "payoffs": (1.0, float("nan"), 2.0, 0.0)},
            "payoffs is (1.0, nan, 2.0, 0.0); want four finite numbers, for CC, CD, DC, DD",
        ),
        ({"name": "Tit For Tat", "longest": 0}, "longest is 0; want at least 1"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AxelrodCoPlayer(**settings)


def test_a_match_that_outlasts_the_memory_is_refused():
    player = AxelrodCoPlayer("Tit For Tat", longest=3)
    assert answers(player, "DCDC") == "CDCD"
    with pytest.raises(ValueError, match="longest is 3; this match goes on for more rounds than that: want as many as it has"):
        answers(player, "DCDCD")


def test_importing_the_library_leaves_alone_how_processes_start():
    library()
    assert multiprocessing.get_start_method(allow_none=True) != "spawn"


# By chance, by rule, by counting, by learning, by machine, by payoffs, by hidden states.
VARIOUS = ("Random", "Tit For Tat", "First by Joss", "Gradual", "Risky QLearner", "Fortress4", "Stalker", "Evolved HMM 5")


@pytest.mark.parametrize("name", VARIOUS)
def test_rows_are_strangers_and_only_their_own_seeds_matter(name):
    outcomes = torch.randint(5, (12, 9), generator=torch.Generator().manual_seed(3))

    def actions(rows):
        player = AxelrodCoPlayer(name)
        state, played = player.start(seeds(9)[rows]), []
        for outcome in outcomes[:, rows]:
            decision, state = player.act({"outcome": outcome}, state, torch.zeros(len(rows)))
            played.append(decision.action)
        return torch.stack(played)

    together = actions(torch.arange(9))
    assert torch.equal(actions(torch.tensor([7, 0, 3])), together[:, [7, 0, 3]])
    assert torch.equal(torch.cat([actions(torch.tensor([row])) for row in range(9)], 1), together)


@pytest.mark.parametrize("name", VARIOUS)
def test_an_old_state_can_be_stepped_again_also_by_another_copy_of_the_player(name):
    player = AxelrodCoPlayer(name)
    assert isinstance(player, Occupant)
    states, actions = [player.start(seeds(4))], []
    outcomes = [torch.zeros(4, dtype=torch.int64)] + [torch.tensor([1, 2, 3, 4])] * 9
    for outcome in outcomes:
        before = [leaf.clone() for leaf in states[-1]]
        decision, state = player.act({"outcome": outcome}, states[-1], torch.zeros(4))
        assert all(torch.equal(old, new) for old, new in zip(before, states[-1], strict=True))
        states.append(state)
        actions.append(decision.action)
    for stepping in (player, AxelrodCoPlayer(name)):
        for t in (9, 4, 4, 5, 0):
            decision, after = stepping.act({"outcome": outcomes[t]}, states[t], torch.zeros(4))
            assert torch.equal(decision.action, actions[t])
            assert all(torch.equal(one, other) for one, other in zip(after, states[t + 1], strict=True))


def test_two_futures_of_one_state_do_not_touch_each_other():
    player = AxelrodCoPlayer("Grudger")
    _, state = player.act({"outcome": torch.tensor([0])}, player.start(seeds(1)))
    for others, answer in (("C", "C"), ("D", "D"), ("C", "C")):
        decision, _ = player.act({"outcome": torch.tensor([SYMBOL["C" + others]])}, state)
        assert letters(decision.action) == answer


def test_players_that_had_to_be_let_go_are_rebuilt_as_they_were():
    player = AxelrodCoPlayer("Random")
    kept = answers(player, "CD" * 10)
    state, outcome, played = player.start(seeds(1)), torch.tensor([0]), ""
    for letter in "CD" * 10:
        player._live.matches.clear()
        decision, state = player.act({"outcome": outcome}, state)
        played += letters(decision.action)
        outcome = 1 + 2 * decision.action + "CD".index(letter)
    assert played == kept
    assert set(kept) == {"C", "D"}


def test_of_the_players_of_past_trials_it_keeps_four_for_each_row():
    player = AxelrodCoPlayer("Tit For Tat")
    for first in range(0, 1800, 300):
        player.act({"outcome": torch.zeros(300, dtype=torch.int64)}, player.start(seeds(300, first)))
    # And those of the last step.
    assert len(player._live.matches) == 1200 + 300


def test_chance_is_the_seeds_and_only_the_seeds():
    plays = [answers(strategy("Random"), "C" * 60, seeds(1, number)) for number in (0, 1, 0)]
    assert plays[0] == plays[2] != plays[1]
    # The library's own generator, started from the seed's low 32 bits.
    player, opponent = library().Random(), library().Cooperator()
    player.set_seed(int(seeds(1)) % 2**32)
    assert plays[0] == "".join(str(player.strategy(opponent)) for _ in range(60))


def test_it_learns_what_was_played_where_an_action_slipped():
    # It chose C and played D: an alternator goes on from the D.
    assert sees(strategy("Alternator"), ("", "DC", "CC")) == "CCD"
    # The other is said to have defected, so it did.
    assert sees(strategy("Grudger"), ("", "CC", "CD", "DC")) == "CCDD"


def test_every_episode_is_a_match_of_its_own_with_other_luck():
    assert sees(strategy("Grudger"), ("", "CD", "DD", "", "CC", "CC")) == "CDDCCC"
    rounds = sees(strategy("Random"), ("", *["CC"] * 39) * 2)
    assert rounds[:40] != rounds[40:]
    # Even where an episode is one round.
    assert set(sees(strategy("Random"), ("",) * 40)) == {"C", "D"}


def test_it_is_told_the_payoffs():
    # After six cooperations and five defections "Adaptive" takes what has earned more, here against a cooperator.
    assert answers(AxelrodCoPlayer("Adaptive"), "C" * 14) == "CCCCCCDDDDDDDD"
    assert answers(AxelrodCoPlayer("Adaptive", (6.0, 0.0, 5.0, 1.0)), "C" * 14) == "CCCCCCDDDDDCCC"


def test_it_is_not_told_when_a_match_ends():
    # Told 12, "BackStabber" would defect in the last two.
    assert answers(strategy("BackStabber"), "C" * 12) == "C" * 12
    assert strategy("BackStabber")._seat(0).match_attributes["length"] == float("inf")


def test_it_sits_in_a_rollout_from_trial_to_trial():
    names = ("theirs", "always_defect")
    occupants = {"theirs": AxelrodCoPlayer("Tit For 2 Tats", longest=5), "always_defect": co_player("always_defect")}
    rollout = Rollout(IteratedDilemma(rounds=5), one_table(names, 3), occupants, episodes=2)
    _, log = rollout.play(rollout.start(seeds(3)), 20)
    rewards = log.rewards["player"][:, :, 0]
    # Two losses of 1 in every five rounds.
    assert rewards.T.tolist() == [[-1.0, -1.0, 0.0, 0.0, 0.0] * 4] * 3


def test_noise_breaks_their_friendship_as_it_does_ours():
    def mean(occupants):
        rollout = Rollout(
            IteratedDilemma(rounds=60, noise=0.05), one_table(("one", "other"), 40), dict(zip(("one", "other"), occupants, strict=True))
        )
        _, log = rollout.play(rollout.start(seeds(40)), 60)
        return log.rewards["player"].mean((0, 1)).tolist()

    ours = co_player("tit_for_tat")
    assert mean((strategy("Tit For Tat"), strategy("Tit For Tat"))) == mean((ours, ours))


@pytest.mark.slow
def test_all_strategies_but_the_one_that_looks_beyond_the_moves_play_a_trial_alike_in_a_batch_alone_and_again():
    outcomes = torch.randint(1, 5, (20, 2), generator=torch.Generator().manual_seed(5))
    outcomes[0] = 0

    def actions(player, columns):
        state, played = player.start(seeds(2)[columns]), []
        for outcome in outcomes[:, columns]:
            decision, state = player.act({"outcome": outcome}, state, torch.zeros(len(columns)))
            played.append(decision.action)
        return torch.stack(played)

    refused, played = {}, 0
    for kind in library().all_strategies:
        try:
            player = AxelrodCoPlayer(kind.name)
        except ValueError as error:
            refused[kind.__name__] = str(error)
            continue
        assert player._strategy is AxelrodCoPlayer(kind.__name__)._strategy is kind
        together = actions(player, torch.arange(2))
        alone = [actions(AxelrodCoPlayer(kind.name), torch.tensor([column])) for column in (0, 1)]
        assert torch.equal(torch.cat(alone, 1), together), kind.name
        played += 1
    assert played == 243
    assert refused == {"Darwin": "name is 'Darwin', a strategy that inspects its opponent's code; want one that goes by the moves alone"}


def agent(seed=0):
    """Untrained."""
    (role,) = IteratedDilemma().roles
    return AgentConfig().build(role.observation_space, role.action_space, seed).eval()


class Noting:
    """In place of a library's player's luck: notes with what probability it cooperates, and lets it."""

    def random_choice(self, p):
        self.chance = p
        return library().Action.C


def their_chances(name, outcomes):
    """With what probability theirs cooperates at each outcome [rounds], having seen all before."""
    player, other, luck, chances = theirs(name), library().Player(), Noting(), []
    player._random = luck
    for outcome in outcomes.tolist():
        if outcome:
            pair = [library().Action(action) for action in divmod(outcome - 1, 2)]
            player.update_history(*pair)
            other.update_history(*pair[::-1])
        luck.chance = None
        action = player.strategy(other)
        chances.append(luck.chance if luck.chance is not None else 1.0 - action.value)
    return chances


@pytest.mark.parametrize("name", OURS_AND_THEIRS)
def test_ours_plays_the_letters_of_theirs(name):
    for opponent in OPPONENTS:
        ours = match(as_axelrod_player(co_player(name), name), theirs(opponent), 60)
        assert ours == match(theirs(OURS_AND_THEIRS[name]), theirs(opponent), 60), opponent


@pytest.mark.parametrize(
    ("name", "their_name"), [pair for pair in (OURS_AND_THEIRS | WITH_CHANCE).items() if pair[0] not in APART_AFTER_SLIPS]
)
def test_our_chance_to_cooperate_is_theirs_whatever_was_played(name, their_name):
    player, rounds, rows = co_player(name), 230, 6
    # All moves at random, one's own too, with more and more defection from row to row.
    luck = torch.rand(rounds, rows, 2, generator=torch.Generator().manual_seed(11))
    own, others = (luck < torch.linspace(0.05, 0.95, rows)[:, None]).long().unbind(-1)
    outcomes = (1 + 2 * own + others).index_fill(0, torch.tensor([0]), 0)
    state, ours = player.start(seeds(rows)), []
    for outcome in outcomes:
        decision, state = player.act({"outcome": outcome}, state, torch.zeros(rows))
        ours.append(decision.policy[:, 0])
    expected = torch.tensor([their_chances(their_name, outcomes[:, row]) for row in range(rows)], dtype=torch.float32)
    torch.testing.assert_close(torch.stack(ours, 1), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ZERO_DETERMINANT)
def test_our_zero_determinant_tables_are_theirs(name):
    ours, player = co_player(name), theirs(ZERO_DETERMINANT[name])
    assert isinstance(ours, Table)
    assert ours.cooperates[1:] == pytest.approx(tuple(player._four_vector.values()), abs=1e-9)


def test_each_of_our_co_players_can_enter_a_match():
    ours = {name: load(path)() for name, path in CO_PLAYERS.items()}
    for name, player in ours.items():
        if player.reads != {"outcome": 5}:
            continue
        mine, others = match(as_axelrod_player(player, name), theirs("Alternator"), 6)
        assert (len(mine), others) == (6, "CDCDCD")


def test_a_tournament_with_our_agent_runs_and_repeats_with_the_same_seed():
    def play(seed):
        players = [theirs(name) for name in ("Tit For Tat", "Defector", "Random", "Win-Stay Lose-Shift")]
        players.append(as_axelrod_player(agent(), "our GRU"))
        return library().Tournament(players, turns=8, repetitions=2, seed=seed).play(progress_bar=False)

    first, again, other = play(3), play(3), play(4)
    assert first.players == ["Tit For Tat", "Defector", "Random: 0.5", "Win-Stay Lose-Shift", "our GRU"]
    assert first.scores == again.scores != other.scores
    assert first.ranked_names == again.ranked_names


class Notes:
    """Plays the letters it is given and keeps what it perceives."""

    def __init__(self, plays):
        self.plays, self.outcomes, self.rewards = plays, [], []

    def start(self, seeds):
        return (torch.zeros_like(seeds),)

    def act(self, observation, state, reward=None):
        self.outcomes.append(int(observation["outcome"]))
        self.rewards.append(float(reward))
        return Decision(torch.tensor(["CD".index(self.plays[int(state[0])])])), (state[0] + 1,)


def test_our_occupant_sees_what_was_played_and_earns_what_our_game_pays():
    notes = Notes("CDCDC")
    assert match(as_axelrod_player(notes, "notes"), theirs("Cycler CCD"), 5) == ("CDCDC", "CCDCC")
    assert notes.outcomes == [0, SYMBOL["CC"], SYMBOL["DC"], SYMBOL["CD"], SYMBOL["DC"]]
    assert notes.rewards == [0.0, 1.0, 2.0, -1.0, 2.0]
    notes = Notes("CDCDC")
    match(as_axelrod_player(notes, "notes", payoffs=(3.0, 0.0, 5.0, 1.0)), theirs("Cycler CCD"), 5)
    assert notes.rewards == [0.0, 3.0, 5.0, 0.0, 5.0]


def test_our_occupant_sees_slips():
    player = as_axelrod_player(co_player("tit_for_tat"), "ours")
    assert (
        library().Match((player, theirs("Cooperator")), turns=4, noise=1, seed=1).play()
        == library().Match((theirs("Tit For Tat"), theirs("Cooperator")), turns=4, noise=1, seed=1).play()
    )


def test_our_player_is_its_seed_and_starts_anew_when_reset_or_cloned():
    def play(player):
        opponent = theirs("Cooperator")
        for _ in range(40):
            pair = player.strategy(opponent), opponent.strategy(player)
            player.update_history(*pair)
            opponent.update_history(*pair[::-1])
        return "".join(str(action) for action in player.history)

    player = as_axelrod_player(RandomTable(), "ours", seed=7)
    first = play(player)
    assert play(player.clone()) == first
    player.reset()
    assert play(player) == first
    player.reset()
    player.set_seed(8)
    assert play(player) != first
    assert (str(player), library().Classifiers["stochastic"](player)) == ("ours", True)


def test_asking_our_player_twice_or_ahead_does_not_move_it():
    player, opponent = as_axelrod_player(co_player("grim_trigger"), "ours"), theirs("Cooperator")
    C, D = library().Action.C, library().Action.D
    assert [player.strategy(opponent) for _ in range(3)] == [C, C, C]
    # Two rounds that are then taken back.
    for asked in (D, D):
        player.update_history(C, D)
        opponent.update_history(D, C)
        assert player.strategy(opponent) == asked
    for history in (player.history, opponent.history):
        history.reset()
    player.update_history(C, C)
    opponent.update_history(C, C)
    assert player.strategy(opponent) == C


@pytest.mark.parametrize("game", [matching_pennies(), IteratedDilemma((((1.0, 1.0),) * 3,) * 3, ("rock", "paper", "scissors"))])
def test_an_occupant_of_another_game_cannot_enter(game):
    (role,) = game.roles
    stranger = AgentConfig().build(role.observation_space, role.action_space, 0)
    with pytest.raises(ValueError, match="want one that reads outcome as 5 symbols and has 2 actions"):
        as_axelrod_player(stranger, "stranger")
