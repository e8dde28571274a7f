"""The camera of the 3D rooms: geometry worked by hand, and the compiled renderers against the plain one.

On a machine without a GPU, Triton's runs in its interpreter, which must be asked for before Triton is first imported.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from envs.chance import uniform
from envs.rooms3d.camera import Camera, Eyes, Picture
from envs.rooms3d.primitives import FAR, Kind, Slots, Texture

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
HAS_TRITON = find_spec("triton") is not None
if HAS_TRITON:
    import triton.runtime.interpreter  # noqa: F401 (before the fixture in conftest.py looks for it)

DOWN = -math.pi / 2


def slots_of(*things: dict[str, Any]) -> Slots:
    """One game's slots; by default grey unit boxes."""
    plain = {"kind": Kind.BOX, "at": (0.0, 0.0, 0.0), "size": (1.0, 1.0, 1.0), "yaw": 0.0, "colour": (0.5, 0.5, 0.5)}
    rows = [{**plain, "texture": Texture.PLAIN, "grain": 1.0, "visible": True, **thing} for thing in things]

    def column(name: str) -> torch.Tensor:
        return torch.tensor([[row[name] for row in rows]])

    kind, texture = column("kind").long(), column("texture").long()
    return Slots(kind, column("at"), column("size"), column("yaw"), column("colour"), texture, column("grain"), column("visible"))


def eye(*at: float, yaw: float = 0.0, pitch: float = 0.0) -> Eyes:
    return Eyes(torch.tensor([[at]]), torch.tensor([[yaw]]), torch.tensor([[pitch]]))


RENDERERS = [
    "draw_plainly",
    "draw_by_numba",
    pytest.param("draw_by_triton", marks=pytest.mark.skipif(not HAS_TRITON, reason="Triton exists for Linux alone")),
]


def drawn(renderer: str, camera: Camera, slots: Slots, eyes: Eyes, shown: torch.Tensor) -> Picture:
    """By one of the renderers, Triton's on a GPU where there is one."""
    device = DEVICE if renderer == "draw_by_triton" else "cpu"
    given = (type(batch)(*(field.to(device) for field in batch)) for batch in (slots, eyes))
    # The interpreter takes as long for a small tile as for a large one.
    with patch("envs.rooms3d.camera_triton._TILE", 1024) if renderer == "draw_by_triton" and DEVICE == "cpu" else nullcontext():
        return Picture(*(field.cpu() for field in getattr(camera, renderer)(*given, shown.to(device))))


@pytest.fixture(params=RENDERERS)
def see(request: pytest.FixtureRequest) -> Any:
    """(camera, slots, eyes) -> the picture, depth and segmentation of the only eye, by each renderer."""

    def look(camera: Camera, slots: Slots, eyes: Eyes) -> Picture:
        return Picture(*(field[0, 0] for field in drawn(request.param, camera, slots, eyes, slots.visible[:, None])))

    return look


def test_a_wall_two_metres_ahead_is_two_metres_deep_everywhere(see: Any) -> None:
    wall = slots_of({"at": (0.0, 1.0, 2.1), "size": (9.0, 9.0, 0.1)})
    picture = see(Camera(16), wall, eye(0.0, 1.0, 0.0))
    assert torch.allclose(picture.depth, torch.tensor(2.0), atol=1e-5)
    assert (picture.segmentation == 1).all()


@pytest.mark.parametrize(
    ("kind", "nearest"),
    [(Kind.BOX, 4.0), (Kind.CRATE, 4.0), (Kind.BALL, 4.0), (Kind.CYLINDER, 4.0), (Kind.CONE, 4.5), (Kind.PYRAMID, 4.5)],
)
def test_the_middle_of_each_solid_five_metres_ahead(see: Any, kind: Kind, nearest: float) -> None:
    """Cones and pyramids are half as wide in the middle."""
    picture = see(Camera(33), slots_of({"kind": kind, "at": (0.0, 1.0, 5.0)}), eye(0.0, 1.0, 0.0))
    assert picture.depth[16, 16].item() == pytest.approx(nearest, abs=1e-4)
    assert picture.segmentation[16, 16] == 1
    assert picture.depth[0, 0] == FAR


