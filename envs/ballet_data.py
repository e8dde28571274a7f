"""What the dancers of the ballet can be: 13 dances, 15 shapes and 19 colours, as in the code released with Lampinen et al. 2021."""

from __future__ import annotations

# Moves by the compass, one per step; all end where they began.
DANCES = {
    "circle_cw": "N E S S W W N N E E S S W W N E",
    "circle_ccw": "N W S S E E N N W W S S E E N W",
    "up_and_down": "N S S N N S S N N S S N N S S N",
    "left_and_right": "E W W E E W W E E W W E E W W E",
    "diagonal_uldr": "NW SE SE NW NW SE SE NW NW SE SE NW NW SE SE NW",
    "diagonal_urdl": "NE SW SW NE NE SW SW NE NE SW SW NE NE SW SW NE",
    "plus_cw": "N S E W S N W E N S E W S N W E",
    "plus_ccw": "N S W E S N E W N S W E S N E W",
    "times_cw": "NE SW SE NW SW NE NW SE NE SW SE NW SW NE NW SE",
    "times_ccw": "NW SE SW NE SE NW NE SW NW SE SW NE SE NW NE SW",
    "zee": "NE W W E E SW NE SW SW E E W W NE SW NE",
    "chevron_down": "NW S SE NE N SW NE SW NE S SW NW N SE NW SE",
    "chevron_up": "SE N NW SW S NE SW NE SW N NE SE S NW SE NW",
}

# Rows of 9 x 9 pixels; # is the dancer's colour, . is black.
SHAPES = {
    "triangle": "....#..../....#..../...###.../...###.../..#####../..#####../.#######./.#######./#########",
    "empty_square": "#########/#########/##.....##/##.....##/##.....##/##.....##/##.....##/#########/#########",
    "plus": "...###.../...###.../...###.../#########/#########/#########/...###.../...###.../...###...",
    "inverse_plus": "###...###/###...###/###...###/........./........./........./###...###/###...###/###...###",
    "ex": "##.....##/###...###/.###.###./..#####../...###.../..#####../.###.###./###...###/##.....##",
    "inverse_ex": "..#####../...###.../#...#...#/##.....##/###...###/##.....##/#...#...#/...###.../..#####..",
    "circle": "....#..../..#####../.#######./.#######./#########/.#######./.#######./..#####../....#....",
    "empty_circle": "..#####../.##...##./##.....##/#.......#/#.......#/#.......#/##.....##/.##...##./..#####..",
    "tee": "#########/#########/#########/...###.../...###.../...###.../...###.../...###.../...###...",
    "upside_down_tee": "...###.../...###.../...###.../...###.../...###.../...###.../#########/#########/#########",
    "h": "###...###/###...###/###...###/#########/#########/#########/###...###/###...###/###...###",
    "u": "###...###/###...###/###...###/###...###/###...###/###...###/#########/#########/#########",
    "upside_down_u": "#########/#########/#########/###...###/###...###/###...###/###...###/###...###/###...###",
    "vertical_stripes": "#.#.#.#.#/#.#.#.#.#/#.#.#.#.#/#.#.#.#.#/#.#.#.#.#/#.#.#.#.#/#.#.#.#.#/#.#.#.#.#/#.#.#.#.#",
    "horizontal_stripes": "#########/........./#########/........./#########/........./#########/........./#########",
}

# Red, green, blue.
COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "purple": (128, 0, 128),
    "orange": (255, 165, 0),
    "yellow": (255, 255, 0),
    "brown": (128, 64, 0),
    "pink": (255, 64, 255),
    "cyan": (0, 255, 255),
    "dark_green": (0, 100, 0),
    "dark_red": (100, 0, 0),
    "dark_blue": (0, 0, 100),
    "olive": (100, 100, 0),
    "teal": (0, 100, 100),
    "lavender": (215, 200, 255),
    "peach": (255, 210, 170),
    "rose": (255, 205, 230),
    "light_green": (200, 255, 200),
    "light_yellow": (255, 255, 200),
}
