"""The frozen tables of the face mesh against MediaPipe, the specifications and plain geometry."""

from __future__ import annotations

import re
from collections import Counter, deque
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from talkingface.data.face import topology
from talkingface.data.face.topology import (
    BROW_LEFT,
    BROW_RIGHT,
    CHIN,
    EYE_CORNERS_LEFT,
    EYE_CORNERS_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    FACE_OVAL,
    FOREHEAD,
    IBUG68,
    IRIS_LEFT,
    IRIS_RIGHT,
    LIPS,
    LIPS_INNER,
    LIPS_OUTER,
    LSP73,
    MODA_EYES,
    MODA_MOUTH,
    MOUTH_CORNERS,
    MOUTH_RING,
    N_MESH,
    N_POINTS,
    NOSE_TIP,
    PUPILS,
    RIGID,
    SKETCH_EDGES,
    STABLE,
    chain,
    pose_template,
    triangles,
)


@pytest.fixture(scope="module")
def connections():
    """Function from the name of a part to MediaPipe's pairs of points."""
    module = pytest.importorskip("mediapipe.tasks.python.vision.face_landmarker")

    def pairs(name: str) -> list[tuple[int, int]]:
        edges = getattr(module.FaceLandmarksConnections, f"FACE_LANDMARKS_{name}")
        return [(edge.start, edge.end) for edge in edges]

    return pairs


@pytest.fixture(scope="module")
def specs(shared: Path) -> Path:
    folder = shared.parent / "specs"
    if not folder.is_dir():
        pytest.skip(f"no specifications in {folder}")
    return folder


def undirected(edges) -> set[frozenset[int]]:
    return {frozenset(edge) for edge in edges}


def points_of(edges) -> set[int]:
    return {point for edge in edges for point in edge}


def ring(points) -> set[frozenset[int]]:
    return undirected(chain(tuple(points), closed=True))


