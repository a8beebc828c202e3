"""Known weight files are downloaded on request and checked."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from talkingface.errors import ConfigError, EnvironmentProblem, WeightsError
from talkingface.quick_start import fetch as module
from talkingface.quick_start.fetch import fetch, read_manifest

CONTENT = b"weights" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A web server on this machine that knows one file."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "net.pth").write_bytes(CONTENT)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/net.pth"
    server.shutdown()


@pytest.fixture
def manifest(monkeypatch: pytest.MonkeyPatch, address: str) -> dict:
    facts = {
        "used_by": ["LSE"], "origin": "here", "url": address, "licence": "MIT",
        "bytes": len(CONTENT), "sha256": SHA,
    }  # fmt: skip
    known = {"A/net.pth": facts}
    monkeypatch.setattr(module, "read_manifest", lambda: known)
    return known


def test_a_file_is_fetched_by_its_name_or_by_what_uses_it(manifest, root):
    assert fetch({"fetch": "lse"}, {}) == 0
    assert (root / "checkpoints/A/net.pth").read_bytes() == CONTENT
    assert fetch({"fetch": "net.pth"}, {}) == 0  # it is there: compared, not loaded again


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"bytes": 3}, {"sha256_begins": "zz"}])
def test_another_file_than_expected_is_not_kept(manifest, root, wrong):
    manifest["A/net.pth"].update({"sha256": None}, **wrong)
    with pytest.raises(WeightsError, match=r"A/net\.pth"):
        fetch({"fetch": "LSE"}, {})
    assert not list((root / "checkpoints").rglob("*.pth"))


def test_without_a_network_the_message_says_where_to_put_the_file(manifest, root):
    manifest["A/net.pth"]["url"] = "http://127.0.0.1:9/net.pth"
    with pytest.raises(EnvironmentProblem, match="put it at .*net.pth"):
        fetch({"fetch": "LSE"}, {})


def test_unknown_names_and_files_without_an_address_are_explained(manifest, root):
    with pytest.raises(ConfigError, match="net.pth"):
        fetch({"fetch": "nett.pth"}, {})
    del manifest["A/net.pth"]["url"]
    with pytest.raises(ConfigError, match="by hand from here"):
        fetch({"fetch": "LSE"}, {})


def test_the_manifest_states_origin_and_licence_of_every_file():
    for name, facts in read_manifest().items():
        assert {"used_by", "origin", "licence", "bytes", "sha256"} <= set(facts), name
        if "url" in facts and not name.startswith("LPIPS/lpips_lin"):
            assert facts["url"].endswith(Path(name).name)


def test_the_command_exists(run_cli):
    done = run_cli(["--fetch=nothing"])
    assert done.returncode == 2 and "syncnet_v2.model" in done.stderr
