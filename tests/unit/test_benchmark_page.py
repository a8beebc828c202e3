"""``benchmark.html``: safe embedding of the data, and the page itself in a headless browser."""

from __future__ import annotations

import base64
import html
import json
import math
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talkingface.comparison.page import write_page
from talkingface.data.media.writer import VideoWriter

BROWSER = next(
    (p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))),
    None,
)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH"
)
HOSTILE = "</script><b>Größe & 模型\u2028"
ROWS = ("A", "B", HOSTILE, "still", "real video")
MEANS: dict[str, tuple[float, ...]] = {  # one per row
    "up": (1.0, 3.0, 2.0, math.nan, 9.0),
    "down": (1.0, 3.0, 2.0, math.nan, 0.0),
    "zero": (-1.0, 0.5, 2.0, math.nan, 0.0),
    "real": (1.0, 9.0, 5.0, math.nan, 6.0),
}


def sample() -> dict[str, Any]:
    """Two datasets, a metric with several outputs of every direction, 14 outputs."""
    outputs = {
        way: {"direction": way, "unit": "px", "metric": "M", "definition": f"M[{way}]"}
        for way in MEANS
    }
    outputs |= {
        f"x{i}": {"direction": "up", "unit": "", "metric": f"X{i // 2}", "summary": "Other"}
        for i in range(10)
    }
    summary = {
        row: {
            key: {
                "mean": MEANS[key][i] if key in MEANS else float(i),
                "std": 0.25,
                "n": 3 if key == "down" and row == "A" else 4,
                "low": 0.125,
                "high": np.float32(2.5),
                "difference": -0.5,
                "p": 0.004 if row == "A" else 0.03 if row == "B" else math.inf,
                "best": row == "A" and key == "down",
            }
            for key in outputs
        }
        for i, row in enumerate(ROWS)
    }
    clips = ["c0", "c1", "c2", "c3"]
    values = {
        row: {c: {k: s["mean"] + j / 10 for k, s in cells.items()} for j, c in enumerate(clips)}
        for row, cells in summary.items()
    }
    dataset = {
        "name": "First",
        "clips": clips,
        "baseline": "still",
        "real": "real video",
        "facts": ["4 clips"],
        "rows": summary,
        "values": values,
        "undefined": [
            {"row": "still", "clip": c, "output": k, "reason": "no face"}
            for c in clips
            for k in MEANS
        ],
        "notes": {"A": {"c0": ["short"]}, "B": {"c1": ["short"]}},
        "remarks": ["odd"],
        "previews": [],
    }
    rows = {row: summary[row] for row in ("B", "A")}
    second = {**dataset, "name": "Second", "rows": rows, "real": None, "notes": {}, "remarks": []}
    cost = {"parameters": 2_500_000, "flops_per_frame": 1e9, "ms_per_frame": 12.5}
    return {
        "title": "Sample <i>",
        "created": "2026-11-21 18:00",
        "command": "python run_talkingface.py --benchmark",
        "version": "0.1.0",
        "hardware": "cpu",
        "rows": {
            row: {"kind": "model", "detail": "run 1", "warnings": ["seen in training"]}
            for row in ROWS
        },
        "outputs": outputs,
        "datasets": [dataset, second],
        "cost": {
            "A": {**cost, "real_time_factor": 0.9, "device": "cpu", "note": ""},
            "B": {"parameters": None, "ms_per_frame": math.nan},
            "still": {**cost, "parameters": 0, "ms_per_frame": 3.0},
        },
    }


