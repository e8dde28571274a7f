"""Complete, named experiments. Each says what it trains, on what machine, how long, and the result it promises.

`PRESETS` names them, as `module:function`. A variant edits another's result with `dataclasses.replace`. `STUDIES` names what trains many
experiments side by side and tests them itself.
"""

from __future__ import annotations

from dataclasses import replace

from agents.agent import AgentConfig
from agents.auxiliary import Auxiliary
from agents.co_players.referential import people
from envs.ballet import Ballet
from envs.captions import lexicon
from envs.coin_game import CoinGame
from envs.commons import Commons
from envs.diagnostics.hidden_markov import HiddenMarkov
from envs.diagnostics.linear_regression import LinearRegression
from envs.diagnostics.match_to_sample import MatchToSample
from envs.diagnostics.sorting import Sorting
from envs.donor_game import donor_game_in_quarters
from envs.iterated_dilemma import prisoners_dilemma
from envs.public_goods import PublicGoods
from envs.referential import Referential
from envs.rooms3d.hidden_object import hidden_object_small
from envs.rooms3d.one_saw import one_saw_small
from envs.rooms3d.rapid_words import rapid_words_small
from memory.gru import GRUConfig
from memory.linear_attention import DeltaRuleConfig
from memory.transformer_xl import TransformerXLConfig
from training.algorithms import PPO, StraightThrough, Supervised
from training.experiment import Experiment
from training.schemes.mixture import Mixture, Pairing, best_response, mixed_pool
from training.schemes.self_play import SelfPlay, independent

PRESETS: dict[str, str] = {
    "donor_game_quick": "training.presets:donor_game_quick",
    "ipd_in_context_quick": "training.presets:ipd_in_context_quick",
    "ipd_mixed_pool_quick": "training.presets:ipd_mixed_pool_quick",
    "referential_quick": "training.presets:referential_quick",
    "referential_gumbel_quick": "training.presets:referential_gumbel_quick",
    "linear_regression_quick": "training.presets:linear_regression_quick",
    "two_learners": "training.presets:two_learners",
    "coin_game_quick": "training.presets:coin_game_quick",
    "public_goods_quick": "training.presets:public_goods_quick",
    "commons_quick": "training.presets:commons_quick",
    "match_to_sample_quick": "training.presets:match_to_sample_quick",
    "hidden_markov_quick": "training.presets:hidden_markov_quick",
    "sorting_quick": "training.presets:sorting_quick",
    "hidden_object_quick": "training.presets:hidden_object_quick",
    "one_saw_quick": "training.presets:one_saw_quick",
    "rapid_words_quick": "training.presets:rapid_words_quick",
    "ballet_symbols_quick": "training.presets:ballet_symbols_quick",
}

STUDIES: dict[str, str] = {
    "memory_benchmark": "training.memory_benchmark:MemoryBenchmark",
}


def ipd_mixed_pool_quick() -> Experiment:
    """The mixed pool of Weis et al. 2026 in three minutes.

    Two learners (a GRU of 32 each), half of their trials against each other, half against random tables; three to four minutes on two
    cores. Promise, for each learner of every seed, on luck that no run trains on: it tells co-players apart within the trial. Cooperation
    against tit-for-tat above 0.15 (0.18 to 0.56 on seeds 0 to 2), against always-defect and always-cooperate below 0.02 (at most 0.006);
    reward per round against unseen tables above 0.93 (0.958 to 0.965). Learners do not come to cooperate with each other in this time.
    Departures from the paper: docs/results.md.
    """
    return Experiment(
        preset="ipd_mixed_pool_quick",
        game=prisoners_dilemma(),
        agent=AgentConfig(memory=GRUConfig(32)),
        scheme=mixed_pool(),
        algorithm=PPO(
            learning_rate=0.003,
            final_learning_rate=0.001,
            # Defection pays at once, reciprocity later and only against some: without this much entropy at first, exploration dies out in
            # twenty iterations and what remains is always-defect.
            entropy_coefficient=0.3,
            final_entropy_coefficient=0.1,
            # A co-player's answer comes within a few rounds. A short horizon lets its share of the return be heard above the noise.
            discount=0.9,
            trace=0.8,
            reward_scale=0.2,
        ),
        trials=768,
        iterations=450,
    )


