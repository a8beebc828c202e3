"""``report.html`` and ``report.csv``: complete, readable for any name, equal for equal data."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from preparekit import config, count, list_clips, names_as_clips, prepare, stamps

from talkingface.data.clips import Clip
from talkingface.data.dataprocess.base import ProcessReport
from talkingface.data.dataprocess.face_crops import FaceCropProcess
from talkingface.data.dataprocess.report import write_report

AWKWARD = [
    "a b/c d",
    "#1 take",
    "50% & more",
    "what?x=1;y",
    'he said "yes"',
    "it's",
    "中文/视频",
    "<i>x&y",
    "&lt;b&gt;",
    "back%20slash",
    "a:b, c",
]
HEAD = "clip,status,used,reason,outside,warnings,frames,seconds,source,speaker".split(",")


class Page(HTMLParser):
    """A parsed page; an end tag that closes something else is an error."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.clips: dict[str, str] = {}  # name -> all text of the clip
        self.pictures: dict[str, str] = {}  # name -> source
        self.title = ""
        self.feed(path.read_text("utf-8"))
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "div" and attributes.get("class") == "clip":
            self._name, self._text = "", ""
        if tag == "img":
            self.pictures[self._name] = attributes["src"]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> inside {self.open}"
        self.open.pop()
        if tag == "div" and "div" not in self.open:
            self.clips[self._name] = self._text

    def handle_data(self, data):
        if "title" in self.open:
            self.title += data
        elif "div" in self.open:
            if self.open[-1] == "b":
                self._name += data
            self._text += data

    def links(self) -> list[str]:
        return [attributes["href"] for tag, attributes in self.tags if "href" in attributes]


def marker(status: str = "ok", reason: str | None = None, **more: object) -> dict:
    good = status == "ok"
    found = {"status": status, "frames": 50 if good else 0, "seconds": 2.0 if good else 0.0, **more}
    return {**found, "reason": reason} if reason else found


def make_report(folder: Path, markers: dict[str, dict]) -> ProcessReport:
    """A report of clips that exist only here."""
    report = ProcessReport(folder, markers=markers)
    for name in markers:
        path = Path(f"{name}.mp4")
        report.clips[name] = Clip(name, path, path, speaker="s & t", source=f"source of {name}")
    return report


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "report.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# -- made-up clips ---------------------------------------------------------------------------------


def test_the_table_has_one_row_per_clip_in_the_order_of_names(tmp_path):
    markers = {
        "b": marker(measures={"cuts": 2, "yaw_min": None}),
        'a, "b"\nc': marker("skipped", 'no face: "x", y\nz'),
        "中": marker(measures={"sharpness": 12.5, "cuts": 0}, warnings=["w1", "w2"]),
        "c": marker("failed", "unexpected KeyError: 1"),
    }
    report = make_report(tmp_path, markers)
    report.flags["b"] = {"max_cuts": "2 scene cut(s)", "max_yaw": "turned"}
    report.flags["中"] = {"min_sharpness": "blurred"}
    report.dropped.add("中")
    write_report(report, "title")
    table = rows(tmp_path)
    assert [row["clip"] for row in table] == sorted(markers)
    assert list(table[0]) == [*HEAD, "cuts", "sharpness", "yaw_min"]
    by_name = {row["clip"]: row for row in table}
    assert [by_name[n]["status"] for n in ("b", "c", "中")] == ["ok", "failed", "ok"]
    assert [by_name[n]["used"] for n in ("b", "c", "中")] == ["yes", "no", "no"]
    assert by_name['a, "b"\nc']["reason"] == 'no face: "x", y\nz'
    assert by_name["b"]["outside"] == "max_cuts: 2 scene cut(s); max_yaw: turned"
    assert by_name["中"]["warnings"] == "w1; w2"
    assert (by_name["b"]["cuts"], by_name["b"]["sharpness"], by_name["b"]["yaw_min"]) == (
        "2",
        "",
        "",
    )
    assert (by_name["b"]["frames"], by_name["b"]["seconds"]) == ("50", "2.0")
    assert (by_name["b"]["source"], by_name["b"]["speaker"]) == ("source of b", "s & t")


