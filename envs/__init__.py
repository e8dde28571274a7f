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
    "public_goods": "envs.public_goods:public_goods",
    "public_goods_with_punishment": "envs.public_goods:public_goods_with_punishment",
    "public_goods_with_exclusion": "envs.public_goods:public_goods_with_exclusion",
    "commons": "envs.commons:commons",
    "donor_game": "envs.donor_game:donor_game",
    "donor_generation": "envs.donor_game:donor_generation",
    "donor_game_in_quarters": "envs.donor_game:donor_game_in_quarters",
    "donor_game_with_punishment": "envs.donor_game:donor_game_with_punishment",
    "referential": "envs.referential:referential",
    "referential_pictures": "envs.referential:referential_pictures",
    "referential_captions": "envs.referential:referential_captions",
}