def ipd_in_context_quick() -> Experiment:
    """In-context best response to random tables, the first step of Weis et al. 2026, in eight minutes.

    One learner (a GRU of 32) against tables drawn anew for every trial. Nothing tells it whom it meets: it must find out by playing.
    Promise, on every seed and luck that no run trains on: cooperation in rounds 61 to 100 above 0.8 with tit-for-tat (0.95 to 0.97 on seeds
    0 to 2), below 0.15 with always-defect (at most 0.02) and below 0.1 with always-cooperate (0.000); reward per round against unseen
    tables from U(0, 1) above 1.01 (1.018 over three seeds of 16,384 trials; always-defect earned 0.997 in the same trials, the best
    response to known tables would earn 1.049). Departures from the paper: docs/results.md.
    """
    quick = ipd_mixed_pool_quick()
    return replace(
        quick,
        preset="ipd_in_context_quick",
        # Tables from U(0, 1) seldom answer in kind; U-shaped ones do more often, and make what is learned about them less a matter of luck.
        scheme=best_response("random_table+random_table:a=0.5,b=0.5"),
        # Much entropy for long, as in `ipd_mixed_pool_quick`, but down to where what is left of it costs little against tables.
        algorithm=replace(quick.algorithm, final_entropy_coefficient=0.05),
        iterations=1300,
    )


def donor_game_quick() -> Experiment:
    """Reputation pays in the donor game: about a minute on two cores.

    One learner (a GRU of 32) in four of twelve seats, among two free riders and six image scorers. These give 75 % to whoever gave half or
    more in its last donor turn, half to those of whom nothing is known, and nothing to others. Promise, for every seed, on luck that no run
    trains on: in this village it gives more than 0.25 on average; in the control, `game.trace_depth=0`, in which the image scorers hear as
    little as it does, less than 0.02. Seeds 0 to 2: 0.403, 0.370, 0.375; in the control 0.000, 0.000, 0.001. With a trace it gives about
    0.6 in the first rounds and next to nothing in the last, after which nobody can repay it.
    """
    # Six of a learner's eleven fellows reward a gift, so that more often than not the next donor does.
    village = ("learner_0",) * 4 + ("image_scoring_villager:gives=0.75,threshold=0.5",) * 6 + ("free_riding_villager",) * 2
    return Experiment(
        preset="donor_game_quick",
        game=donor_game_in_quarters(),
        agent=AgentConfig(memory=GRUConfig(32)),
        scheme=Mixture(("learner_0",), (Pairing(village, "village"),)),
        algorithm=PPO(
            learning_rate=0.003,
            final_learning_rate=0.001,
            # As in `ipd_mixed_pool_quick`: giving costs at once, what comes back comes a round later.
            entropy_coefficient=0.3,
            final_entropy_coefficient=0.05,
            discount=0.9,
            trace=0.8,
            # Rewards are resources, tens at a time.
            reward_scale=0.05,
        ),
        trials=256,
        iterations=250,
        suite="donor_game",
    )


def referential_quick() -> Experiment:
    """A speaker and a listener who come to understand each other and people, in minutes.

    Two learners (a GRU of 128 each) in a world of four shapes in four colours, four candidates, up to five words: in 0.4 of the games they
    talk to each other, in 0.4 the listener hears one of eight simulated people, in 0.2 one of them hears the speaker. Promise: accuracy
    above 0.9 between the learners (0.973 to 0.992 on seeds 0 to 2), above 0.8 when the listener hears people whom it never met (0.926 to
    0.953) and when such people hear the speaker (0.957 to 0.969). Three and a half minutes.
    """
    values = (4, 4)
    game = Referential(candidates=4, length=5, vocabulary=len(lexicon(values)), values=values, cost=0.01)
    speaking, listening = people(game, first=0)
    return Experiment(
        preset="referential_quick",
        game=game,
        agent=AgentConfig(memory=GRUConfig(128), embedding=128),
        scheme=Mixture(
            ("learner_0", "learner_1"),
            (
                Pairing(("learner_0", "learner_1"), "learner", 0.4),
                Pairing((speaking, "learner_1"), "speaking_people", 0.4),
                Pairing(("learner_0", listening), "listening_people", 0.2),
            ),
        ),
        algorithm=PPO(
            learning_rate=0.003,
            final_learning_rate=0.0005,
            entropy_coefficient=0.02,
            final_entropy_coefficient=0.002,
            discount=1.0,
            # What a word means is found in many small steps: two epochs on twice the trials had learned nothing when four had begun to.
            epochs=4,
            minibatches=4,
        ),
        trials=512,
        iterations=500,
        suite="referential",
    )