def test_half_sizes_are_metres_along_each_axis(see: Any) -> None:
    thing = {"kind": Kind.BALL, "at": (0.0, 0.0, 5.0), "size": (2.0, 1.0, 0.5)}
    assert see(Camera(33), slots_of(thing), eye(0.0, 0.0, 0.0)).depth[16, 16].item() == pytest.approx(4.5, abs=1e-4)
    assert see(Camera(33), slots_of({**thing, "yaw": math.pi / 2}), eye(0.0, 0.0, 0.0)).depth[16, 16].item() == pytest.approx(3.0, abs=1e-4)


def test_a_turned_box_shows_its_edge(see: Any) -> None:
    picture = see(Camera(33), slots_of({"at": (0.0, 0.0, 5.0), "yaw": math.pi / 4}), eye(0.0, 0.0, 0.0))
    assert picture.depth[16, 16].item() == pytest.approx(5 - 1.41421, abs=1e-3)


def test_a_balls_outline_has_the_radius_of_its_tangents(see: Any) -> None:
    """Radius 3 at distance 5: a tangent rises 3 in 4, which is 30 pixels where 40 are one metre ahead per metre."""
    picture = see(Camera(80, 90.0), slots_of({"kind": Kind.BALL, "at": (0.0, 0.0, 5.0), "size": (3.0, 3.0, 3.0)}), eye(0.0, 0.0, 0.0))
    on_ball = picture.segmentation == 1
    assert on_ball[40].sum() == 60
    assert on_ball[:, 40].sum() == 60
    assert on_ball.sum().item() == pytest.approx(math.pi * 30**2, rel=0.01)


def test_a_cone_is_a_triangle_from_far_away(see: Any) -> None:
    """100 metres away, 10 high and 10 wide at its foot, in a picture of 10.5 metres a side: half a square of 95.2 pixels."""
    view = 2 * math.degrees(math.atan(0.0525))
    for kind in (Kind.CONE, Kind.PYRAMID):
        picture = see(Camera(100, view), slots_of({"kind": kind, "at": (0.0, 0.0, 100.0), "size": (5.0, 5.0, 0.5)}), eye(0.0, 0.0, 0.0))
        widths = (picture.segmentation == 1).sum(1)
        assert widths.sum().item() == pytest.approx(4535, rel=0.025)
        assert widths[20] < widths[50] < widths[90]


def test_the_nearer_one_hides_the_farther_whichever_comes_first(see: Any) -> None:
    near, far = {"kind": Kind.BALL, "at": (0.0, 0.0, 3.0), "size": (0.5, 0.5, 0.5)}, {"at": (0.0, 0.0, 6.0), "size": (2.0, 2.0, 1.0)}
    for things, ball, box in (((near, far), 1, 2), ((far, near), 2, 1)):
        picture = see(Camera(33), slots_of(*things), eye(0.0, 0.0, 0.0))
        assert picture.segmentation[16, 16] == ball
        assert picture.segmentation[16, 10] == box
        assert picture.depth[16, 16].item() == pytest.approx(2.5, abs=1e-4)
        assert picture.depth[16, 10].item() == pytest.approx(5.0, abs=1e-4)


def test_what_is_behind_the_eye_or_invisible_is_not_seen(see: Any) -> None:
    picture = see(Camera(8), slots_of({"at": (0.0, 0.0, -3.0)}, {"at": (0.0, 0.0, 3.0), "visible": False}), eye(0.0, 0.0, 0.0))
    assert (picture.segmentation == 0).all()
    assert (picture.depth == FAR).all()
    assert picture.pixels[3, 3].tolist() == [158, 191, 224]