def edges_of(faces: np.ndarray) -> Counter[frozenset[int]]:
    """How many triangles use each edge."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return Counter(frozenset(pair) for pair in pairs.tolist())


def loops(edges: set[frozenset[int]]) -> list[set[int]]:
    """Connected parts of a set of edges."""
    parts: list[set[int]] = []
    for edge in edges:
        joined = set(edge).union(*(part for part in parts if part & edge))
        parts = [part for part in parts if not part & edge] + [joined]
    return sorted(parts, key=len)


@pytest.fixture(scope="module")
def mirror() -> dict[int, int]:
    """Every vertex and its mirror image, by walking over the triangles from the middle line.

    The triangle left of an edge is the mirror image of the triangle right of the mirrored edge.
    """
    third = {}
    for face in triangles().tolist():
        for k in range(3):
            third[face[k], face[k - 2]] = face[k - 1]
    other = {FOREHEAD: FOREHEAD, 151: 151}
    waiting, seen = deque([(FOREHEAD, 151)]), set()
    while waiting:
        a, b = waiting.popleft()
        c, d = third.get((a, b)), third.get((other[b], other[a]))
        if (a, b) in seen or c is None or d is None:
            continue
        seen.add((a, b))
        if other.get(c, d) == d and other.get(d, c) == c:  # a few quads are cut the other way
            other[c], other[d] = d, c
            waiting.extend([(b, c), (c, b), (c, a), (a, c)])
    return other


# -- contours --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("LIPS", ring(LIPS_OUTER) | ring(LIPS_INNER)),
        ("LEFT_EYE", ring(EYE_RIGHT)),  # MediaPipe's left is the person's
        ("RIGHT_EYE", ring(EYE_LEFT)),
        ("LEFT_EYEBROW", undirected(chain(BROW_RIGHT[0]) + chain(BROW_RIGHT[1]))),
        ("RIGHT_EYEBROW", undirected(chain(BROW_LEFT[0]) + chain(BROW_LEFT[1]))),
        ("LEFT_IRIS", ring(IRIS_RIGHT)),
        ("RIGHT_IRIS", ring(IRIS_LEFT)),
        ("FACE_OVAL", ring(FACE_OVAL)),
    ],
)
def test_contours_are_those_of_mediapipe(connections, name, edges):
    assert edges == undirected(connections(name))


def test_points_are_counted_as_mediapipe_counts_them(connections):
    assert points_of(connections("TESSELATION")) == set(range(N_MESH))
    irises = points_of(connections("LEFT_IRIS") + connections("RIGHT_IRIS"))
    assert irises | set(PUPILS) == set(range(N_MESH, N_POINTS))


def test_left_is_left_in_the_picture():
    vertices, points = pose_template()
    place = dict(zip(vertices.tolist(), points, strict=True))
    assert place[EYE_CORNERS_LEFT[0]][0] < place[EYE_CORNERS_LEFT[1]][0] < 0
    assert 0 < place[EYE_CORNERS_RIGHT[0]][0] < place[EYE_CORNERS_RIGHT[1]][0]
    assert set(EYE_CORNERS_LEFT) < set(EYE_LEFT)
    assert set(EYE_CORNERS_RIGHT) < set(EYE_RIGHT)


def test_both_eyes_and_brows_are_listed_in_mirrored_order(mirror):
    for left, right in [(EYE_LEFT, EYE_RIGHT), *zip(BROW_LEFT, BROW_RIGHT, strict=True)]:
        assert tuple(mirror[point] for point in left) == right


def test_lip_contours_start_at_the_left_corner_and_go_below_first(mirror):
    for contour in (LIPS_OUTER, LIPS_INNER):
        assert len(contour) == 20
        assert contour[10] == mirror[contour[0]]
        assert contour[1:10] == tuple(mirror[point] for point in contour[9:0:-1])
    assert (LIPS_OUTER[0], LIPS_OUTER[10]) == MOUTH_CORNERS
    assert LIPS_INNER[5] == topology.INNER_LIP_BOTTOM
    assert LIPS_INNER[15] == topology.INNER_LIP_TOP


def test_the_mouth_ring_lies_one_step_outside_the_lips():
    near = points_of(e for e in edges_of(triangles()) if e & set(LIPS_OUTER))
    assert len(set(MOUTH_RING)) == 20
    assert set(MOUTH_RING) < near - set(LIPS)
    assert ring(MOUTH_RING) <= set(edges_of(triangles()))


# -- triangles -------------------------------------------------------------------------------------


def test_triangles_follow_from_mediapipes_edges(connections):
    """All triples of mutual neighbours but two that lie inside others."""
    edges = undirected(connections("TESSELATION"))
    assert len(edges) == 1322
    near: dict[int, set[int]] = {point: set() for point in range(N_MESH)}
    for a, b in edges:
        near[a].add(b)
        near[b].add(a)
    cliques = {frozenset({a, b, c}) for a, b in edges for c in near[a] & near[b]}
    assert len(cliques) == 854
    uses = Counter(frozenset(pair) for clique in cliques for pair in combinations(clique, 2))
    kept = {c for c in cliques if any(uses[frozenset(p)] != 3 for p in combinations(c, 2))}
    assert len(kept) == 852
    table = triangles(close_eyes=False)
    assert len(table) == 852
    assert {frozenset(face) for face in table.tolist()} == kept


def test_the_open_mesh_has_four_holes():
    uses = edges_of(triangles(close_eyes=False))
    assert N_MESH - len(uses) + 852 == -2  # Euler: a disc with three holes
    border = {edge for edge, count in uses.items() if count == 1}
    assert len(border) == 88
    assert border == ring(FACE_OVAL) | ring(LIPS_INNER) | ring(EYE_LEFT) | ring(EYE_RIGHT)
    assert [len(loop) for loop in loops(border)] == [16, 16, 20, 36]


def test_28_triangles_close_the_eyes_and_none_the_mouth():
    assert triangles().shape == (880, 3)
    assert np.array_equal(triangles()[:852], triangles(close_eyes=False))
    lids = [set(face) for face in triangles()[852:].tolist()]
    assert sum(lid <= set(EYE_LEFT) for lid in lids) == 14
    assert sum(lid <= set(EYE_RIGHT) for lid in lids) == 14
    border = {edge for edge, count in edges_of(triangles()).items() if count == 1}
    assert border == ring(FACE_OVAL) | ring(LIPS_INNER)


def test_every_closing_triangle_joins_the_upper_to_the_lower_lid():
    for eye in (EYE_LEFT, EYE_RIGHT):
        lower, upper = set(eye[:9]), {eye[0], *eye[8:]}  # the corners belong to both
        for face in triangles()[852:].tolist():
            if set(face) <= set(eye):
                assert set(face) & lower and set(face) & upper
                assert not set(face) <= lower and not set(face) <= upper


def test_neighbouring_triangles_turn_the_same_way():
    """Every edge is walked once in each direction; the border once."""
    faces = triangles()
    walks = [tuple(e) for k in range(3) for e in faces[:, [k, k - 2]].tolist()]
    known = set(walks)
    assert len(known) == len(walks) == 3 * 880
    lonely = {walk for walk in walks if walk[::-1] not in known}
    assert len(lonely) == 56


def test_the_surface_is_a_manifold():
    """Around every vertex the triangles form one fan."""
    around: dict[int, set[frozenset[int]]] = {vertex: set() for vertex in range(N_MESH)}
    for face in map(frozenset, triangles().tolist()):
        for vertex in face:
            around[vertex].add(face - {vertex})
    assert all(len(loops(fan)) == 1 for fan in around.values())
    assert set(edges_of(triangles()).values()) == {1, 2}


def test_triangles_that_face_the_camera_have_a_positive_area():
    vertices, points = pose_template()
    place = dict(zip(vertices.tolist(), points, strict=True))
    known = [face for face in triangles().tolist() if all(v in place for v in face)]
    assert len(known) >= 20
    for face in known:
        a, b, c = (place[v][:2] for v in face)
        assert np.linalg.det([b - a, c - a]) > 0


def test_all_triangles_turn_against_those_of_the_canonical_face(shared):
    """Google's model is seen with y up. It cuts many quads the other way: 438 are the same."""
    path = shared / "models" / "canonical_face_model.obj"
    if not path.exists():
        pytest.skip(f"no {path}")
    rows = [line.split()[1:] for line in path.read_text().splitlines() if line.startswith("f ")]
    known = {}
    for row in rows:
        face = [int(entry.split("/")[0]) - 1 for entry in row]
        known[frozenset(face)] = {tuple(face), tuple(face[1:] + face[:1]), (face[2], *face[:2])}
    faces = [tuple(face) for face in triangles().tolist() if frozenset(face) in known]
    assert len(faces) == 438
    assert not any(face in known[frozenset(face)] for face in faces)