def referential_gumbel_quick() -> Experiment:
    """A speaker and a listener who come to understand each other by straight-through Gumbel-softmax, in minutes.

    As `referential_quick`, but the listener is told what was meant, the speaker learns through what the listener hears
    (`training.messages`), words cost nothing, and in 0.3 of the games the listener hears people, without whom neither begins. Promise:
    accuracy above 0.8 between the learners (0.86, 0.98 and 0.95 on seeds 0 to 2). Four minutes.
    """
    quick = referential_quick()
    assert isinstance(quick.game, Referential)
    game = replace(quick.game, cost=0.0)
    speaking, _ = people(game, first=0)
    return replace(
        quick,
        preset="referential_gumbel_quick",
        game=game,
        scheme=Mixture(
            ("learner_0", "learner_1"),
            (Pairing(("learner_0", "learner_1"), "learner", 0.7), Pairing((speaking, "learner_1"), "speaking_people", 0.3)),
        ),
        algorithm=StraightThrough(
            learning_rate=0.003,
            final_learning_rate=0.0006,
            # Without it the speaker may fall silent before anybody understands it, or settle on words of which several mean the same.
            entropy_coefficient=0.02,
            final_entropy_coefficient=0.0005,
            epochs=4,
            minibatches=4,
        ),
        iterations=400,
    )


def linear_regression_quick() -> Experiment:
    """Linear regression in context, taught: two layers of the delta rule come near ridge regression, in minutes.

    Promise, on luck that no run trains on: the last guess of an episode, after 40 pairs, loses at most 1.2 times what ridge regression with
    the best strength does on the same luck (0.114; on average 0.1145, `envs.diagnostics.linear_regression.ridge_loss`). Seeds 0 to 2:
    0.131, 0.129 and 0.135, which is 1.15, 1.13 and 1.18 times as much, after 252 to 388 s of one core.
    """
    return Experiment(
        preset="linear_regression_quick",
        game=LinearRegression(),
        agent=AgentConfig(memory=DeltaRuleConfig(64), embedding=64, activation="none", acts="best"),
        scheme=SelfPlay(),
        algorithm=Supervised(learning_rate=0.003, final_learning_rate=0.0001, minibatches=16),
        trials=256,
        iterations=200,
        suite="alone",
    )


def two_learners() -> Experiment:
    """Two learners with weights of their own on any game: the place to start with `game=...`. It promises nothing but to run."""
    return Experiment(preset="two_learners", scheme=independent(), trials=256, iterations=50, suite="together")


def coin_game_quick() -> Experiment:
    """The Coin Game with a script that answers theft, and a little with each other, in one to five minutes.

    Two learners (a GRU of 32 each), a fifth of their trials against each other. Promise, for each learner of every seed, against the
    suite's four scripts, the other learner and frozen learners of other seeds: of the coins that it takes more than 0.9 are its own
    (0.995 to 1.000 on seeds 0 to 2), where chance and greed give 0.5. The greedy script exploits it: -0.27 to -0.26 per step.
    """
    return Experiment(
        preset="coin_game_quick",
        game=CoinGame(rounds=50),
        agent=AgentConfig(memory=GRUConfig(32)),
        # Among themselves selfish learners take every coin, and with more of their trials among themselves they do so with everybody. The
        # script makes theft dear within the horizon of the discount: it takes back for five steps.
        scheme=mixed_pool(0.2, "coin_conditional:grudge=5"),
        algorithm=PPO(
            learning_rate=0.003,
            final_learning_rate=0.001,
            # Theft pays at once. Whoever stops exploring early never sees a script that has forgiven.
            entropy_coefficient=0.3,
            final_entropy_coefficient=0.02,
            discount=0.9,
            trace=0.8,
            reward_scale=0.3,
        ),
        trials=256,
        iterations=120,
        suite="coin_game",
    )


