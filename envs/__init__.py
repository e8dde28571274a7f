"""Games: the rules, batched and functional. `GAMES` names those that a command can play, as `module:factory`.

A game from elsewhere needs no entry: `pettingzoo:package.module` names any PettingZoo module that has a `parallel_env`.
"""

GAMES: dict[str, str] = {
    "prisoners_dilemma": "envs.iterated_dilemma:prisoners_dilemma",
    "classical_prisoners_dilemma": "envs.iterated_dilemma:classical_prisoners_dilemma",
    "chicken": "envs.iterated_dilemma:chicken",
    "stag_hunt": "envs.iterated_dilemma:stag_hunt",
    "matching_pennies": "envs.iterated_dilemma:matching_pennies",
    "battle_of_the_sexes": "envs.iterated_dilemma:battle_of_the_sexes",
    "coin_game": "envs.coin_game:coin_game",
}
