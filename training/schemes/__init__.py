"""Schemes: who meets whom. `SCHEMES` names them, as `module:factory`."""

SCHEMES: dict[str, str] = {
    "mixed_pool": "training.schemes.mixture:mixed_pool",
    "best_response": "training.schemes.mixture:best_response",
    "self_play": "training.schemes.self_play:self_play",
    "independent": "training.schemes.self_play:independent",
}