def public_goods_quick() -> Experiment:
    """Public goods with punishment: one learner among three who punish whoever gives less than half, in half a minute.

    Promise, among the suite's punishers, who strike harder: the learner gives what they ask for and no more, 0.6 of its endowment, and
    earns above 17 per step (18.04 to 18.23 on seeds 0 to 2; 18.4 is the most there is, giving all earns 16, giving at random 9.8 and giving
    nothing 2.2). It gives as much to those who never punish: it has met none.
    """
    return Experiment(
        preset="public_goods_quick",
        game=PublicGoods(levels=6, point_costs=(0.0, 1.0, 2.0, 4.0), rounds=10),
        agent=AgentConfig(memory=GRUConfig(32)),
        scheme=Mixture(("learner_0",), (Pairing(("learner_0", *("punisher:levels=6,points_each=2",) * 3), "punishers"),)),
        algorithm=PPO(
            learning_rate=0.003,
            final_learning_rate=0.001,
            entropy_coefficient=0.05,
            final_entropy_coefficient=0.002,
            # A punishment follows one step after its cause.
            discount=0.9,
            trace=0.8,
            reward_scale=0.03,
        ),
        trials=512,
        iterations=150,
        suite="public_goods",
    )


def commons_quick() -> Experiment:
    """The commons: one learner among three who take what others take, in half a minute.

    Promise, among the suite's conditional harvesters: the learner takes about as much as they will bear and earns above 3 per round (3.61
    to 3.82 on seeds 0 to 2; the sustainable script earns 2.68, random harvests 1.53, greed 0.84); the stock is below its threshold in 0.03
    to 0.11 of all rounds, against 0.94 with greed. Four copies of the learner ruin it: they have met nobody but patient ones.
    """
    return Experiment(
        preset="commons_quick",
        game=Commons(),
        agent=AgentConfig(memory=GRUConfig(32)),
        scheme=Mixture(("learner_0",), (Pairing(("learner_0", *("conditional_harvester:keeps=0.6",) * 3), "conditional"),)),
        algorithm=PPO(
            learning_rate=0.003,
            final_learning_rate=0.001,
            entropy_coefficient=0.05,
            final_entropy_coefficient=0.005,
            # What is left in the water pays for many rounds.
            discount=0.97,
            trace=0.9,
            reward_scale=0.1,
        ),
        trials=256,
        iterations=150,
        suite="commons",
    )


def match_to_sample_quick() -> Experiment:
    """Delayed match to sample, taught: a GRU of 32 keeps a symbol for up to 20 steps, after seconds of training.

    Each episode draws its delay from 1 to 20. Promise, on every seed and luck that no run trains on: more than 0.95 of the answers are
    right, also where every delay is 20. Seeds 0 to 2: 1.000, with delays of 50 and 100 as well; 40 iterations, some seven seconds of one
    core, were enough for each. With nothing but delays of 20 it was still at chance after 200 iterations.
    """
    return Experiment(
        preset="match_to_sample_quick",
        game=MatchToSample(queries=4, curriculum="many"),
        agent=AgentConfig(memory=GRUConfig(32), acts="best"),
        scheme=SelfPlay(),
        algorithm=Supervised(learning_rate=0.01, final_learning_rate=0.001, minibatches=4),
        trials=256,
        iterations=100,
        suite="together",
    )


def hidden_markov_quick() -> Experiment:
    """A partner with moods, taught: a GRU of 32 comes to guess its acts as well as can be, after 13 seconds of training on one core.

    Promise, for every seed, on luck that no run trains on: more than 0.72 of its guesses are right. Measured: 0.744 over seeds 0 to 2,
    in trials in which the forward algorithm (`mood_reader`) has 0.745. Repeating the partner's last act has some 0.05 less.
    """
    return Experiment(
        preset="hidden_markov_quick",
        game=HiddenMarkov(),
        agent=AgentConfig(memory=GRUConfig(32), acts="best"),
        scheme=SelfPlay(),
        algorithm=Supervised(learning_rate=0.003, final_learning_rate=0.001, minibatches=8),
        trials=256,
        iterations=40,
        suite="alone",
    )


def sorting_quick() -> Experiment:
    """Sorting five numbers by pointing, taught: twenty iterations, seconds of one core.

    Promise, on every seed and luck that no run trains on: more than 0.95 of the choices are right. Seeds 0 to 2: 1.000, and every row
    sorted, in 2,000 trials each. It is that easy because a network that points starts out all but linear in an item's number, so that
    before training seed 1 sorts already and seeds 0 and 2 take the greatest.
    """
    return Experiment(
        preset="sorting_quick",
        game=Sorting(),
        # What was taken is seen to be gone. Perceiving places would tie it to five of them.
        agent=AgentConfig(memory=GRUConfig(32), sees_action=False, acts="best"),
        scheme=SelfPlay(),
        algorithm=Supervised(learning_rate=0.01, final_learning_rate=0.001, minibatches=4),
        trials=256,
        iterations=20,
        suite="alone",
    )