def test_looking_down_and_up_meets_floor_and_ceiling(see: Any) -> None:
    """Half way between level and straight down, a floor 1 metre below is sqrt 2 away; a ceiling 2 metres above, twice that."""
    planes = slots_of({"kind": Kind.PLANE}, {"kind": Kind.PLANE, "at": (0.0, 3.0, 0.0)})
    for pitch, distance, slot in ((-math.pi / 4, 1.41421, 1), (math.pi / 4, 2.82843, 2), (DOWN, 1.0, 1), (-DOWN, 2.0, 2)):
        picture = see(Camera(33), planes, eye(0.0, 1.0, 0.0, pitch=pitch))
        assert picture.depth[16, 16].item() == pytest.approx(distance, abs=1e-3)
        assert picture.segmentation[16, 16] == slot
    level = see(Camera(32), planes, eye(0.0, 1.0, 0.0)).segmentation
    assert (level[:16] == 2).all()
    assert (level[16:] == 1).all()


def test_turning_right_moves_things_to_the_left(see: Any) -> None:
    post = slots_of({"at": (3.0, 0.0, 3.0), "size": (0.1, 9.0, 0.1)})
    columns = [
        see(Camera(33, 100.0), post, eye(0.0, 0.0, 0.0, yaw=math.radians(angle))).segmentation[16].nonzero()[:, 0].float().mean().item()
        for angle in (0, 45, 90)
    ]
    assert columns[0] > 28
    assert columns[1] == 16
    assert columns[2] < 4
    picture = see(Camera(33), slots_of({"at": (5.0, 0.0, 0.0)}), eye(0.0, 0.0, 0.0, yaw=math.pi / 2))
    assert picture.depth[16, 16].item() == pytest.approx(4.0, abs=1e-4)


def test_the_field_of_view_ends_where_it_says(see: Any) -> None:
    """At 90 degrees the picture's edge is as far aside as ahead."""
    inside, outside = {"at": (3.9, 0.0, 4.0), "size": (0.05, 1.0, 0.05)}, {"at": (4.2, 0.0, 4.0), "size": (0.05, 1.0, 0.05)}
    for angle, things in ((90.0, [1]), (100.0, [1, 2]), (80.0, [])):
        seen = see(Camera(200, angle), slots_of(inside, outside), eye(0.0, 0.0, 0.0)).segmentation.unique().tolist()
        assert [slot for slot in seen if slot] == things


def test_a_crate_shows_its_inside_from_above_and_a_box_does_not(see: Any) -> None:
    for kind, distance in ((Kind.BOX, 1.0), (Kind.CRATE, 3.0)):
        picture = see(Camera(33), slots_of({"kind": kind, "at": (0.0, 1.0, 0.0)}), eye(0.0, 3.0, 0.0, pitch=DOWN))
        assert picture.depth[16, 16].item() == pytest.approx(distance, abs=1e-3)
    ball = {"kind": Kind.BALL, "at": (0.0, 0.5, 0.0), "size": (0.5, 0.5, 0.5)}
    crate = {"kind": Kind.CRATE, "at": (0.0, 1.0, 0.0)}
    lid = {"at": (0.0, 2.05, 0.0), "size": (1.0, 0.05, 1.0)}
    above, aside = eye(0.0, 4.0, 0.0, pitch=DOWN), eye(0.0, 1.0, -5.0)
    assert see(Camera(33), slots_of(ball, crate), above).segmentation[16, 16] == 1
    assert 1 not in see(Camera(33), slots_of(ball, crate), aside).segmentation
    assert 1 not in see(Camera(33), slots_of(ball, crate, lid), above).segmentation


def test_a_crate_is_open_to_an_eye_inside_it(see: Any) -> None:
    crate = slots_of({"kind": Kind.CRATE})
    assert see(Camera(33), crate, eye(0.0, 0.0, 0.0)).depth[16, 16].item() == pytest.approx(1.0, abs=1e-4)
    assert see(Camera(33), crate, eye(0.0, 0.0, 0.0, pitch=-DOWN)).segmentation[16, 16] == 0


