"""Sound and picture stay together for ten minutes, and in bounded memory.

Each clip shows flashes and plays clicks at the same true times: the time stamps of the pictures
that light up. A reader that gives 25 pictures per second cannot show a flash between two of its
own pictures, so "within 20 ms" is checked as what remains when that sampling is set aside:

* Where a flash falls on a time that both the clip and the output have, nothing is sampled: flash
  and click lie within 2 ms, a tenth of what is demanded. So they do at the clip's own rate.
* Everywhere else the flash must begin with one certain output picture: the first from half an
  output interval before the flash on (20 ms at 25 per second). Where the clip has more pictures
  than the output, half the interval of the clip counts: each output picture is the nearest one.
* Over all flashes, sampled ones too, the mean distance and the drift over the whole length are
  below 20 ms.
* Every click lies within 2 ms of its true time, hence none of this can hide a common shift.

Half the clips come from PyAV with explicit time stamps, so that no mistake of our writer can
cancel one of the reader.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from talkingface.data.media.audio import load_audio
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import read_frames
from talkingface.data.media.writer import VideoWriter

av = pytest.importorskip("av")
REPOSITORY = Path(__file__).parents[2]
LENGTH = 600  # seconds
SYNC = 0.02  # seconds that sound and picture may be apart
EXACT = 0.002  # seconds; what is left is the rounding of time stamps to 1 ms by containers
ROUNDING = 0.0005  # seconds; time stamps of Matroska are whole milliseconds
FLASH = Fraction(15, 100)  # seconds; no target rate may jump over a flash
TICKS = 120_000  # per second: an exact time base for every rate here
RATES = {
    23.976: Fraction(24000, 1001),
    25: Fraction(25),
    29.97: Fraction(30000, 1001),
    30: Fraction(30),
    50: Fraction(50),
}
VARIABLE = 0


@dataclass(frozen=True)
class Plan:
    """When pictures come and which of them begin a flash. Seconds since the first picture."""

    rate: Fraction | None
    stamps: list[Fraction]
    end: Fraction
    events: list[int]

    @property
    def times(self) -> list[Fraction]:
        return [self.stamps[number] for number in self.events]

    def lit(self) -> list[bool]:
        starts = np.array(self.times, dtype=float)
        stamps = np.array(self.stamps, dtype=float)
        since = stamps - starts[np.searchsorted(starts, stamps + 1e-9) - 1]
        return [bool(age < float(FLASH) - 1e-9) for age in since]


def plan(fps: float) -> Plan:
    """Ten minutes at a rate of :data:`RATES`, or with time stamps all over the place."""
    rng, rate = np.random.default_rng(3), RATES.get(fps)
    # 20/3 s (on the NTSC clock times 1.001) is a picture of all rates; every third, fifth or sixth
    # multiple also falls on the output at 25 and 30 per second.
    clock = Fraction(1001, 1000) if rate and rate.denominator > 1 else 1
    regular = [Fraction(20, 3) * clock * number for number in range(LENGTH * 3 // 20)]
    if rate is None:
        # Dense, sparse and, as in recordings of a still screen, nothing new for half a second.
        steps = rng.choice([7, 16, 17, 33, 40, 41, 66, 120, 500], size=LENGTH * 1000 // 60)
        stamps = {int(stamp) for stamp in np.cumsum(steps) if stamp < LENGTH * 1000}
        stamps |= {0} | {round(1000 * time) for time in regular}
        stamps = [Fraction(stamp, 1000) for stamp in sorted(stamps)]
        stamps += [stamps[-1] + Fraction(number, 25) for number in (1, 2, 3, 4, 5)]
    else:
        stamps = [number / rate for number in range(round(LENGTH * rate))]
    end = 2 * stamps[-1] - stamps[-2]
    # Flashes at odd times between the regular ones meet every phase of the sampling; the last one
    # ends with the clip.
    wanted = [*regular, *(time + Fraction(rng.uniform(2, 4.6)) for time in regular), end - FLASH]
    wanted = [time for time in sorted(wanted) if time <= end - FLASH]
    events = sorted({bisect_left(stamps, time - Fraction(1, 1000)) for time in wanted})
    return Plan(rate, stamps, end, events)


def clicks(times: list[float], rate: int, seconds: float) -> np.ndarray:
    """Short tone bursts that start at the given seconds."""
    wave = np.zeros(round(seconds * rate), np.float32)
    burst = 0.8 * np.sin(2 * np.pi * 1500 * np.arange(int(0.02 * rate)) / rate)
    for moment in times:
        start = round(moment * rate)
        wave[start : start + len(burst)] += burst[: len(wave) - start]
    return wave


def onsets(wave: np.ndarray, rate: int) -> np.ndarray:
    """Seconds at which bursts begin."""
    loud = np.flatnonzero(np.abs(wave) > 0.2)
    return loud[np.flatnonzero(np.diff(loud, prepend=-rate) > rate // 10)] / rate


def pictures() -> list[np.ndarray]:
    """Dark and lit."""
    return [np.full((48, 64, 3), level, np.uint8) for level in (0, 255)]


def write_ours(path: Path, clip: Plan, fps: float, rate: int) -> Path:
    sound = clicks([float(time) for time in clip.times], rate, float(clip.end))
    images = pictures()
    with VideoWriter(path, fps, audio=(sound, rate), preset="ultrafast", threads=1) as out:
        for lit in clip.lit():
            out.write(images[lit])
    return path


@dataclass(frozen=True)
class Tracks:
    """What a file of another program looks like; times are on the clock of the container."""

    container: str = "mp4"
    audio: str = "aac"
    rate: int = 44100
    layout: str = "stereo"
    sound_start: float = 0.0
    picture_start: float = 0.0

    def heard(self, clip: Plan) -> list[Fraction]:
        """Times of the clicks that the sound track is there for."""
        late = Fraction(self.sound_start) - Fraction(self.picture_start)
        return [time for time in clip.times if time >= late]


def write_foreign(path: Path, clip: Plan, tracks: Tracks) -> Path:
    """Write with PyAV itself and explicit time stamps; the two tracks grow side by side."""
    shift = tracks.picture_start - tracks.sound_start
    # Clicks before the first picture are not part of the clip: reading must cut them off.
    early = [0.05 + 0.2 * number for number in range(10) if 0.3 + 0.2 * number < shift]
    moments = [*early, *(float(time) + shift for time in tracks.heard(clip))]
    wave = clicks(moments, tracks.rate, float(clip.end) + shift)
    with av.open(str(path), "w", format=tracks.container) as out:
        # B-frames: decoding order and order of time differ, as in most files.
        options = {"preset": "ultrafast", "bf": "2"}
        video = out.add_stream("libx264", rate=clip.rate or 25, options=options)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, TICKS)
        audio = out.add_stream(tracks.audio, rate=tracks.rate, layout=tracks.layout)
        images = [
            av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            for image in pictures()
        ]
        lasts = [*clip.stamps[1:], clip.end]
        position = 0
        for stamp, last, lit in zip(clip.stamps, lasts, clip.lit(), strict=True):
            frame = images[lit]
            frame.time_base = Fraction(1, TICKS)
            frame.pts = round((stamp + Fraction(tracks.picture_start)) * TICKS)
            frame.duration = round((last - stamp) * TICKS)
            out.mux(video.encode(frame))
            stop = round((float(last) + shift) * tracks.rate)
            if stop - position > tracks.rate or last == clip.end:
                out.mux(audio.encode(_block(wave, position, stop, tracks)))
                position = stop
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
    return path


def _block(wave: np.ndarray, position: int, stop: int, tracks: Tracks) -> av.AudioFrame:
    channels = av.AudioLayout(tracks.layout).nb_channels
    data = np.repeat(wave[None, position:stop], channels, axis=0)
    frame = av.AudioFrame.from_ndarray(data, format="fltp", layout=tracks.layout)
    frame.sample_rate, frame.time_base = tracks.rate, Fraction(1, tracks.rate)
    frame.pts = position + round(tracks.sound_start * tracks.rate)
    return frame


def flashes(path: Path, fps: float | None) -> tuple[np.ndarray, int]:
    """Numbers of the pictures that begin a flash, and the count of all pictures."""
    bright = np.array([frame[24, 32, 1] > 127 for frame in read_frames(path, fps)])
    return np.flatnonzero(np.diff(bright.astype(int), prepend=0) == 1), len(bright)


def check_sound(heard: np.ndarray, times: list[Fraction]) -> None:
    assert len(heard) == len(times)
    assert np.abs(heard - np.array(times, dtype=float)).max() <= EXACT


def check_own_rate(path: Path, clip: Plan) -> None:
    """At the rate of the file every picture comes once, so nothing is sampled at all."""
    seen, count = flashes(path, None)
    assert seen.tolist() == clip.events and count == len(clip.stamps)


def check_sampled(path: Path, clip: Plan, fps: int, heard: np.ndarray) -> None:
    """At another rate flashes and clicks lie as near as the sampling lets them."""
    seen, count = flashes(path, fps)
    # Without a rate the files do not all tell how long the last picture lasts.
    shortest, slack = clip.end if clip.rate else clip.stamps[-1], 0.5 + ROUNDING * fps
    assert shortest * fps - slack <= count <= clip.end * fps + slack
    assert len(seen) == len(clip.events)
    for number, index in zip(clip.events, seen.tolist(), strict=True):
        gap = clip.stamps[number] - clip.stamps[number - 1] if number else 0
        begin = clip.stamps[number] - min(gap / 2, Fraction(1, 2 * fps))
        assert -ROUNDING <= Fraction(index, fps) - begin <= Fraction(1, fps) + ROUNDING
    silent = len(seen) - len(heard)  # sound that starts late misses the first flashes
    times = clip.times[silent:]
    distance = seen[silent:] / fps - heard
    common = [number for number, time in enumerate(times) if (time * fps).denominator == 1]
    assert len(common) >= 10 and times[common[-1]] - times[common[0]] > 0.8 * LENGTH
    assert np.abs(distance[common]).max() <= EXACT
    slope, _ = np.polyfit(np.array(times, dtype=float), distance, 1)
    assert abs(slope) * LENGTH < SYNC and abs(distance.mean()) < SYNC


OURS = {23.976: 16000, 25: 44100, 29.97: 16000, 30: 8000, 50: 16000}


@pytest.mark.parametrize(
    "fps", [pytest.param(f, marks=pytest.mark.slow) if f in (23.976, 50) else f for f in OURS]
)
def test_clips_of_our_writer(tmp_path, fps):
    clip = plan(fps)
    path = write_ours(tmp_path / "ours.mp4", clip, fps, OURS[fps])
    heard = onsets(load_audio(path, 16000), 16000)
    check_sound(heard, clip.times)
    check_own_rate(path, clip)
    check_sampled(path, clip, 25, heard)
    assert probe(path).fps == pytest.approx(float(RATES[fps]), abs=1e-6)


FOREIGN = {
    "variable, both late": (
        VARIABLE,
        Tracks("matroska", "flac", 48000, sound_start=0.4, picture_start=0.85),
    ),
    "sound 0.4 s late, 5.1": (25, Tracks("mp4", "ac3", 48000, "5.1", sound_start=0.4)),
    "picture 0.85 s late, 8 kHz": (
        23.976,
        Tracks("matroska", "aac", 8000, "mono", picture_start=0.85),
    ),
}


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_clips_of_another_program(tmp_path, name):
    fps, tracks = FOREIGN[name]
    clip = plan(fps)
    path = write_foreign(tmp_path / "foreign.bin", clip, tracks)
    heard = onsets(load_audio(path, 16000), 16000)
    check_sound(heard, tracks.heard(clip))
    check_own_rate(path, clip)
    for target in (25, 30):
        check_sampled(path, clip, target, heard)


@pytest.mark.slow
@pytest.mark.parametrize("sound_start", [0.0, 0.4])
@pytest.mark.parametrize("picture_start", [0.0, 0.85])
@pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "mpegts"])
@pytest.mark.parametrize("fps", [VARIABLE, *sorted(RATES)])
def test_all_layouts(tmp_path, fps, container, picture_start, sound_start):
    clip = plan(fps)
    tracks = Tracks(container, sound_start=sound_start, picture_start=picture_start)
    path = write_foreign(tmp_path / "foreign.bin", clip, tracks)
    heard = onsets(load_audio(path, 16000), 16000)
    check_sound(heard, tracks.heard(clip))
    check_own_rate(path, clip)
    for target in (25, 30):
        check_sampled(path, clip, target, heard)


@pytest.mark.parametrize("fps", [VARIABLE, pytest.param(29.97, marks=pytest.mark.slow)])
def test_reading_and_writing_again_adds_nothing(tmp_path, fps):
    """The way of a dubbed clip: read at 25 per second, write, read what was written."""
    clip = plan(fps)
    source = write_foreign(tmp_path / "source.mp4", clip, Tracks(rate=16000))
    sound = load_audio(source, 16000)
    target = tmp_path / "again.mp4"
    with VideoWriter(target, 25, audio=(sound, 16000), preset="ultrafast", threads=1) as out:
        for frame in read_frames(source, 25):
            out.write(frame)
    heard = onsets(load_audio(target, 16000), 16000)
    check_sound(heard, clip.times)
    check_sampled(target, clip, 25, heard)


def test_sound_at_a_rate_unknown_to_aac(tmp_path):
    times = [0.2, 0.8]
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 25, audio=(clicks(times, 20000, 2), 20000), preset="ultrafast") as out:
        for _ in range(40):
            out.write(pictures()[0])
    with av.open(str(path)) as container:
        assert container.streams.audio[0].rate == 22050
    assert np.abs(onsets(load_audio(path, 48000), 48000) - times).max() < 0.001


def large_clip(path: Path, seconds: float) -> Path:
    """Write 1080p cheaply: 2.56 s are encoded, 64 pictures and 120 blocks of AAC, and repeated."""
    part, length = path.with_name("part.mp4"), Fraction(64, 25)
    rng = np.random.default_rng(0)
    noise = np.kron(
        rng.integers(0, 256, (68, 120, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8)
    )
    sound = (0.1 * rng.standard_normal((2, 120 * 1024))).astype(np.float32)
    with av.open(str(part), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = 1920, 1080, "yuv420p"
        audio = out.add_stream("aac", rate=48000, layout="stereo")
        for number in range(64):
            image = noise[:1080].copy()
            image[300:700, 800:1200] = noise[4 * number : 4 * number + 400, :400]
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
        frame.sample_rate = 48000
        out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    with av.open(str(part)) as source, av.open(str(path), "w") as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        packets = [
            (packet, packet.pts, packet.dts, packet.time_base, copies[packet.stream.index])
            for packet in source.demux()
            if packet.dts is not None and 0 <= packet.pts * packet.time_base < length
        ]
        for number in range(round(seconds / length)):
            for packet, pts, dts, base, stream in packets:
                later = round(number * length / base)
                packet.pts, packet.dts, packet.time_base = pts + later, dts + later, base
                packet.stream = stream
                out.mux(packet)
    return path


# Arguments: source, target, preset, number of pictures after which the peak is told.
# Not getrusage: its peak begins with that of the process that started this one. Decoder and encoder
# hold some pictures for each thread, so the threads are those of a machine with 16 cores.
CHILD = """
    import os, sys
    os.cpu_count = lambda: 16
    from talkingface.data.media.audio import load_audio
    from talkingface.data.media.reader import read_frames
    from talkingface.data.media.writer import VideoWriter

    def peak():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

    source, target, preset, early = sys.argv[1:]
    sound = load_audio(source, 16000)
    with VideoWriter(target, 25, audio=(sound, 16000), preset=preset, threads=24) as out:
        for frame in read_frames(source, 25):
            out.write(frame)
            if out.frames_written == int(early):
                print(peak())
    print(peak())
    print(out.frames_written)
"""


def peaks(source: Path, target: Path, preset: str, early: int) -> tuple[int, int, int]:
    """Read and write a clip in a process of its own.

    Returns:
        The peak of its memory in MB when ``early`` pictures were written and at its end, and the
        number of pictures.
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read from /proc")
    arguments = [str(source), str(target), preset, str(early)]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr
    first, last, count = map(int, done.stdout.split())
    return first // 1000, last // 1000, count


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path):
    source = large_clip(tmp_path / "source.mp4", 10)
    early, late, count = peaks(source, tmp_path / "target.mp4", "ultrafast", 80)
    assert count == 4 * 64
    assert late - early < 30, (early, late)  # MB; a picture has 6
    assert late < 1000


@pytest.mark.slow
def test_ten_minutes_of_1080p_need_less_than_a_gigabyte(tmp_path):
    source = large_clip(tmp_path / "source.mp4", LENGTH + 2)
    early, late, count = peaks(source, tmp_path / "target.mp4", "veryfast", 250)
    assert count == 235 * 64 and count / 25 > LENGTH
    assert late < 1000, (early, late)