def hidden_object_quick() -> Experiment:
    """Object permanence from pixels: which of two boxes the object is in that is asked for, in minutes.

    One learner (a GRU of 64) sees a red ball and a green cube hidden in two boxes, one after the other, waits, hears the name of one of
    them and walks. Promise: it goes to the right box in more than 0.9 of its trials, where chance gives 0.5 (1.000, 0.992
    and 0.992 on seeds 0 to 2, luck that no run trains on). Three minutes; for the first hundred iterations or two nothing seems to happen.
    """
    return Experiment(
        preset="hidden_object_quick",
        game=hidden_object_small(),
        agent=AgentConfig(memory=GRUConfig(64), embedding=64),
        scheme=SelfPlay(),
        algorithm=PPO(
            learning_rate=0.003,
            final_learning_rate=0.001,
            entropy_coefficient=0.02,
            final_entropy_coefficient=0.005,
            discount=0.95,
            trace=0.95,
            epochs=4,
        ),
        trials=256,
        iterations=400,
        suite="alone",
    )


def one_saw_quick() -> Experiment:
    """One saw, one did not, from pixels and rewards alone: a watcher comes to read a witness's walk and to remember it, in minutes.

    Two learners (a GRU of 64 each). The witness sees in which of two boxes something is hidden and walks to one, while the watcher looks on
    from the back of the hall; both wait, and the watcher walks. Promise, on luck that no run trains on: the watcher goes to the right box
    in more than 0.9 of trials, where chance gives 0.5 (0.999, 0.999 and 0.998 on seeds 0 to 2), with a stranger for a witness, too. Four
    minutes of one core.
    """
    quick = hidden_object_quick()
    return replace(
        quick,
        preset="one_saw_quick",
        game=one_saw_small(),
        # Scaled as well, advantages undo what was learned: once everybody is right their deviation is all noise.
        algorithm=replace(quick.algorithm, learning_rate=0.001, final_learning_rate=0.0003, advantages="centre"),
        iterations=200,
        suite="together",
    )


def ballet_symbols_quick() -> Experiment:
    """Ballet from symbols, taught: who of two dancers danced what the word says, with the paper's short delay.

    Two layers of attention over the whole trial, 64 wide, which also forecast what is seen next: to do that they must know the dances.
    Promise, on luck that no run trains on: the right dancer in more than 0.9 of trials, where chance gives 0.5, after seven to nine minutes
    of two cores. Measured: 0.955, 0.995 and 0.971 on seeds 0 to 2. A trial ends after 66 steps, four after the word, and not after 320. For
    the first hundred iterations it walks up to either.
    """
    game = Ballet(pixels=False, limit=66)
    return Experiment(
        preset="ballet_symbols_quick",
        game=game,
        agent=AgentConfig(
            memory=TransformerXLConfig(width=64, layers=2, window=game.limit, expansion=2),
            embedding=64,
            # While there are dances actions do nothing, and seeing one's own random ones hides what is to be learned.
            sees_action=False,
            sees_reward=False,
            acts="best",
            auxiliary=Auxiliary(forecast=1.0),
        ),
        scheme=SelfPlay(),
        # Small minibatches: what counts is how many updates there are.
        algorithm=Supervised(shows=True, learning_rate=0.002, final_learning_rate=0.0003, minibatches=8),
        trials=256,
        iterations=450,
        suite="alone",
    )


def rapid_words_quick() -> Experiment:
    """Rapid word learning from pixels, taught: two objects get made-up words, and one is to be fetched, in minutes.

    Two layers of attention over the whole trial, 64 wide, which also forecast what is seen next. Promise, on luck that no run trains on:
    the right object in more than 0.8 of trials, where chance gives 0.5 (1.000 on
    seeds 0 to 2). Four minutes of one core; for the first hundred iterations it fetches either.
    """
    return Experiment(
        preset="rapid_words_quick",
        game=rapid_words_small(),
        agent=AgentConfig(
            memory=TransformerXLConfig(width=64, layers=2, window=16, expansion=2),
            embedding=64,
            acts="best",
            auxiliary=Auxiliary(forecast=1.0),
        ),
        scheme=SelfPlay(),
        algorithm=Supervised(shows=True, learning_rate=0.002, final_learning_rate=0.0003, minibatches=8),
        trials=256,
        iterations=300,
        suite="alone",
    )