def test_light_falls_on_upper_sides_more_than_on_lower_ones(see: Any) -> None:
    """White at 1 metre: (0.68 + 0.32 * 0.8) / 1.02 of 255 from above, (0.68 - 0.32 * 0.8) / 1.02 from below."""
    plane = slots_of({"kind": Kind.PLANE, "at": (0.0, 1.0, 0.0), "colour": (1.0, 1.0, 1.0)})
    assert see(Camera(1), plane, eye(0.0, 2.0, 0.0, pitch=DOWN)).pixels[0, 0].tolist() == [234, 234, 234]
    assert see(Camera(1), plane, eye(0.0, 0.0, 0.0, pitch=-DOWN)).pixels[0, 0].tolist() == [106, 106, 106]


def test_textures_alternate_in_cells_of_their_grain(see: Any) -> None:
    """Straight down from 2 metres at 90 degrees: 4 metres across 40 pixels, cells of 1 metre are 10 of them."""
    above = eye(0.0, 2.0, 0.0, pitch=DOWN)

    def dark(texture: Texture) -> torch.Tensor:
        pixels = see(Camera(40, 90.0), slots_of({"kind": Kind.PLANE, "texture": texture, "colour": (1.0, 1.0, 1.0)}), above).pixels[..., 0]
        return (pixels < 200).reshape(4, 10, 4, 10).float().mean((1, 3))

    checks = [[(row + column) % 2 for column in range(4)] for row in range(4)]
    assert dark(Texture.PLAIN).sum() == 0
    assert dark(Texture.CHECKS).tolist() in (checks, [[1 - cell for cell in row] for row in checks])
    assert dark(Texture.STRIPES)[:, 0].tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])
    assert dark(Texture.STRIPES).std(1).max() == 0
    # A dot's area, pi * 0.3 ** 2, in each cell; mortar along every row of bricks.
    assert dark(Texture.DOTS).sub(0.283).abs().max() < 0.05
    assert ((dark(Texture.BRICKS) >= 0.1) & (dark(Texture.BRICKS) < 0.35)).all()


def crowd(games: int) -> tuple[Slots, Eyes]:
    """Every kind and texture in many sizes, some around the eye, before a floor; eyes that look everywhere."""
    seeds, count = torch.arange(games), 18

    def draw(purpose: int, *shape: int) -> torch.Tensor:
        return uniform(seeds[:, None], purpose, torch.arange(math.prod(shape))).unflatten(1, shape)

    kind = (torch.arange(count) % 6).expand(games, -1).clone()
    kind[:, 0] = Kind.PLANE
    position = (draw(1, count, 3) - 0.5) * torch.tensor([6.0, 2.0, 6.0])
    position[:, 0, 1] = -1.5
    texture = (torch.arange(count) % 5).expand(games, -1)
    slots = Slots(
        kind, position, 0.1 + 0.6 * draw(2, count, 3), 7 * draw(3, count), draw(4, count, 3), texture,
        0.1 + 0.3 * draw(5, count), draw(6, count) < 0.9,
    )  # fmt: skip
    return slots, Eyes((draw(7, 2, 3) - 0.5) * 2, 7 * draw(8, 2), (draw(9, 2) - 0.5) * 2.8)