def test_the_mirror_map_of_these_tests_is_that_of_the_canonical_face(shared, mirror):
    path = shared / "models" / "canonical_face_model.obj"
    if not path.exists():
        pytest.skip(f"no {path}")
    rows = [line.split()[1:] for line in path.read_text().splitlines() if line.startswith("v ")]
    points = np.array(rows, float)
    distance = np.linalg.norm(points[:, None] - points * [-1, 1, 1], axis=2)
    assert distance.min(axis=1).max() == 0
    assert dict(enumerate(distance.argmin(axis=1).tolist())) == mirror


def test_tables_cannot_be_changed_by_accident():
    for table in (triangles(), triangles(close_eyes=False), pose_template()[1]):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 0


# -- point sets of the model families --------------------------------------------------------------


def test_lsp_points_are_those_of_its_specification(specs):
    text = (specs / "lsp.md").read_text("utf-8")
    section = text[text.index("### 14.1") : text.index("### 14.2")]
    rows = re.findall(r"^\| (\d+)(?:[-,](\d+))? \| ([\d ]+) \|$", section, re.MULTILINE)
    listed = {}
    for first, last, points in rows:
        numbers = range(int(first), int(last or first) + 1)
        listed.update(zip(numbers, map(int, points.split()), strict=True))
    assert [listed[k] for k in range(73)] == list(LSP73)
    section = text[text.index("### 14.2") : text.index("### 14.3")]
    stable = re.search(r"^(?:\d+ ){36}\d+", section, re.MULTILINE)
    assert tuple(map(int, stable[0].split())) == STABLE


# The other side of each of the 73 points, from the description of the layout (official code).
LSP_MIRROR = (14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0,
              21, 22, 23, 24, 25, 26, 15, 16, 17, 18, 19, 20,
              31, 32, 33, 34, 27, 28, 29, 30,
              43, 42, 41, 40, 39, 38, 37, 36, 35, 45, 44,
              52, 51, 50, 49, 48, 47, 46, 57, 56, 55, 54, 53,
              60, 59, 58, 63, 62, 61, 64,
              72, 71, 70, 69, 68, 67, 66, 65)  # fmt: skip


def test_lsp_points_are_distinct_and_mirrored(mirror):
    assert len(set(LSP73)) == 73
    assert [mirror[LSP73[k]] for k in range(73)] == [LSP73[LSP_MIRROR[k]] for k in range(73)]


def test_the_stable_points_are_mirrored_and_not_on_lips_chin_or_brows(mirror):
    assert len(set(STABLE)) == 37
    assert {mirror[point] for point in STABLE} == set(STABLE)
    moving = {*LIPS, CHIN, *sum(BROW_LEFT + BROW_RIGHT, ())}
    assert not moving & set(STABLE)
    assert {mirror[point] for point in RIGID} == set(RIGID)


# The usual mirror map of the 68 points, e.g. of 300-W augmentations.
IBUG_MIRROR = (*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
               45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
               54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55,
               64, 63, 62, 61, 60, 67, 66, 65)  # fmt: skip


def test_the_68_points_are_distinct_and_mirrored(mirror):
    assert len(IBUG68) == len(set(IBUG68)) == 68
    assert [mirror[IBUG68[k]] for k in range(68)] == [IBUG68[IBUG_MIRROR[k]] for k in range(68)]


def test_the_68_points_lie_on_the_parts_that_they_are_named_after():
    assert set(IBUG68[:17]) < set(FACE_OVAL)
    assert IBUG68[8] == CHIN
    assert set(IBUG68[17:22]) == set(BROW_LEFT[1])
    assert set(IBUG68[22:27]) == set(BROW_RIGHT[1])
    assert set(IBUG68[36:42]) < set(EYE_LEFT)
    assert set(IBUG68[42:48]) < set(EYE_RIGHT)
    assert IBUG68[36:40:3] == EYE_CORNERS_LEFT
    assert IBUG68[42:46:3] == EYE_CORNERS_RIGHT


