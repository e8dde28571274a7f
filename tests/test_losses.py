"""Losses worked by hand, and the algorithms that put them together."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.agent import Outlook
from agents.heads import head_of
from envs.iterated_dilemma import IteratedDilemma
from training.algorithms import A2C, PPO, Batch, clip_gradients, minibatches
from training.losses import a2c_policy_loss, approximate_kl, generalised_advantages, normalise, ppo_policy_loss, value_loss
from training.rollout import Trajectories

repeatable = settings(deadline=None, derandomize=True)
NEVER = torch.tensor([[False, False, False]])


def advantages(r_t, v_t, ended_t, v_last, discount=0.5, trace=0.5):
    return generalised_advantages(torch.tensor(r_t), torch.tensor(v_t), ended_t, torch.tensor(v_last), discount, trace)


def test_advantages_of_three_steps_by_hand():
    # delta: 1 + .5 * 1 - .5 = 1;  2 + .5 * 1.5 - 1 = 1.75;  3 + .5 * 2 - 1.5 = 2.5. Each step back takes a quarter along.
    found = advantages([[1.0, 2.0, 3.0]], [[0.5, 1.0, 1.5]], NEVER, [2.0])
    assert found.tolist() == [[1.59375, 2.375, 2.5]]


def test_nothing_flows_back_across_the_end_of_a_trial():
    # The middle step ends a trial: its delta is 2 - 1, whatever is worth 1.5 after it.
    ended = torch.tensor([[False, True, False]])
    assert advantages([[1.0, 2.0, 3.0]], [[0.5, 1.0, 1.5]], ended, [2.0]).tolist() == [[1.25, 1.0, 2.5]]
    assert advantages([[1.0, 2.0, 99.0]], [[0.5, 1.0, -7.0]], ended, [-50.0])[:, :2].tolist() == [[1.25, 1.0]]


def test_the_value_of_what_follows_is_left_out_where_the_last_step_ends_a_trial():
    ended = torch.tensor([[False, False, True]])
    # The last delta is 3 - 1.5.
    assert advantages([[1.0, 2.0, 3.0]], [[0.5, 1.0, 1.5]], ended, [2.0]).tolist() == [[1.53125, 2.125, 1.5]]


def test_with_a_full_trace_advantages_are_returns_minus_values():
    # Returns with discount 0.5, the last value included: 1 + 1 + .75 + .25 = 3; 2 + 1.5 + .5 = 4; 3 + 1 = 4.
    assert advantages([[1.0, 2.0, 3.0]], [[0.5, 1.0, 1.5]], NEVER, [2.0], trace=1.0).tolist() == [[2.5, 3.0, 2.5]]


def test_without_a_trace_advantages_are_one_step_errors():
    assert advantages([[1.0, 2.0, 3.0]], [[0.5, 1.0, 1.5]], NEVER, [2.0], trace=0.0).tolist() == [[1.0, 1.75, 2.5]]


def test_rows_have_advantages_of_their_own():
    r_t, v_t = [[1.0, 2.0, 3.0], [0.0, 0.0, 4.0]], [[0.5, 1.0, 1.5], [0.0, 0.0, 0.0]]
    ended = torch.tensor([[False, True, False], [False, False, False]])
    assert advantages(r_t, v_t, ended, [2.0, 8.0]).tolist() == [[1.25, 1.0, 2.5], [0.5, 2.0, 8.0]]


ADVANTAGE = torch.tensor([[1.0, 3.0], [5.0, 7.0], [10.0, 20.0]])
KIND = torch.tensor([0, 0, 1])


def test_advantages_are_centred_for_each_kind_separately():
    assert normalise(ADVANTAGE, KIND, "centre").tolist() == [[-3, -1], [1, 3], [-5, 5]]


def test_standardised_advantages_share_one_deviation_so_that_kinds_keep_their_relative_size():
    # The squares of the centred six sum to 70: a deviation of sqrt(70 / 6).
    found = normalise(ADVANTAGE, KIND, "standardise")
    torch.testing.assert_close(found, torch.tensor([[-3.0, -1], [1, 3], [-5, 5]]) / 3.4156503)


def test_advantages_may_be_left_alone_and_are_never_edited():
    before = ADVANTAGE.clone()
    for how in ("none", "centre", "standardise"):
        found = normalise(ADVANTAGE, KIND, how)
        assert torch.equal(ADVANTAGE, before)
        assert torch.equal(found, before) == (how == "none")


def test_advantages_that_are_all_the_same_become_zero_not_nan():
    assert normalise(torch.full((3, 2), 4.0), KIND, "standardise").tolist() == [[0, 0]] * 3


@pytest.mark.filterwarnings("ignore:std")
def test_a_lone_step_can_be_standardised():
    assert normalise(torch.tensor([[3.0]]), torch.tensor([0]), "standardise").tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "learns"),
    [(1.5, 2.0, -2.4, False), (0.5, 2.0, -1.0, True), (1.5, -2.0, 3.0, True), (0.5, -2.0, 1.6, False), (1.1, 2.0, -2.2, True)],
)
def test_the_ppo_loss_is_clipped_where_a_ratio_has_gone_far_enough(ratio, advantage, loss, learns):
    log_prob = torch.tensor([math.log(ratio * 0.25)], requires_grad=True)
    found = ppo_policy_loss(log_prob, torch.tensor([math.log(0.25)]), torch.tensor([advantage]), 0.2)
    assert found.item() == pytest.approx(loss, abs=1e-6)
    found.backward()
    # Unclipped, the gradient is - ratio * advantage.
    assert log_prob.grad.item() == pytest.approx(-ratio * advantage if learns else 0.0, abs=1e-6)


def test_the_ppo_loss_is_a_mean_over_steps():
    log_prob = torch.tensor([[1.5, 0.5], [1.5, 0.5]]).log()
    found = ppo_policy_loss(log_prob, torch.zeros(2, 2), torch.tensor([[2.0, 2.0], [-2.0, -2.0]]), 0.2)
    assert found.item() == pytest.approx((-2.4 - 1.0 + 3.0 + 1.6) / 4, abs=1e-6)


def test_the_a2c_loss_by_hand():
    assert a2c_policy_loss(torch.tensor([-1.0, -2.0]), torch.tensor([3.0, -0.5])).item() == 1.0


def test_the_value_loss_by_hand():
    assert value_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 2.5]])).item() == 4.625


def test_the_kl_divergence_of_a_policy_from_itself_is_zero():
    log_prob = torch.tensor([0.5, 0.25, 0.01]).log()
    assert approximate_kl(log_prob, log_prob).item() == 0.0


def test_the_kl_estimate_is_exact_in_expectation_and_from_the_old_policy_to_the_new():
    old, new = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.125, 0.125, 0.75])
    # Actions as often as the old policy takes them. KL(old, new) = log 4 / 2 + log 2 / 4 - log 3 / 4; the other way it is 0.564.
    actions = torch.tensor([0, 0, 1, 2])
    found = approximate_kl(new.log()[actions], old.log()[actions])
    assert found.item() == pytest.approx(0.5917808, abs=1e-6)


@repeatable
@given(st.lists(st.tuples(st.floats(-20, 0), st.floats(-20, 0)), min_size=1))
def test_the_kl_estimate_is_never_negative(pairs):
    log_prob, old_log_prob = torch.tensor(pairs, dtype=torch.float64).T
    assert approximate_kl(log_prob, old_log_prob).item() >= -1e-12


@pytest.mark.parametrize("rows", [1, 2, 3, 10, 33])
def test_every_epoch_goes_through_all_rows_once_in_an_order_of_its_own(rows):
    parts = list(minibatches(rows, PPO(epochs=3, minibatches=4), 5, 2))
    count = min(4, rows)
    assert len(parts) == 3 * count
    epochs = [torch.cat(parts[first : first + count]) for first in range(0, len(parts), count)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(rows))
    assert {len(part) for part in parts} <= {rows // count, -(-rows // count)}
    if rows >= 10:
        assert len({tuple(epoch.tolist()) for epoch in epochs}) == 3


def test_minibatches_depend_on_seed_and_iteration_alone():
    def order(seed, iteration, **settings):
        return torch.cat(list(minibatches(20, PPO(epochs=1, **settings), seed, iteration))).tolist()

    first = order(1, 0)
    torch.manual_seed(99)
    assert order(1, 0) == order(1, 0, minibatches=2) == order(1, 0, learning_rate=0.1) == first
    assert len({tuple(order(seed, iteration)) for seed in (1, 2) for iteration in (0, 1)}) == 4


def test_gradients_longer_than_the_norm_are_shortened_together_in_place():
    gradients = [torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]
    assert clip_gradients(gradients, 1.0).item() == 5.0
    torch.testing.assert_close(gradients[0], torch.tensor([0.6]))
    torch.testing.assert_close(gradients[1], torch.tensor([[0.0, 0.8]]))


def test_gradients_within_the_norm_stay_as_they_are():
    gradients = [torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]
    assert clip_gradients(gradients, 6.0).item() == 5.0
    assert [gradient.tolist() for gradient in gradients] == [[3.0], [[0.0, 4.0]]]


def lived():
    """One trial of three steps with value 2 ahead, and another that ends."""
    return Trajectories(
        observation={"outcome": torch.zeros(2, 3, dtype=torch.int64)},
        action=torch.tensor([[0, 1, 0], [1, 1, 0]]),
        log_prob=torch.full((2, 3), math.log(0.5)),
        value=torch.tensor([[0.5, 1.0, 1.5], [0.5, 1.0, 1.5]]),
        reward=torch.tensor([[10.0, 20.0, 30.0], [10.0, 20.0, 30.0]]),
        action_before=torch.zeros(2, 3, dtype=torch.int64),
        reward_before=torch.zeros(2, 3),
        reset=torch.tensor([[True, False, False], [True, False, False]]),
        ended=torch.tensor([[False, False, False], [False, False, True]]),
        kind=torch.tensor([0, 1]),
        last_value=torch.tensor([2.0, 2.0]),
        memory=None,
    )


def test_rewards_are_scaled_before_advantages_and_targets_are_worked_out():
    algorithm = A2C(discount=0.5, trace=0.5, reward_scale=0.1, advantages="none")
    batch = algorithm.prepare(lived())
    torch.testing.assert_close(batch.advantage, torch.tensor([[1.59375, 2.375, 2.5], [1.53125, 2.125, 1.5]]))
    torch.testing.assert_close(batch.target, torch.tensor([[2.09375, 3.375, 4.0], [2.03125, 3.125, 3.0]]))


def test_targets_are_worked_out_before_advantages_are_centred():
    settings = {"discount": 0.5, "trace": 0.5, "reward_scale": 0.1}
    plain, centred = (PPO(advantages=how, **settings).prepare(lived()) for how in ("none", "centre"))
    assert torch.equal(plain.target, centred.target)
    # The rows are of different kinds: each is centred by itself.
    torch.testing.assert_close(centred.advantage.mean(1), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(centred.advantage[0], torch.tensor([1.59375, 2.375, 2.5]) - 2.15625)


def batch_of(log_prob, advantage, target):
    """Two steps of a coin that fell on 0 and 1."""
    blank = torch.zeros(1, 2)
    return Batch(
        {"outcome": blank.long()}, torch.tensor([[0, 1]]), blank.long(), blank, blank.bool(), None, log_prob, advantage, target
    )  # fmt: skip


def test_the_whole_loss_by_hand():
    head = head_of(IteratedDilemma().roles[0].action_space, 4)
    policy = torch.tensor([[[0.75, 0.25], [0.75, 0.25]]]).log()
    outlook = Outlook(policy, torch.tensor([[1.0, 2.0]]), None)
    batch = batch_of(torch.full((1, 2), math.log(0.5)), torch.tensor([[2.0, -2.0]]), torch.tensor([[2.0, 4.0]]))
    # Ratios 1.5 and 0.5, clipped to 1.2 and 0.8: -(2.4 - 1.6) / 2. Values: (1 + 4) / 2. Entropy of 3/4: 0.562335.
    loss, figures = PPO(clip=0.2, value_coefficient=0.5, entropy_coefficient=0.1).loss(head, outlook, batch, 0.0)
    assert figures["policy_loss"].item() == pytest.approx(-0.4, abs=1e-6)
    assert figures["value_loss"].item() == pytest.approx(2.5)
    assert figures["entropy"].item() == pytest.approx(0.562335, abs=1e-6)
    # The mean of 1.5 - 1 - log 1.5 and 0.5 - 1 - log 0.5.
    assert figures["kl"].item() == pytest.approx(0.1438410, abs=1e-6)
    assert loss.item() == pytest.approx(-0.4 + 0.5 * 2.5 - 0.1 * 0.562335, abs=1e-6)
    loss, figures = A2C(value_coefficient=1.0, entropy_coefficient=0.0).loss(head, outlook, batch, 0.0)
    # -(2 log .75 - 2 log .25) / 2 = -log 3.
    assert figures["policy_loss"].item() == pytest.approx(-1.0986123, abs=1e-6)
    assert loss.item() == pytest.approx(2.5 - 1.0986123, abs=1e-6)


def test_an_update_makes_what_paid_more_likely():
    head = head_of(IteratedDilemma().roles[0].action_space, 1)
    batch = batch_of(torch.full((1, 2), math.log(0.5)), torch.tensor([[1.0, -1.0]]), torch.zeros(1, 2))
    for algorithm in (PPO(learning_rate=0.1), A2C(learning_rate=0.1)):
        y = torch.ones(1, 2, 1)
        before = head(y, None)[0, 0, 0].item()
        optimiser = algorithm.optimiser(head)
        assert optimiser.param_groups[0]["lr"] == 0.1
        loss, _ = algorithm.loss(head, Outlook(head(y, None), torch.zeros(1, 2), None), batch, 0.0)
        loss.backward()
        optimiser.step()
        assert head(y, None)[0, 0, 0].item() > before


def test_schedules_go_linearly_from_the_first_value_to_the_final_one():
    algorithm = PPO(learning_rate=0.4, final_learning_rate=0.2, entropy_coefficient=0.5, final_entropy_coefficient=1.0)
    assert [algorithm.learning_rate_at(progress) for progress in (0.0, 0.5, 1.0, 1.7)] == pytest.approx([0.4, 0.3, 0.2, 0.2])
    assert [algorithm.entropy_coefficient_at(progress) for progress in (0.0, 0.25, 1.0)] == pytest.approx([0.5, 0.625, 1.0])
    assert PPO(learning_rate=0.4).learning_rate_at(0.9) == 0.4
    assert PPO(entropy_coefficient=0.0).entropy_coefficient_at(0.9) == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0; want at least 1"),
        ({"minibatches": 0}, "minibatches is 0; want at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; want a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; want a number above 0"),
        ({"max_gradient_norm": -1.0}, "max_gradient_norm is -1.0; want a number above 0"),
        ({"discount": 1.5}, "discount is 1.5; want a number from 0 to 1"),
        ({"trace": -0.5}, "trace is -0.5; want a number from 0 to 1"),
        ({"entropy_coefficient": -0.1}, "entropy_coefficient is -0.1; want 0 or more"),
        ({"advantages": "center"}, "advantages is 'center'; want 'none', 'centre' or 'standardise'"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(settings, message):
    for algorithm in (PPO, A2C):
        with pytest.raises(ValueError, match=message):
            algorithm(**settings)


@pytest.mark.parametrize("setting", ["clip", "final_learning_rate", "final_entropy_coefficient"])
def test_these_settings_are_refused_by_name_too(setting):
    with pytest.raises(ValueError, match=f"{setting} is -1.0; want"):
        PPO(**{setting: -1.0})
