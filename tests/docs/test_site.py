"""The documentation site: generated pages, links, and a strict build."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from conftest import REPOSITORY

import talkingface
from talkingface.commands import COMMANDS

PACKAGES = ("mkdocs", "material", "mkdocstrings")


@pytest.fixture
def site(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    import site_pages

    return site_pages


def test_the_reference_has_every_model_metric_dataset_command_and_key(site):
    pages = site.pages()
    for kind, names in (
        ("models", talkingface.list_models()),
        ("metrics", talkingface.list_metrics()),
        ("commands", [name for name in COMMANDS]),
    ):
        assert {f"## {name}" for name in names} <= set(pages[f"reference/{kind}.md"].splitlines())
    assert all(
        f"| {name} |" in pages["reference/datasets.md"] for name in talkingface.list_datasets()
    )
    for key in ("learning_rate", "face.box_margins", "model_params.warp", "synthetic.persons"):
        assert f"| `{key}` |" in pages["reference/settings.md"], key


def test_every_page_of_docs_is_in_the_navigation(site):
    text = (REPOSITORY / "mkdocs.yml").read_text("utf-8")
    entries = set(re.findall(r"[\w/]+\.md", text.split("\nnav:")[1]))
    own = {path.name for path in (REPOSITORY / "docs").glob("*.md")}
    assert own <= entries and entries - own <= set(site.pages())


def test_roles_of_docstrings_become_code(site):
    html = "see :func:<code>~talkingface.api.run</code> and :meth:<code>.Run.go</code>"
    assert site.on_page_content(html) == "see <code>run</code> and <code>Run.go</code>"


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "[a](docs/models.md#x)", "[a](models.md#x)"),
        ("index.md", "[a](examples/plugin)", "a"),
        ("index.md", "[a](checkpoints/README.md)", "[a](weights.md)"),
        ("weights.md", "[a](../docs/moda.md)", "[a](moda.md)"),
        ("models.md", "[a](../checkpoints/README.md)", "[a](weights.md)"),
        ("models.md", "[a](moda.md#b) [c](https://x.org/d)", "[a](moda.md#b) [c](https://x.org/d)"),
        ("models.md", "[a](#b)", "[a](#b)"),
    ],
)
def test_links_out_of_docs_lead_to_their_page_or_are_text(site, page, link, expected):
    file = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    assert site.on_page_markdown(link, file) == expected


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, PACKAGES)), reason="the extra 'docs' is not installed"
)
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "reference/python/index.html").read_text("utf-8")
    assert "create_model" in page and "Raises" in page


def test_the_citation_file_is_valid_and_names_this_version():
    data = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
    assert data["version"] == talkingface.__version__ and data["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= set(data)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(root, monkeypatch):
    """Its cells in order in one namespace, as Jupyter runs them; Synthetic needs no download."""
    book = json.loads((REPOSITORY / "docs/notebooks/first_steps.ipynb").read_text("utf-8"))
    code = [cell["source"] for cell in book["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 4 and all("outputs" in c for c in book["cells"] if c["cell_type"] == "code")
    names: dict = {}
    for text in code:
        exec(text, names)
    assert names["videos"][0].is_file() and names["result"].test_result["LMD"] > 0