def embedded(page: str) -> Any:
    """The data as a browser finds them: up to the first end of the script element."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script', page, re.S)
    assert found
    return json.loads(found[1], parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_data_survive_embedding(tmp_path):
    data = sample()
    write_page(tmp_path / "new" / "page.html", data)
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    read = embedded(page)
    assert list(read["rows"]) == list(ROWS)
    assert list(read["outputs"]) == list(data["outputs"])
    assert read["datasets"][0]["rows"]["still"]["up"]["mean"] is None
    assert read["datasets"][0]["rows"][HOSTILE]["up"]["p"] is None
    assert read["datasets"][0]["rows"]["A"]["up"]["high"] == 2.5
    assert "\u2028" not in page and page.count("</script") == 2
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    "value, read",
    [
        ("<!--<script>", "<!--<script>"),
        ("@@DATA@@", "@@DATA@@"),
        ("\u2029\\u003c\\", "\u2029\\u003c\\"),
        ("name \udcff", "name \udcff"),  # of a file whose name is not UTF-8
        (np.float64("nan"), None),
        (-math.inf, None),
        (np.int64(3), 3),
        ((True, np.bool_(False)), [True, False]),
        ({1: Path("a")}, {"1": "a"}),
    ],
)
def test_odd_values(tmp_path, value, read):
    write_page(tmp_path / "page.html", {"title": value})
    assert embedded((tmp_path / "page.html").read_text(encoding="utf-8")) == {"title": read}


def test_page_asks_nobody_for_anything(tmp_path):
    write_page(tmp_path / "page.html", {"command": "see https://example.org"})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    rest = page.replace("see https://example.org", "")
    assert not re.search(r"https?:|@import|url\(|\bsrc=|<link|fetch\(|XMLHttpRequest", rest)


def test_equal_data_give_equal_pages(tmp_path):
    for name in "ab":
        write_page(tmp_path / f"{name}.html", sample())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


# -- in a browser ----------------------------------------------------------------------------------

CATCH = "<script>const errors = []; onerror = (...a) => { errors.push(a.join(' ')) };</script>"


def scripted(path: Path, data: Any, script: str) -> Path:
    """A page that runs ``script`` when it is drawn."""
    write_page(path, data)
    page = path.read_text(encoding="utf-8").replace("<head>", "<head>" + CATCH, 1)
    path.write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return path


def browser(path: Path, *more: str) -> list[str]:
    profile = path.parent / "profile"
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    return [str(BROWSER), *fixed, "--window-size=1200,900", *more, path.as_uri()]


def result_of(path: Path) -> Any:
    """What the page wrote into ``<pre id=result>``."""
    done = subprocess.run(
        browser(path, "--virtual-time-budget=5000", "--dump-dom"),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


REPORT = """
function report(result) {
  const pre = document.createElement("pre");
  pre.id = "result";
  pre.textContent = JSON.stringify({ ...result, errors });
  document.body.append(pre);
}
"""
ACTIONS = """
const all = (query, of = document) => [...of.querySelectorAll(query)];
const order = (id = "scores") => all(`#${id} tbody tr`).map(tr => tr.dataset.row);
const head = (key, id = "scores") => document.querySelector(`#${id} th[data-key="${key}"]`);
const press = (key, id) => {
  head(key, id).querySelector("button").click();
  return [head(key, id).ariaSort, ...order(id)];
};
const text = (row, key) => all("#scores tr").find(tr => tr.dataset.row === row)
  .querySelector(`td[data-key="${key}"]`).innerText;