def test_names_reasons_and_titles_are_shown_as_they_are(tmp_path):
    text = "<script>alert('1 & 2')</script>"
    markers = {name: marker() for name in AWKWARD}
    markers["bad"] = marker("skipped", f"no: {text}")
    markers["warned"] = marker(warnings=[text])
    report = make_report(tmp_path, markers)
    report.flags["warned"] = {"max_cuts": text}
    write_report(report, f"corpus {text}")
    page = Page(tmp_path / "report.html")
    assert set(page.clips) == set(markers)
    assert page.title == f"corpus {text}"
    assert text in page.clips["bad"] and page.clips["warned"].count(text) == 2
    assert not {"script", "i"} & {tag for tag, _ in page.tags}


def test_links_lead_to_the_sheets_whatever_the_name(tmp_path):
    for name in [*AWKWARD, "no sheet but bad"]:
        if "no sheet" not in name:
            path = tmp_path / ".report" / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    markers = {name: marker() for name in AWKWARD}
    markers["no sheet but bad"] = marker("skipped", "no sound: really")
    write_report(make_report(tmp_path, markers), "title")
    page = Page(tmp_path / "report.html")
    assert set(page.pictures) == set(AWKWARD)
    for name, source in page.pictures.items():
        address = urlsplit(source)
        assert (address.scheme, address.netloc, address.query, address.fragment) == ("",) * 4
        assert (tmp_path / unquote(address.path)).read_text() == name
    assert "report.csv" in page.links()


def test_what_needs_a_look_comes_first(tmp_path):
    markers = {
        "a good": marker(),
        "b outside": marker(),
        "c bad": marker("skipped", "no face: 1"),
        "d warned": marker(warnings=["damaged"]),
        "e failed": marker("failed", "unexpected"),
        "f good": marker(),
    }
    report = make_report(tmp_path, markers)
    report.flags["b outside"] = {"max_cuts": "1 scene cut(s)"}
    write_report(report, "title")
    names = [name.split()[0] for name in Page(tmp_path / "report.html").clips]
    assert names == ["c", "e", "b", "d", "a", "f"]


def test_long_reports_have_pages_that_know_each_other(tmp_path):
    markers = {f"clip{number:04}": marker() for number in range(450)}
    markers["zz bad"] = marker("skipped", "no face: 1")
    write_report(make_report(tmp_path, markers), "title")
    names = ["report.html", "report-2.html", "report-3.html"]
    pages = [Page(tmp_path / name) for name in names]
    assert [len(page.clips) for page in pages] == [200, 200, 51]
    assert next(iter(pages[0].clips)) == "zz bad"
    assert [name for page in pages for name in page.clips][1:] == sorted(markers)[:-1]
    for number, page in enumerate(pages):
        others = [name for name in names if name != names[number]]
        assert [link for link in page.links() if link != "report.csv"] == others
    assert not (tmp_path / "report-4.html").exists()
    assert len(rows(tmp_path)) == 451


def test_pages_of_a_larger_dataset_are_removed(tmp_path):
    many = {f"clip{number:04}": marker() for number in range(801)}
    write_report(make_report(tmp_path, many), "title")
    assert len(list(tmp_path.glob("report*.html"))) == 5
    write_report(make_report(tmp_path, dict(list(many.items())[:200])), "title")
    assert [path.name for path in tmp_path.glob("report*.html")] == ["report.html"]
    assert Page(tmp_path / "report.html").links() == ["report.csv"]


def test_an_equal_report_is_not_written_again(tmp_path):
    markers = {f"clip{number:04}": marker() for number in range(300)}
    write_report(make_report(tmp_path, markers), "title")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    write_report(make_report(tmp_path, dict(reversed(markers.items()))), "title")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    markers["clip0299"] = marker("skipped", "no face: 1")
    write_report(make_report(tmp_path, markers), "title")
    changed = {p.name for p in tmp_path.iterdir() if before[p] != p.stat().st_mtime_ns}
    assert changed == {"report.html", "report-2.html", "report.csv"}


@pytest.mark.parametrize("content", [b"\xff\xfe not utf-8", b""])
def test_a_damaged_report_is_replaced(tmp_path, content):
    (tmp_path / "report.html").write_bytes(content)
    write_report(make_report(tmp_path, {"a": marker()}), "title")
    assert list(Page(tmp_path / "report.html").clips) == ["a"]


