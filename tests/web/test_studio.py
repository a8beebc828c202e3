"""The studio: uploads, commands in processes of their own, and a person's clicks in a browser."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

from talkingface.cli import main
from talkingface.data.synthetic.source import SHIPPED
from talkingface.errors import DataError, TalkingFaceError
from talkingface.quick_start.prepare import list_videos
from talkingface.web import uploads
from talkingface.web.app import Studio, _frame
from talkingface.web.jobs import Job
from talkingface.web.uploads import checked

CLIP = SHIPPED / "data" / "p05" / "p05_000.mp4"


# -- uploads ---------------------------------------------------------------------------------------


def test_an_upload_of_another_kind_is_refused(tmp_path, tone_wav, monkeypatch):
    assert checked(str(CLIP), "video") == checked(str(CLIP), "sound") == CLIP
    assert checked(str(tone_wav), "sound") == Path(tone_wav)
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    for path, kind in ((tone_wav, "video"), (text, "video"), (text, "picture"), (CLIP, "picture")):
        with pytest.raises(DataError, match=Path(path).name):
            checked(str(path), kind)
    with pytest.raises(DataError, match="Choose a sound"):
        checked(None, "sound")
    monkeypatch.setattr(uploads, "MEGABYTES", 0)
    with pytest.raises(DataError, match="at most 0 MB"):
        checked(str(CLIP), "video")


def test_a_picture_is_accepted_by_its_content(tmp_path):
    from PIL import Image

    file = tmp_path / "face.jpg"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "PNG")
    assert checked(str(file), "picture") == file


# -- commands --------------------------------------------------------------------------------------


def test_a_job_gives_its_output_and_the_message_of_an_error(root):
    job = Job(["list"])
    lines = list(job.follow())
    assert job.status == 0 and "Models" in lines and "Models" in job.lines
    job = Job(["infer", "--model=HyperLipsBase", "--audio=gone.wav", "--source=gone.mp4"])
    with pytest.raises(TalkingFaceError, match="gone"):
        list(job.follow())
    assert job.status == 2


def test_progress_bars_become_one_line(monkeypatch):
    text = "print('faces:  44%|###  | 33/75 [00:01]', end='\\r'); print('done')"
    real = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda words, **options: real([sys.executable, "-c", text], **options)
    )
    job = Job(["anything"])
    assert list(job.follow()) == ["faces: 44 %, 33/75 [00:01]", "done"]
    assert job.lines == ["done"]


def test_a_cancelled_job_ends(monkeypatch):
    real = subprocess.Popen
    words = [sys.executable, "-c", "import time; print('on', flush=True); time.sleep(60)"]
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: real(words, **options))
    job = Job(["anything"])
    progress = job.follow()
    assert next(progress) == "on"
    began = time.monotonic()
    job.cancel()
    assert list(progress) == [] and job.status and job.cancelled
    assert time.monotonic() - began < 10
    job.cancel()  # again: nothing to do


# -- page ------------------------------------------------------------------------------------------


def test_the_studio_offers_runs_zoo_and_a_model_without_training(root):
    offered = Studio().weights()
    assert any(title.startswith("zoo/HyperLipsBase") for title in offered)
    assert ["--model=VideoRewrite"] in offered.values()
    assert Studio().history() == [] and Studio().run_table() == []
    assert not any(title.startswith("official") for title in offered)
    file = root / "checkpoints" / "hyperlipsbase_mead.pth"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"")
    words = Studio().weights()["official hyperlipsbase_mead.pth: HyperLipsBase"]
    assert words == ["--model=HyperLipsBase", "--preset=official", f"--checkpoint={file}"]


def test_uploads_of_one_name_or_with_a_comma_are_prepared_and_a_cancelled_one_is_told(
    root, tmp_path, monkeypatch
):
    gradio = pytest.importorskip("gradio")
    uploads = [tmp_path / "1" / "me, again.mp4", tmp_path / "2" / "me, again.mp4"]
    for path in uploads:
        path.parent.mkdir()
        shutil.copy(CLIP, path)
    found = []

    def follow(job):
        yield from ()
        found.append([path.name for path in list_videos(job.words[2].removeprefix("--videos="))])

    monkeypatch.setattr(Job, "__init__", lambda job, words: job.__dict__.update(
        words=words, lines=[], status=-15))  # fmt: skip
    monkeypatch.setattr(Job, "follow", follow)
    assert list(Studio().prepare("me", list(map(str, uploads)))) == [("cancelled", "")]
    assert found == [["me, again.mp4", "me, again_1.mp4"]]
    with pytest.raises(gradio.Error, match="Choose a video"):
        next(Studio().prepare("me", None))


def test_a_report_within_the_page_finds_its_pictures_and_nothing_else(tmp_path):
    page = tmp_path / "report.html"
    page.write_text("<html><head></head><img src='.report/a.jpg'></html>")
    frame = _frame(page)
    assert f"file={tmp_path}/" in frame and 'sandbox="allow-scripts"' in frame


def test_a_browser_gets_no_file_but_those_of_runs_and_benchmarks(root):
    secret = root / "other" / "metrics.jsonl"
    secret.parent.mkdir()
    secret.write_text('{"step": 1, "loss": 0.5}')
    (root / "saved").mkdir()
    (root / "results").mkdir()
    studio = Studio()
    assert studio.pictures("../../../other") == []
    assert studio._folder("../../../other") is None and studio._folder("*") is None
    assert studio.benchmark_page(str(secret)) == ""
    page = root / "results" / "benchmark-1" / "benchmark.html"
    page.parent.mkdir()
    page.write_text("<html><head></head>fine</html>")
    assert "fine" in studio.benchmark_page(str(page))


@pytest.mark.skipif(importlib.util.find_spec("gradio") is not None, reason="gradio is installed")
def test_without_gradio_the_command_says_how_to_get_it(root, capsys):
    assert main(["web"]) == 2
    assert "'.[web]'" in capsys.readouterr().err


@pytest.fixture
def browser():
    for package in ("gradio", "selenium"):
        pytest.importorskip(package)
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage",
                 "autoplay-policy=no-user-gesture-required", "window-size=1400,1300"):  # fmt: skip
        options.add_argument(f"--{word}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    driver.implicitly_wait(30)
    yield driver
    driver.quit()


def test_from_the_example_to_a_playing_video_by_three_clicks(browser, root):
    command = [sys.executable, str(REPOSITORY / "run_talkingface.py"), "web"]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ,
        "TALKINGFACE_ROOT": str(root), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        line = next(line for line in server.stdout if "open http" in line)
        browser.get(line.split()[1])
        browser.find_element("id", "example").click()
        browser.find_element("css selector", "audio, #waveform, .waveform-container")
        time.sleep(3)
        browser.find_element("id", "generate").click()
        deadline, text = time.monotonic() + 120, ""
        while not text.startswith("done"):
            assert time.monotonic() < deadline, text
            time.sleep(1)
            field = browser.find_element("css selector", "#status textarea, #status input")
            text = field.get_attribute("value") or ""
        video = browser.find_element("css selector", "#result video")
        browser.execute_script("arguments[0].muted = true; arguments[0].play()", video)
        time.sleep(1)
        assert browser.execute_script("return arguments[0].currentTime", video) > 0
        assert not browser.execute_script(
            "return document.documentElement.scrollWidth > window.innerWidth"
        )
    finally:
        server.terminate()
        server.wait(20)
    assert len(list((root / "results" / "web").glob("*_mouth.mp4"))) == 1
