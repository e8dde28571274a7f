"""Hierarchical chunk attention against the released layer's numbers, a loop that is written out, and plays worked by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.agent import AgentConfig
from envs.iterated_dilemma import prisoners_dilemma
from memory import attention, hcam
from memory.depth_recurrent import DepthRecurrentConfig
from memory.hcam import ChunkAttention, HCAMConfig, Readable
from memory.kernels import hcam_recall
from training.experiment import Experiment

DATA = Path(__file__).parent.parent / "data"
WEIGHTS = {
    "relevance_query.weight": "query.w",
    "relevance_key.weight": "key.w",
    "query.weight": "within_query.w",
    "query.bias": "within_query.b",
    "key.weight": "within_key.w",
    "value.weight": "within_value.w",
    "value.bias": "within_value.b",
    "out.weight": "within_linear.w",
    "out.bias": "within_linear.b",
}


def mixer(width=4, heads=2, chunk_length=3, chunks=4, recalled=2, place_code=True, seed=0):
    memory = ChunkAttention(width, heads, chunk_length, chunks, recalled, place_code).double()
    luck = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=luck, dtype=parameter.dtype))
    return memory


def plain(chunk_length=1, chunks=3, recalled=1):
    """Every projection leaves its input as it is, so that what is recalled can be read off."""
    memory = mixer(2, 1, chunk_length, chunks, recalled, place_code=False)
    with torch.no_grad():
        for name, parameter in memory.named_parameters():
            parameter.copy_(torch.zeros(2) if name.endswith("bias") else torch.eye(2))
    return memory


def trial(steps):
    x = torch.tensor([steps], dtype=torch.float64)
    reset = torch.zeros(x.shape[:2], dtype=torch.bool)
    reset[:, 0] = True
    return x, reset


def random_trials(seed, rows, steps, resets, width=4):
    luck = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, steps, width, generator=luck, dtype=torch.float64)
    reset = torch.rand(rows, steps, generator=luck) < resets
    reset[:, 0] = True
    return x, reset


def released(number):
    """The arrays of one vector, matrices for `x @ w` turned into ours."""
    arrays = {name: torch.from_numpy(value) for name, value in np.load(DATA / f"hcam_attention_{number}.npz").items()}
    return {name: value.T if name.endswith(".w") else value for name, value in arrays.items()}


def released_layer(oracle):
    _, chunks, chunk_length, width = oracle["contents"].shape
    memory = ChunkAttention(width, int(oracle["num_heads"]), chunk_length, chunks, int(oracle["k"]), bool(oracle["position_code"]))
    with torch.no_grad():
        for ours, theirs in WEIGHTS.items():
            memory.get_parameter(ours).copy_(oracle[f"param.{theirs}"])
    return memory


@pytest.mark.parametrize("number", range(3))
def test_recall_agrees_with_the_released_layer_in_outputs_and_gradients(number):
    oracle = released(number)
    memory = released_layer(oracle)
    visible = oracle.get("mask", torch.ones(*oracle["queries"].shape[:2], oracle["contents"].shape[1], dtype=torch.bool))
    # The program behind the vectors added the places to its array in place, once per run: what is stored has them, as ours has, and the
    # run that took gradients had them once more.
    output = memory.attend(oracle["queries"], Readable(oracle["contents"], oracle["summaries"]), visible)
    torch.testing.assert_close(output, oracle["output"], rtol=1e-5, atol=1e-5)
    oracle["contents"] = oracle["contents"] + memory.place
    queries, contents, summaries = (oracle[name].clone().requires_grad_() for name in ("queries", "contents", "summaries"))
    output = memory.attend(queries, Readable(contents, summaries), visible)
    sources = {"grad_queries": queries, "grad_summaries": summaries, "grad_contents": contents}
    sources |= {f"grad.{theirs}": memory.get_parameter(ours) for ours, theirs in WEIGHTS.items()}
    found = torch.autograd.grad((output * oracle["grad_output"]).sum(), list(sources.values()), allow_unused=True, materialize_grads=True)
    for name, gradient in zip(sources, found, strict=True):
        size = max(1.0, oracle[name].abs().max().item())
        torch.testing.assert_close(
            gradient / size, oracle[name] / size, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    # The bias of a key, which ours leaves out, learns nothing there either.
    assert oracle["grad.within_key.b"].abs().max() < 1e-5


@pytest.mark.parametrize("number", [0, 1])
def test_places_in_a_chunk_are_coded_as_in_the_released_layer(number):
    oracle = released(number)
    # Contents are standard normal, with the places added twice; the summaries are from before.
    contents = oracle["contents"] - 2 * released_layer(oracle).place
    torch.testing.assert_close(contents.mean(2), oracle["summaries"], rtol=0, atol=1e-6)
    assert contents.std().item() == pytest.approx(1, abs=0.05)


def recalled_step_by_step(memory, x, reset):
    """The outputs of a store kept as a Python list, with every stored step projected to keys and values."""
    rows, steps, width = x.shape
    heads, size = memory.heads, width // memory.heads
    outputs = []
    for b in range(rows):
        chunks, unfinished = [], []
        for t in range(steps):
            if reset[b, t]:
                chunks, unfinished = [], []
            y = torch.zeros(width, dtype=x.dtype)
            if chunks:
                asked = memory.relevance_query(x[b, t])
                relevance = torch.stack([asked @ memory.relevance_key(chunk.mean(0)) / width**0.5 for chunk in chunks])
                best = relevance.argsort(descending=True)[: memory.recalled]
                for weight, chosen in zip(relevance[best].softmax(0), best, strict=True):
                    chunk = chunks[chosen] + memory.place
                    query = memory.query(x[b, t]).view(heads, size)
                    key, value = memory.key(chunk).view(-1, heads, size), memory.value(chunk).view(-1, heads, size)
                    attention = (torch.einsum("hd,chd->hc", query, key) / size**0.5).softmax(1)
                    y = y + weight * memory.out(torch.einsum("hc,chd->hd", attention, value).flatten())
            outputs.append(y)
            unfinished.append(x[b, t].detach())
            if len(unfinished) == memory.chunk_length:
                chunks, unfinished = [*chunks, torch.stack(unfinished)][-memory.chunks :], []
    return torch.stack(outputs).view(rows, steps, width)


@pytest.mark.parametrize("place_code", [True, False])
@pytest.mark.parametrize("resets", [0.0, 0.1])
def test_all_steps_at_once_recall_what_a_loop_over_lists_recalls(place_code, resets):
    memory = mixer(place_code=place_code)
    x, reset = random_trials(1, 3, 31, resets)
    x.requires_grad_()
    y, _ = memory(x, memory.start(3), reset)
    wanted = recalled_step_by_step(memory, x, reset)
    torch.testing.assert_close(y, wanted)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    sources = [x, *memory.parameters()]
    for found, want in zip(
        torch.autograd.grad((y * weights).sum(), sources), torch.autograd.grad((wanted * weights).sum(), sources), strict=True
    ):
        torch.testing.assert_close(found, want)


def test_one_step_recalls_the_step_most_like_it():
    memory = plain()
    x, reset = trial([[3, 0], [0, 4], [2, 0], [0, 1]])
    y, _ = memory(x, memory.start(1), reset)
    assert y[0].tolist() == [[0, 0], [3, 0], [3, 0], [0, 4]]


def test_two_chunks_count_by_their_relevance():
    memory = plain(recalled=2)
    x, reset = trial([[3, 0], [0, 3], [1, 0]])
    y, _ = memory(x, memory.start(1), reset)
    # Relevances 3 and 0 over sqrt(2): exp(2.12132) = 8.34214, so 0.892958 and 0.107042.
    torch.testing.assert_close(y[0, 2], torch.tensor([2.678873, 0.321127], dtype=torch.float64), rtol=0, atol=2e-6)


def test_the_oldest_chunk_makes_way():
    memory = plain(chunks=2, recalled=2)
    x, reset = trial([[9, 0], [0, 1], [0, 1], [1, 0]])
    y, _ = memory(x, memory.start(1), reset)
    assert y[0, 3].tolist() == [0, 1]


@pytest.mark.parametrize(("chunks", "seen"), [(1, [3, 4, 5]), (2, [3, 4, 5, 6, 7, 8]), (4, [3, 4, 5, 6, 7, 8, 9, 10, 11])])
def test_a_chunk_is_seen_from_the_step_after_its_last_until_the_store_is_full(chunks, seen):
    memory = mixer(chunks=chunks, recalled=chunks)
    x, reset = random_trials(3, 1, 12, 0.0)
    other = x.clone()
    other[:, 1] += 1
    change = (memory(x, memory.start(1), reset)[0] - memory(other, memory.start(1), reset)[0]).abs().amax((0, 2))
    assert change.nonzero()[:, 0].tolist() == seen


def test_nothing_stored_takes_gradients():
    memory = mixer()
    x, reset = random_trials(4, 2, 9, 0.0)
    x.requires_grad_()
    y, after = memory(x, memory.start(2), reset)
    (gradient,) = torch.autograd.grad(y[:, 8].sum(), x)
    assert gradient[:, :8].eq(0).all()
    assert gradient[:, 8].ne(0).any()
    assert not any(leaf.requires_grad for leaf in after)


def test_what_is_looked_into_is_named_by_its_age():
    memory = plain(recalled=2)
    x, reset = trial([[3, 0], [0, 4], [2, 0], [0, 1]])
    seen = memory.inspect(x, memory.start(1), reset)
    # Step 3 looks at step 1 first; then steps 0 and 2 are equally irrelevant.
    assert seen["recalled"][0, :3].tolist() == [[0, 0], [1, 0], [2, 1]]
    assert seen["recalled"][0, 3, 0] == 2
    assert seen["weights"][0, 0].tolist() == [0, 0]
    assert seen["weights"][0, 1].tolist() == [1, 0]


@pytest.mark.parametrize("few", [0, 5])
def test_chunks_fetched_in_parts_or_all_attended_to_give_the_same_as_all_fetched_at_once(few, monkeypatch):
    monkeypatch.setattr(hcam_recall, "FEW", few)
    luck = torch.Generator().manual_seed(5)
    query, contents, weights = (
        torch.randn(shape, generator=luck, dtype=torch.float64) for shape in ((2, 5, 2, 4), (2, 6, 3, 4), (2, 5, 2))
    )
    chosen = torch.randint(6, (2, 5, 2), generator=luck)
    fetched = torch.stack([contents[b][chosen[b]] for b in range(2)])
    attention = torch.einsum("bthd,btkcd->bthkc", query, fetched).softmax(-1)
    wanted = torch.einsum("btk,bthkc,btkcd->bthd", weights, attention, fetched)
    # 24 numbers a step.
    for size in (1, 24, 80, 10**6):
        monkeypatch.setattr(hcam_recall, "_FETCHED", size)
        torch.testing.assert_close(hcam_recall.recall(query, contents, chosen, weights), wanted)
        assert torch.autograd.gradcheck(
            lambda query, weights: hcam_recall.recall(query, contents, chosen, weights),
            (query.clone().requires_grad_(), weights.clone().requires_grad_()),
        )


def test_a_step_with_fewer_chunks_than_it_may_recall_shares_its_weight_among_these():
    query, summaries = torch.ones(1, 2, 1), torch.tensor([[[5.0], [2.0], [2.0]]])
    visible = torch.tensor([[[False, True, True], [False, False, False]]])
    chosen, weights = hcam_recall.choose(query, summaries, visible, 3)
    assert sorted(chosen[0, 0, :2].tolist()) == [1, 2]
    assert weights.tolist() == [[[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]]


def test_leaving_out_what_is_not_filled_yet_changes_nothing(monkeypatch):
    memory = mixer(chunks=9, recalled=2)
    x, reset = random_trials(7, 3, 26, 0.05)
    found = []
    for few in (0, 4):
        monkeypatch.setattr(hcam_recall, "FEW", few)
        memory.zero_grad()
        state, outputs = memory.start(3), []
        for part, begins in zip(x.split(2, 1), reset.split(2, 1), strict=True):
            y, state = memory(part, state, begins)
            outputs.append(y)
        torch.cat(outputs, 1).square().sum().backward()
        found.append([torch.cat(outputs, 1).detach(), *state, *(parameter.grad.clone() for parameter in memory.parameters())])
    stored = state.contents[:2]
    assert memory._empty(torch.tensor([0, 7]), stored) == 7
    assert memory._empty(torch.tensor([0, 0]), stored) == 8
    assert memory._empty(torch.tensor([0, 3]), torch.cat([stored, stored], 1)) == 0
    for without, with_all in zip(*found, strict=True):
        torch.testing.assert_close(without, with_all)


def test_a_store_that_grows_has_room_for_the_longest_trial_of_the_experiment_and_forgets_nothing():
    config = HCAMConfig(width=4, layers=1, heads=2, chunk_length=3, chunks=2, recalled=2, grows=True, window=2)
    experiment = Experiment(agent=AgentConfig(memory=config), game=prisoners_dilemma(), episodes=2)
    assert experiment.steps == 200
    assert experiment.agent.memory == replace(config, chunks=66)
    assert replace(experiment, episodes=1).agent.memory == replace(config, chunks=33)
    assert HCAMConfig(grows=True, recalled=20).build(4).layers[0].chunks.chunks == 20
    bounded = replace(config, grows=False)
    assert Experiment(agent=AgentConfig(memory=bounded)).agent.memory == bounded
    around = DepthRecurrentConfig(width=4, core=config)
    assert Experiment(agent=AgentConfig(memory=around)).agent.memory.core.chunks == 33
    memory = experiment.agent.memory.build(4)
    x, reset = random_trials(8, 1, 200, 0.0)
    _, state = memory(x.float(), memory.start(1), reset)
    assert state[0].chunks.summaries.abs().sum(2).gt(0).all()


def test_where_asking_would_stall_the_device_the_same_is_recalled_and_kept(monkeypatch):
    memory = HCAMConfig(width=4, layers=1, heads=2, chunk_length=3, chunks=2, recalled=2, window=2).build(4).double()
    x, reset = random_trials(6, 3, 14, 0.1)
    wanted, after = memory(x, memory.start(3), reset)
    for module in (attention, hcam):
        monkeypatch.setattr(module, "may_be_true", lambda flags: True)
    state, outputs = memory.start(3), []
    for t in range(14):
        y, state = memory(x[:, t : t + 1], state, reset[:, t : t + 1])
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), wanted)
    for found, want in zip((*state[0].window, *state[0].chunks), (*after[0].window, *after[0].chunks), strict=True):
        torch.testing.assert_close(found, want)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"recalled": 17}, "HCAMConfig.recalled is 17; want at most HCAMConfig.chunks, which is 16"),
        ({"heads": 3}, "HCAMConfig.heads is 3, which does not divide HCAMConfig.width 128; want one of 1, 2, 4, 8, 16, 32, 64"),
        ({"chunk_length": 0}, "HCAMConfig.chunk_length is 0; want a whole number from 1 to 65,536"),
        ({"chunks": 0}, "HCAMConfig.chunks is 0; want a whole number"),
        ({"recalled": 0}, "HCAMConfig.recalled is 0; want a whole number"),
        ({"layers": 0}, "HCAMConfig.layers is 0; want a whole number"),
        ({"window": -1}, "HCAMConfig.window is -1; want a whole number"),
        ({"expansion": 0}, "HCAMConfig.expansion is 0; want a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        HCAMConfig(**settings)


def test_the_published_initialisation_has_variance_two_over_the_inputs():
    torch.manual_seed(0)
    memory = ChunkAttention(256, 4, 2, 2, 1)
    # sqrt(2 / 256) = 0.0884; no weight lies beyond 2 / 0.8796 of that.
    assert memory.value.weight.std().item() == pytest.approx(0.0884, rel=0.01)
    assert memory.value.weight.abs().max() < 0.2010
    assert memory.out.bias.eq(0).all()
