"""Lazy eviction against a loop over lists written apart from it, and evictions worked by hand."""

import math

import pytest
import torch

from memory.lazy_eviction import EVICTIONS, LazyAttention, LazyEvictionConfig, Marks

WIDTH, HEADS = 8, 2


def attention(seed=1, **settings):
    config = LazyEvictionConfig(width=WIDTH, layers=1, heads=HEADS, **settings)
    memory = LazyAttention(config).double()
    luck = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=luck, dtype=torch.float64))
    return memory


def turned(vector, position):
    """Rotary position, pair by pair, on complex numbers."""
    half = len(vector) // 2
    frequencies = torch.tensor([10_000.0 ** (-i / half) for i in range(half)], dtype=torch.float64)
    numbers = torch.complex(vector[:half], vector[half:]) * torch.exp(1j * position * frequencies)
    return torch.cat([numbers.real, numbers.imag])


def naive(memory, x, reset):
    """One row, a step at a time, the store a list of dictionaries. Outputs [T, D], and the positions left after each step."""
    config, size = memory.config, WIDTH // HEADS
    store, clock, outputs, left = [], 0, [], []
    for t in range(len(x)):
        if reset[t]:
            store, clock = [], 0
        query, key, value = (memory.project.weight @ x[t] + memory.project.bias).reshape(3, HEADS, size)
        store.append({"key": [turned(k, clock) for k in key], "value": value, "at": clock, "ts": clock, "mri": 0, "mass": 0.0})
        answer, shares = [], [0.0] * len(store)
        for h in range(HEADS):
            q = turned(query[h], clock)
            scores = [float(q @ slot["key"][h]) / math.sqrt(size) for slot in store]
            weights = [math.exp(score - max(scores)) for score in scores]
            weights = [weight / sum(weights) for weight in weights]
            answer.append(sum(weight * slot["value"][h] for weight, slot in zip(weights, store, strict=True)))
            shares = [share + weight / HEADS for share, weight in zip(shares, weights, strict=True)]
        outputs.append(memory.out.weight @ torch.cat(answer) + memory.out.bias)
        for slot, share in zip(store, shares, strict=True):
            slot["mass"] += share
            if share > config.threshold / len(store):
                slot["mri"] = max(slot["mri"], clock - slot["ts"])
                slot["ts"] = clock
        if (clock + 1) % config.window == 0 and len(store) > config.chunks:
            newest, older = store[-config.window :], store[: -config.window]

            def importance(slot, now=clock):
                if config.eviction == "fifo":
                    return (slot["at"],)
                if config.eviction == "accumulated_attention":
                    return (slot["mass"],)
                recent = 2 / (1 + math.exp((now - slot["ts"]) / max(slot["mri"], 1)))
                recurs = 2 / (1 + math.exp((slot["mri"] - 1) / config.window)) if slot["mri"] else 0.0
                return (round(recent + recurs, 9), slot["at"])

            older.sort(key=importance)
            older = older[len(older) - (config.chunks - config.window) :]
            store = sorted(older, key=lambda slot: slot["at"]) + newest
        clock += 1
        left.append([slot["at"] for slot in store])
    return torch.stack(outputs), left


@pytest.mark.parametrize("eviction", EVICTIONS)
@pytest.mark.parametrize(("chunks", "window", "threshold"), [(6, 3, 1.0), (4, 4, 0.5), (5, 1, 0.8)])
def test_outputs_and_evictions_are_those_of_a_loop_over_lists(eviction, chunks, window, threshold):
    memory = attention(eviction=eviction, chunks=chunks, window=window, threshold=threshold)
    luck = torch.Generator().manual_seed(2)
    x = torch.randn(2, 40, WIDTH, generator=luck, dtype=torch.float64)
    reset = torch.zeros(2, 40, dtype=torch.bool)
    reset[:, 0] = reset[0, 25] = reset[1, 7] = reset[1, 8] = True
    with torch.no_grad():
        y, _ = memory(x, memory.start(2), reset)
        seen = memory.inspect(x, memory.start(2), reset)
        expected = [naive(memory, x[row], reset[row]) for row in range(2)]
    for row, (wanted, left) in enumerate(expected):
        torch.testing.assert_close(y[row], wanted)
        found = [seen["position"][row, t][seen["kept"][row, t]].tolist() for t in range(40)]
        assert found == left


def everything_at_once(memory, x):
    """Causal attention over all steps of a row, by torch's own function."""
    projected = memory.project(x).reshape(len(x), 3, HEADS, -1)
    query, key = (
        torch.stack([torch.stack([turned(part, t) for part in heads]) for t, heads in enumerate(projected[:, i])]) for i in (0, 1)
    )
    parts = [part.transpose(0, 1)[None] for part in (query, key, projected[:, 2])]
    answer = torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
    return memory.out(answer[0].transpose(0, 1).flatten(1))


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_with_room_for_every_step_it_is_plain_causal_attention(eviction):
    memory = attention(eviction=eviction, chunks=40, window=7)
    x = torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y, _ = memory(x[None], memory.start(1), torch.zeros(1, 40, dtype=torch.bool))
    torch.testing.assert_close(y[0], everything_at_once(memory, x))


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_with_room_for_the_window_alone_there_is_nothing_to_choose(eviction):
    memory = attention(eviction=eviction, chunks=3, window=3)
    x = torch.randn(1, 8, WIDTH, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    seen = memory.inspect(x, memory.start(1), torch.zeros(1, 8, dtype=torch.bool))
    attended = [[int(position) for position in positions if position >= 0] for positions in seen["position"][0]]
    assert attended == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5], [3, 4, 5, 6], [3, 4, 5, 6, 7]]