def test_a_processor_with_measures_of_its_own_gets_a_report_too(tmp_path):
    measures = {"loudness": 3.5, "yaw_min": None, "yaw_max": None, "sharpness": 7.2}
    write_report(make_report(tmp_path, {"a": marker(measures=measures)}), "title")
    assert "sharpness 7" in Page(tmp_path / "report.html").clips["a"]
    assert rows(tmp_path)[0]["loudness"] == "3.5"


# -- real runs -------------------------------------------------------------------------------------


def test_a_run_reports_clips_with_awkward_names(tmp_path):
    clips = names_as_clips(tmp_path, *AWKWARD)
    list_clips(tmp_path, *(name for name in AWKWARD if '"' not in name))
    report = count(tmp_path, clips)
    names = sorted(name for name in AWKWARD if '"' not in name)
    assert sorted(report.of("ok")) == names
    assert [row["clip"] for row in rows(report.folder)] == names
    assert sorted(Page(report.folder / "report.html").clips) == names


def test_a_smaller_dataset_has_a_smaller_report(tmp_path):
    names = [f"{number:03}" for number in range(205)]
    clips = names_as_clips(tmp_path, *names)
    report = count(tmp_path, clips, stages=["preprocess"], make_split=[1, 0, 0])
    assert (report.folder / "report-2.html").exists()
    for name in names[3:]:
        (clips / f"{name}.mp4").unlink()
    report = count(tmp_path, clips, stages=["preprocess"])
    assert report.fresh == 0 and not (report.folder / "report-2.html").exists()
    assert [row["clip"] for row in rows(report.folder)] == names[:3]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, tiny_synthetic) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("prepared")
    clips = tiny_synthetic / "dataset" / "Synthetic-tiny" / "data"
    prepare(root, clips)
    return root, clips


def test_every_clip_of_a_real_run_has_its_figures_and_its_sheet(prepared):
    root, clips = prepared
    folder = root / "preprocessed_data" / "imgs"
    page = Page(folder / "report.html")
    names = [f"p0{n}/p0{n}_00{i}" for n in (0, 1) for i in (0, 1)]
    assert list(page.clips) == names and page.title == "MEAD: imgs"
    for name in names:
        assert (folder / unquote(page.pictures[name])).is_file()
        for fact in ("3.0 s", "face 100%", "height 1", "speech ", "mouth motion ", "yaw "):
            assert fact in page.clips[name]
    for row in rows(folder):
        assert (row["status"], row["used"], row["frames"], row["seconds"]) == (
            "ok",
            "yes",
            "75",
            "3.0",
        )
        assert float(row["face_ratio"]) == 1
        assert float(row["av_confidence"]) < 0.15 or abs(float(row["av_offset_ms"])) < 60
        assert row["speaker"] == row["clip"].split("/")[0]


def test_a_changed_limit_changes_the_report_and_processes_nothing(prepared):
    root, clips = prepared
    folder = root / "preprocessed_data" / "imgs"
    before, first = stamps(root), rows(folder)
    heights = sorted(float(row["face_height"]) for row in first)
    limit = {"quality.min_face_height": sum(heights[1:3]) / 2}
    report = prepare(root, clips, **limit)
    assert report.fresh == 0 and len(report.flags) == 2 and report.dropped == set()
    assert (
        f"outside quality.min_face_height: 2 ({min(report.flags)}: face only" in report.describe()
    )
    assert "2 of these are still used, 0 left out" in report.describe()
    after = stamps(root)
    changed = {Path(name).name for name in after if before.get(name) != after[name]}
    assert changed == {"report.html", "report.csv"}
    assert sum("min_face_height: face only" in row["outside"] for row in rows(folder)) == 2
    assert set(list(Page(folder / "report.html").clips)[:2]) == set(report.flags)
    report = prepare(root, clips, **limit, **{"quality.drop": ["min_face_height"]})
    assert report.fresh == 0 and report.dropped == set(report.flags)
    assert sorted(row["used"] for row in rows(folder)) == ["no", "no", "yes", "yes"]
    assert "0 of these are still used, 2 left out" in report.describe()
    assert prepare(root, clips, **{"quality.min_face_height": None}).flags == {}
    prepare(root, clips)
    assert rows(folder) == first


def test_limits_are_no_settings_of_the_files(prepared):
    root, clips = prepared
    hashes = {
        FaceCropProcess(config(root, clips, **more)).prepared.settings_hash()
        for more in ({}, {"quality.max_yaw": 1}, {"quality.drop": "all"}, {"executor": "dask"})
    }
    assert len(hashes) == 1
