"""Co-players: whoever else sits at the table. `CO_PLAYERS` names them, as `module:factory`.

A trained agent needs no entry: the path of one (`runs/NAME/population/learner_0`) is a name too.
"""

CO_PLAYERS: dict[str, str] = {
    "random_table": "agents.co_players.tables:RandomTable",
    "always_cooperate": "agents.co_players.tables:always_cooperate",
    "always_defect": "agents.co_players.tables:always_defect",
    "tit_for_tat": "agents.co_players.tables:tit_for_tat",
    "generous_tit_for_tat": "agents.co_players.tables:generous_tit_for_tat",
    "win_stay_lose_shift": "agents.co_players.tables:win_stay_lose_shift",
    "grim_trigger": "agents.co_players.grim:GrimTrigger",
    "extortion": "agents.co_players.tables:extortion",
    "random": "agents.co_players.tables:random",
}
