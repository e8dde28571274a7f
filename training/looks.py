"""What a memory looked at in a step (`Memory.inspect`), in a few words for people.

    layer 0: attention now 0.52, 3 back 0.22, 1 back 0.11; recalled chunks 3 (0.71), 1 (0.29)
    layer 1: surprise 0.42; kept 0.981; rate 0.05

Attention is the mean over heads, of the three most attended; chunk 1 is the newest; of anything else it is the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jaxtyping import Float
from torch import Tensor

MOST = 3


def in_words(seen: Mapping[str, Tensor]) -> list[str]:
    """A line for each place in the memory that has something to show. seen: of one row and step, as {"layer_0.attention": [H, n], ...}."""
    by_place: dict[str, dict[str, Tensor]] = {}
    for name, values in seen.items():
        place, _, what = name.rpartition(".")
        by_place.setdefault(place, {})[what] = values
    said = {place.replace("_", " ").replace(".", ", "): "; ".join(_phrases(found)) for place, found in by_place.items()}
    return [f"{place}: {words}" if place else words for place, words in said.items()]


def folded(line: str, width: int) -> list[str]:
    """A line of phrases in as many as it takes, no phrase cut where it fits."""
    lines = [""]
    for phrase in line.split("; "):
        longer = f"{lines[-1]}; {phrase}" if lines[-1] else phrase
        lines[-1:] = [longer] if len(longer) < width or not lines[-1] else [f"{lines[-1]};", f"  {phrase}"]
    return lines


def _phrases(found: Mapping[str, Tensor]) -> Iterable[str]:
    for name, values in found.items():
        match name:
            case "attention" if "position" in found:
                ago = found["position"][-1] - found["position"]
                yield "attention " + _largest(values, [_ago(steps) for steps in ago.tolist()])
            case "attention":
                yield "attention " + _largest(values, [_ago(steps) for steps in range(values.shape[-1])])
            case "chunk_attention":
                yield "attention to chunks " + _largest(values, ["open", *map(str, range(1, values.shape[-1]))])
            case "recalled":
                pairs = sorted(zip(found["weights"].tolist(), values.tolist(), strict=True), reverse=True)
                chunks = ", ".join(f"{chunk} ({weight:.2f})" for weight, chunk in pairs if chunk)
                yield f"recalled chunks {chunks}" if chunks else "recalled nothing yet"
            case "kept" if "position" in found:
                gone = (found["position"][-1] - found["position"])[~values & (found["position"] >= 0)].tolist()
                if gone:
                    yield "evicted " + ", ".join(map(_ago, gone))
            case "position" | "weights":
                pass
            case _:
                yield f"{name.replace('_', ' ')} {values.float().mean().item():.3g}"


def _largest(weights: Float[Tensor, "*H n"], names: list[str]) -> str:
    mean = weights.reshape(-1, weights.shape[-1]).mean(0)
    order = mean.argsort(descending=True, stable=True).tolist()[:MOST]
    return ", ".join(f"{names[place]} {mean[place].item():.2f}" for place in order if mean[place] > 0)


def _ago(steps: int) -> str:
    return f"{steps} back" if steps else "now"