@pytest.mark.parametrize("renderer", RENDERERS[1:])
def test_the_compiled_renderers_draw_the_same_as_the_plain_one(renderer: str) -> None:
    slots, eyes = crowd(24)
    shown = slots.visible[:, None] & (uniform(torch.arange(24)[:, None, None], 10, torch.arange(36).reshape(2, 18)) < 0.9)
    camera = Camera(32)
    compiled, plain = drawn(renderer, camera, slots, eyes, shown), camera.draw_plainly(slots, eyes, shown)
    # Only where a ray just meets or just misses an edge may rounding decide otherwise.
    same = compiled.segmentation == plain.segmentation
    assert same.float().mean() > 0.999
    assert set(compiled.segmentation.unique().tolist()) == set(range(19))
    assert ((compiled.depth - plain.depth).abs() <= 1e-3 * plain.depth)[same].float().mean() > 0.9995
    assert ((compiled.pixels.int() - plain.pixels.int()).abs().amax(-1) <= 2)[same].float().mean() > 0.998


@pytest.mark.skipif(not HAS_TRITON, reason="Triton exists for Linux alone")
def test_compilers_know_what_the_kernel_draws() -> None:
    from envs.rooms3d import camera_triton

    slots, eyes = (type(batch)(*(field.to(DEVICE) for field in batch)) for batch in crowd(2))
    shown = slots.visible[:, None].expand(-1, 2, -1)
    torch.library.opcheck(camera_triton.draw, (list(slots), list(eyes), shown, 5, 0.7))


COMPILE = """
import triton
from envs.rooms3d.camera_triton import _draw, _TILE
numbers = {"kind_in": "*i64", "texture_in": "*i64", "shown_in": "*i1", "pixels_out": "*u8", "slot_out": "*i32"}
numbers |= {"views": "i32", "slots": "i32", "spread": "fp32", "SIDE": "constexpr", "TILE": "constexpr"}
source = triton.compiler.ASTSource(_draw, {name: numbers.get(name, "*fp32") for name in _draw.arg_names}, {"SIDE": 64, "TILE": _TILE})
print(len(triton.compile(source, triton.backends.compiler.GPUTarget("cuda", 90, 32)).asm["cubin"]) > 0)
"""


@pytest.mark.skipif(not HAS_TRITON, reason="Triton exists for Linux alone")
def test_the_kernel_compiles_for_a_gpu_that_need_not_be_there(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


def test_nobody_sees_nothing() -> None:
    slots, eyes = crowd(2)
    nobody = Camera(5).see(slots, Eyes(*(field[:, :0] for field in eyes)))
    assert [field.shape for field in nobody] == [(2, 0, 5, 5, 3), (2, 0, 5, 5), (2, 0, 5, 5)]
    no_games = Camera(5).see(Slots(*(field[:0] for field in slots)), Eyes(*(field[:0] for field in eyes)))
    assert [field.dtype for field in no_games] == [torch.uint8, torch.float32, torch.int32]


def test_blocks_of_the_plain_renderer_join_up(monkeypatch: pytest.MonkeyPatch) -> None:
    slots, eyes = crowd(2)
    whole = Camera(7).draw_plainly(slots, eyes, slots.visible[:, None].expand(-1, 2, -1))
    monkeypatch.setattr("envs.rooms3d.camera.BLOCK", 5 * 2 * 2 * 18)
    parts = Camera(7).draw_plainly(slots, eyes, slots.visible[:, None].expand(-1, 2, -1))
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_each_eye_sees_what_it_would_alone_however_many_threads_draw() -> None:
    slots, eyes = crowd(5)
    camera, threads = Camera(16), torch.get_num_threads()
    torch.set_num_threads(3)
    together = camera.see(slots, eyes)
    torch.set_num_threads(threads)
    for game in range(5):
        for view in range(2):
            alone = camera.see(
                Slots(*(field[game : game + 1] for field in slots)),
                Eyes(*(field[game : game + 1, view : view + 1] for field in eyes)),
            )
            for one, other in zip(together, alone, strict=True):
                assert torch.equal(one[game, view], other[0, 0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size is 0; want from 1 to 2048 pixels"),
        ({"size": 4000}, "size is 4000; want from 1"),
        ({"field_of_view": 180.0}, "field_of_view is 180.0; want from 1 to 170 degrees"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Camera(**settings)