# At t = 20, W = 4: five old steps, then the window of four.
POSITION = [1, 5, 6, 9, 15, 17, 18, 19, 20]
ACTIVATED = [12, 18, 10, 19, 15, 20, 20, 20, 20]
INTERVAL = [8, 0, 2, 1, 0, 1, 1, 1, 1]
RECEIVED = [3.0, 0.25, 4.0, 1.0, 0.75, 9.0, 9.0, 9.0, 9.0]


def marks():
    return Marks(*(torch.tensor([values]) for values in (POSITION, ACTIVATED, INTERVAL, RECEIVED)))


def test_importance_worked_by_hand():
    importance = attention(chunks=6, window=4)._importance(marks(), torch.tensor([[20]]))
    # Of the first: 2 sigmoid(-8/8) + 2 sigmoid(-7/4); the second, never activated twice: 2 sigmoid(-2); the fourth: 2 sigmoid(-1) + 1.
    wanted = [0.537882843 + 0.296094396, 0.238405844, 0.013385702 + 0.875646998, 0.537882843 + 1.0, 0.013385702]
    torch.testing.assert_close(importance[0, :5], torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=4e-9)


@pytest.mark.parametrize(
    ("eviction", "evicted"),
    # By importance the lazy one ranks 9, 6, 1, 5, 15; the newest two are 9 and 15; those with most attention 6 and 1.
    [("lazy", [1, 5, 15]), ("fifo", [1, 5, 6]), ("accumulated_attention", [5, 9, 15])],
)
def test_who_leaves_worked_by_hand(eviction, evicted):
    memory = attention(eviction=eviction, chunks=6, window=4, threshold=100.0)
    leaving = memory._leaving(
        marks(),
        torch.zeros(1, HEADS, 1, 9),
        torch.ones(1, 1, 9, dtype=torch.bool),
        torch.tensor([[True]]),
        torch.tensor([[20]]),
    )
    assert [position for position, leaves in zip(POSITION, leaving[0], strict=True) if leaves] == evicted


def test_a_step_is_activated_by_more_than_its_share_and_keeps_its_longest_interval():
    memory = attention(chunks=4, window=3, threshold=1.0)
    with torch.no_grad():
        # Without queries and keys attention is uniform: nothing exceeds its share, nothing recurs.
        memory.project.weight.zero_()
        memory.project.bias.zero_()
    x = torch.zeros(1, 6, WIDTH, dtype=torch.float64)
    reset = torch.zeros(1, 6, dtype=torch.bool)
    _, state = memory(x, memory.start(1), reset)
    # Six steps, two of them evicted: of equals the newer stays.
    assert state.marks.position[0].tolist() == [-1, -1, 2, 3, 4, 5]
    assert state.marks.activated[0].tolist() == [0, 0, 2, 3, 4, 5]
    assert state.marks.interval[0].tolist() == [0] * 6
    # The third received 1/3, 1/4, 1/5 and 1/6, the last 1/6.
    torch.testing.assert_close(state.marks.received[0, [2, 5]], torch.tensor([0.95, 1 / 6], dtype=torch.float64))
    keen = attention(chunks=4, window=3, threshold=0.99)
    keen.load_state_dict(memory.state_dict())
    _, state = keen(x, keen.start(1), reset)
    # Everything is activated at every step, and so recurs after one; the last has had no time to.
    assert state.marks.activated[0].tolist() == [0, 0, 5, 5, 5, 5]
    assert state.marks.interval[0].tolist() == [0, 0, 1, 1, 1, 0]


def test_choosing_whom_to_keep_sends_no_gradient():
    memory = attention(chunks=4, window=2)
    x = torch.randn(1, 9, WIDTH, generator=torch.Generator().manual_seed(5), dtype=torch.float64, requires_grad=True)
    y, state = memory(x, memory.start(1), torch.zeros(1, 9, dtype=torch.bool))
    assert y.requires_grad
    assert state.key.requires_grad
    assert not state.marks.received.requires_grad


def test_a_row_carries_what_the_formula_says():
    # Two layers of (6 + 3 - 1) slots, each of two vectors of 4 and four marks, and a clock.
    assert LazyEvictionConfig(width=4, layers=2, heads=2, chunks=6, window=3).build(3).state_size == 2 * (8 * 12 + 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eviction": "lasy"}, "eviction is 'lasy'; want one of 'lazy', 'fifo', 'accumulated_attention'"),
        ({"chunks": 15}, "chunks is 15; want at least the window, 16"),
        ({"heads": 3}, "heads is 3, which does not divide width 128"),
        ({"width": 12}, "width is 12 with 4 heads; want an even number for each"),
        ({"window": 0}, "window is 0; want a whole number from 1"),
        ({"threshold": float("nan")}, "threshold is nan; want a number from 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LazyEvictionConfig(**settings)