const columns = () => all("#scores thead th").slice(1).map(th => th.dataset.key);
const out = { title: document.title, injected: all("b, i").length };
out.first = columns();
out.rows = order();
$("chips").querySelector("button").click();
out.all = columns();
for (const key of ["up", "down", "zero", "real"]) out[key] = [press(key), press(key)];
out.table = press("");
out.std = text("A", "down");
out.best = all("#scores .best").map(td => [td.parentNode.dataset.row, td.dataset.key]);
out.tip = document.querySelector("#scores td[data-key=down]").dataset.tip;
const modes = all("#modes button");
modes[1].click();
out.interval = text("A", "up");
modes[2].click();
out.difference = ["A", "B", "still"].map(row => text(row, "up"));
out.pressed = modes.map(button => button.ariaPressed);
out.undefined = text("still", "up");
out.costs = [press("parameters", "costs"), press("parameters", "costs")];
out.cost = document.querySelector("#costs tbody").innerText;
$("metric").value = "real";
$("metric").onchange({ target: $("metric") });
out.dots = all("#strip circle").length;
all("#strip circle")[1].dispatchEvent(new Event("pointerover", { bubbles: true }));
out.lit = all("#strip .lit").map(dot => dot.dataset.clip);
out.readout = $("readout").textContent;
out.strips = all("#strip g").map(g => g.dataset.row);
const cell = document.querySelector("#scores td[tabindex='0']");
cell.focus();
out.tooltip = $("tip").hidden ? "" : $("tip").textContent;
cell.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
out.focused = document.activeElement.dataset.key;
out.remarks = all("#remarks summary").map(s => s.textContent);
out.videos = $("videos").hidden;
press("up");
all("#tabs button")[1].click();
out.second = order();
out.kept = head("up").ariaSort;
"""


@needs_browser
def test_page_in_a_browser(tmp_path):
    script = REPORT + "addEventListener('load', () => {" + ACTIONS + "report(out) });"
    out = result_of(scripted(tmp_path / "page.html", sample(), script))
    assert out["errors"] == []
    assert out["title"] == "Sample <i>" and out["injected"] == 0
    assert out["rows"] == list(ROWS)
    # 14 outputs are too many to begin with: the first one of each metric.
    assert out["first"] == ["up", "x0", "x2", "x4", "x6", "x8"]
    assert len(out["all"]) == 14

    # The best comes first, nan always last; the real video stays below all.
    upwards = ["A", HOSTILE, "B"]  # of the plain numbers
    expected = {  # first click, its order of systems
        "up": ("descending", upwards[::-1]),
        "down": ("ascending", upwards),
        "zero": ("ascending", ["B", "A", HOSTILE]),
        "real": ("ascending", [HOSTILE, "B", "A"]),
    }
    for key, (way, systems) in expected.items():
        other = "ascending" if way == "descending" else "descending"
        assert out[key][0] == [way, *systems, "still", "real video"], key
        assert out[key][1] == [other, *systems[::-1], "still", "real video"], key
    assert out["table"] == ["ascending", *ROWS]

    assert "1.000" in out["std"] and "± 0.250" in out["std"] and "n 3" in out["std"]
    assert out["best"] == [["A", "down"]]
    for part in ("mean 1.000", "n 3", "95 % interval 0.125 to 2.500", "p = 0.004", "best"):
        assert part in out["tip"]
    assert "[0.125, 2.500]" in out["interval"]
    assert "−0.500**" in out["difference"][0]
    assert "−0.500*" in out["difference"][1] and "**" not in out["difference"][1]
    assert out["pressed"] == ["false", "false", "true"]
    assert out["undefined"].strip() == "–"

    assert out["costs"][0] == ["ascending", "still", "A", "B"]
    assert out["costs"][1] == ["descending", "A", "still", "B"]
    assert "2.50 M" in out["cost"] and "1.00 G" in out["cost"]

    assert out["strips"] == list(ROWS)
    assert out["dots"] == 16 and out["lit"] == ["c1"] * 4
    assert out["readout"].startswith("c1: A 1.100 · B 9.100")
    assert out["tooltip"].startswith("A: up") and out["focused"] == "down"
    assert out["remarks"] == [
        "Undefined values: 16",
        "16 × no face",
        "Notes: 3",
        "2 × short",
        "1 × odd",
    ]
    assert out["videos"] is True
    assert out["second"] == ["B", "A"] and out["kept"] == "descending"


def poor_pages() -> dict[str, dict[str, Any]]:
    one = sample()
    one["datasets"] = one["datasets"][:1]
    one["datasets"][0] |= {
        "rows": {"A": one["datasets"][0]["rows"]["A"]},
        "clips": ["c0"],
        "real": None,
        "baseline": None,
    }
    empty = sample()
    empty["cost"] = {}
    for row in empty["datasets"][0]["rows"].values():
        for cell in row.values():
            cell |= dict.fromkeys(("mean", "std", "low", "high", "difference", "p")) | {"n": 0}
    empty["datasets"][0]["values"] = {}
    bare = {"title": "Bare", "rows": {}, "outputs": {}, "datasets": [], "cost": {}}
    few = sample()
    few["datasets"] = [
        {"name": "D", "clips": ["c"], "rows": {"A": {}}, "baseline": "A", "real": None}
    ]
    return {"one": one, "empty": empty, "bare": bare, "few": few}


@needs_browser
@pytest.mark.parametrize(
    ("name", "rows", "no_cost"),
    [("one", 1, False), ("empty", 5, True), ("bare", 0, True), ("few", 1, False)],
)
def test_little_data_still_make_a_page(tmp_path, name, rows, no_cost):
    script = REPORT + (
        "addEventListener('load', () => {"
        " for (const button of document.querySelectorAll('#modes button, thead button'))"
        "   button.click();"
        " mark('c0');"
        " const rows = document.querySelectorAll('#scores tbody tr').length;"
        " report({ rows, noCost: $('cost').hidden, noVideos: $('videos').hidden }) });"
    )
    out = result_of(scripted(tmp_path / "page.html", poor_pages()[name], script))
    assert out == {"errors": [], "rows": rows, "noCost": no_cost, "noVideos": True}


def make_video(path: Path, frames: int) -> str:
    sound = np.sin(np.arange(frames * 640) / 20).astype(np.float32) / 10
    with VideoWriter(path, 25, audio=(sound, 16000)) as writer:
        for i in range(frames):
            writer.write(np.full((64, 64, 3), 4 * i % 256, np.uint8))
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


PLAYING = """
const wait = ms => new Promise(done => setTimeout(done, ms));
const until = async (what, ms = 8000) => {
  for (const end = Date.now() + ms; !what() && Date.now() < end;) await wait(20);
  return what();
};
const apart = () => Math.max(...players.map(v => Math.abs(v.currentTime - lead.currentTime)));
addEventListener("load", async () => {
  const out = {};
  try {
    out.ready = await until(() => lead && !$("play").disabled);
    out.hidden = $("videos").hidden;
    out.lead = players.indexOf(lead);
    $("next").click();
    await until(() => !seeking);
    out.step = $("clock").textContent;
    $("seek").value = 0.4;
    $("seek").oninput({ target: $("seek") });
    await until(() => !seeking);
    out.sought = players.map(v => v.currentTime);
    $("sound").value = 1;
    $("sound").onchange();
    out.muted = players.map(v => v.muted);
    players[0].currentTime = 0.6;  // pushed away on purpose
    $("play").click();
    out.label = $("play").textContent;
    await until(() => lead.currentTime > 1.0);
    out.drift = [];
    while (lead.currentTime < 1.6 && playing) { out.drift.push(apart()); await wait(50) }
    await until(() => lead.currentTime < 0.5);
    out.looped = lead.currentTime < 0.5 && playing && await until(() => lead.currentTime > 0.1);
    $("loop").checked = false;
    $("seek").oninput({ target: { value: 1.7 } });
    out.stopped = await until(() => !playing);
    out.ends = players.map(v => v.currentTime);
  } catch (error) { errors.push(String(error)) }
  fetch(REPLY, { method: "POST", mode: "no-cors", body: JSON.stringify({ ...out, errors }) });
});
"""


@needs_browser
def test_videos_stay_together(tmp_path):
    data = sample()
    videos = [
        {"row": row, "src": make_video(tmp_path / f"{i}.mp4", frames)}
        for i, (row, frames) in enumerate([("A", 50), ("B", 52), ("still", 49)])
    ]
    data["datasets"][0]["previews"] = [{"clip": "c0", "videos": videos}]
    answers: list[Any] = []
    arrived = threading.Event()

    class Listener(BaseHTTPRequestHandler):  # playing takes real time: --dump-dom would not wait
        def do_POST(self) -> None:
            answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            arrived.set()

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        reply = json.dumps(f"http://127.0.0.1:{server.server_port}/")
        path = scripted(tmp_path / "page.html", data, PLAYING.replace("REPLY", reply))
        free = "--autoplay-policy=no-user-gesture-required"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(browser(path, free, "--remote-debugging-port=0"), **quiet) as process:
            try:
                assert arrived.wait(60), "no answer from the browser"
            finally:
                process.terminate()
                server.shutdown()
    (out,) = answers
    assert out["errors"] == []
    assert out["ready"] and not out["hidden"] and out["lead"] == 1
    assert out["step"].endswith("frame 1")
    assert out["sought"] == pytest.approx([0.4] * 3)
    assert out["muted"] == [True, False, True]
    assert out["label"] == "Pause"
    assert len(out["drift"]) > 3 and max(out["drift"]) <= 0.1
    assert out["looped"] and out["stopped"]
    assert out["ends"] == pytest.approx([2.0, 2.08, 1.96], abs=0.06)