def test_contours_of_the_68_points_run_in_order():
    """Neighbours by number are neighbours along MediaPipe's contours."""
    oval = [FACE_OVAL.index(point) for point in IBUG68[:17]]
    assert all(a > b for a, b in zip(oval, oval[1:], strict=False))
    for eye, part in ((EYE_LEFT, IBUG68[36:42]), (EYE_RIGHT, IBUG68[45:41:-1] + IBUG68[47:45:-1])):
        upper = [eye.index(point) for point in part[1:4]]
        lower = [eye.index(point) for point in part[4:]]
        assert upper == sorted(upper, reverse=True)
        assert lower == sorted(lower, reverse=True)
    assert NOSE_TIP not in IBUG68 and IBUG68[30] == 4


def test_the_mouth_of_the_68_points_is_that_of_the_metrics():
    """Outer contour, then inner contour."""
    outer = (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91)
    inner = (78, 81, 13, 311, 308, 402, 14, 178)
    assert IBUG68[48:] == outer + inner
    for part, contour in ((outer, LIPS_OUTER), (inner, LIPS_INNER)):
        places = [(-contour.index(point)) % 20 for point in part]
        assert places == sorted(places)


def test_moda_groups_are_ordered_as_its_specification_says(connections):
    """Ascending lips; iris, eye and brow of MediaPipe's left, then of its right side."""

    def ascending(name: str) -> list[int]:
        return sorted(points_of(connections(name)))

    assert list(MODA_MOUTH) == ascending("LIPS")
    parts = [f"{side}_{part}" for side in ("LEFT", "RIGHT") for part in ("IRIS", "EYE", "EYEBROW")]
    assert list(MODA_EYES) == sum(map(ascending, parts), [])
    assert (len(MODA_MOUTH), len(MODA_EYES)) == (40, 60)


def test_the_sketch_has_the_125_edges_of_hyperlips(connections):
    """As in the official code."""
    names = ("LIPS", "LEFT_EYE", "RIGHT_EYE", "LEFT_EYEBROW", "RIGHT_EYEBROW")
    expected = [edge for name in names for edge in connections(name)]
    for line in ("168-6-197-195-5-4", "4-45-220-115-48", "4-275-440-344-278"):
        expected += chain(tuple(map(int, line.split("-"))))
    top = [10, 338, 297, 332, 284, 251, 389], [162, 21, 54, 103, 67, 109, 10]
    dropped = undirected(chain(tuple(top[0])) + chain(tuple(top[1])))
    oval = [e for e in connections("FACE_OVAL") if frozenset(e) not in dropped]
    assert len(oval) == 24
    assert len(SKETCH_EDGES) == len(undirected(SKETCH_EDGES)) == 125
    assert undirected(SKETCH_EDGES) == undirected(expected + oval)


# -- the template of head pose ---------------------------------------------------------------------


def test_the_pose_template_is_that_of_the_specification(specs):
    text = (specs / "moda.md").read_text("utf-8")
    rows = re.findall(r"(\d+):([+-]\d\.\d{3}),([+-]\d\.\d{3}),([+-]\d\.\d{3})", text)
    vertices, points = pose_template()
    assert [int(row[0]) for row in rows] == vertices.tolist()
    assert np.array_equal(np.array([row[1:] for row in rows], float), points)


def test_the_pose_template_is_centred_and_of_unit_size():
    vertices, points = pose_template()
    assert vertices.shape == (72,) and points.shape == (72, 3)
    assert np.abs(points.mean(axis=0)).max() < 5e-4  # the table has three decimals
    assert np.sqrt((points**2).sum(axis=1).mean()) == pytest.approx(1, abs=5e-4)


def test_the_pose_template_is_symmetric(mirror):
    vertices, points = pose_template()
    place = dict(zip(vertices.tolist(), points.tolist(), strict=True))
    for vertex, (x, y, z) in place.items():
        assert place[mirror[vertex]] == [-x if x else 0, y, z]


def test_the_pose_template_looks_at_the_viewer_with_the_forehead_on_top():
    vertices, points = pose_template()
    place = dict(zip(vertices.tolist(), points, strict=True))
    assert place[NOSE_TIP][2] > 0.7  # z toward the viewer
    assert place[127][2] < -0.9  # an ear
    assert place[FOREHEAD][1] == points[:, 1].min()  # y down


def test_the_pose_template_leaves_out_what_moves_in_speech():
    assert not {*LIPS, CHIN, *sum(BROW_LEFT + BROW_RIGHT, ())} & set(pose_template()[0].tolist())
