"""Lines of the package by family, the largest files, and the members of the contracts.

    python tools/sizes.py

A family is what lies in folders of its name; everything else is the framework.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
PACKAGE = TOP / "talkingface"
FAMILIES = ("hyperlips", "rewrite", "lsp", "moda", "a2p", "syncnet", "headgan")
LIMITS = {"package": 36_000, "framework": 20_000, "family": 3_500, "file": 500}
FOLDERS = {"data/synthetic": 2_600}
# What is still above its limit, with the count that it must not exceed on the way there.
ABOVE = {"package": 48_311, "framework": 31_754, "folder data/synthetic": 4_142}
CONTRACTS = {  # class -> file, and the most documented members that it may have
    "AbstractTalkingFace": ("model/abstract_talkingface.py", 12),
    "TalkingFaceDataset": ("data/dataset/base.py", 10),
    "DataProcess": ("data/dataprocess/base.py", 10),
    "Pipeline": ("pipeline/base.py", 10),
}


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def by_family() -> Counter:
    """Lines of each family and of the framework."""
    counts: Counter = Counter()
    for path in PACKAGE.rglob("*.py"):
        folders = set(path.relative_to(PACKAGE).parts[:-1])
        counts[next((name for name in FAMILIES if name in folders), "framework")] += lines(path)
    return counts


def members(name: str) -> list[str]:
    """Public methods, properties and attributes of a contract, without constructor arguments."""
    tree = ast.parse((PACKAGE / CONTRACTS[name][0]).read_text("utf-8"))
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name).body
    found = [n.name for n in body if isinstance(n, ast.FunctionDef)]
    found += [n.target.id for n in body if isinstance(n, ast.AnnAssign)]
    found += [t.id for n in body if isinstance(n, ast.Assign) for t in n.targets]
    init = next((n for n in body if getattr(n, "name", "") == "__init__"), None)
    if init is not None:
        given = {argument.arg for argument in init.args.args}
        stored = [n for n in ast.walk(init) if isinstance(n, ast.Attribute)]
        found += [n.attr for n in stored if isinstance(n.ctx, ast.Store) and n.attr not in given]
    return sorted({name for name in found if not name.startswith("_")})


def rows() -> Iterator[tuple[str, int, int]]:
    """Title, count and limit of everything that is limited, files from the largest on."""
    counts = by_family()
    yield "package", sum(counts.values()), LIMITS["package"]
    yield "framework", counts.pop("framework"), LIMITS["framework"]
    for name, count in counts.most_common():
        yield f"family {name}", count, LIMITS["family"]
    for name, limit in FOLDERS.items():
        yield f"folder {name}", sum(map(lines, (PACKAGE / name).rglob("*.py"))), limit
    for name, (_, limit) in CONTRACTS.items():
        yield f"members of {name}", len(members(name)), limit
    for path in sorted(PACKAGE.rglob("*.py"), key=lines, reverse=True):
        yield path.relative_to(PACKAGE).as_posix(), lines(path), LIMITS["file"]


def main() -> None:
    for title, count, limit in islice(rows(), 18):
        remark = f"  too many, at most {ABOVE[title]:,} for now" if title in ABOVE else ""
        print(f"{title:<60}{count:>7,}  of {limit:,}{remark}")


if __name__ == "__main__":
    main()
