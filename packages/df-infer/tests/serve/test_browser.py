"""The page in a real browser: headless Chromium with a microphone that plays a file."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from df_models.media import write_wav

from .conftest import AHEAD, FPS, SIZE, FakeBackend, running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RATE = 48_000
TOKEN = b"a token of many characters"
SKEW_MS = 100
"""Between picture and sound, by the page's own figure (getStats, or the frame's time), once it has settled."""
SETTLED_MS = 12_000
WATCH = """
() => {
  const video = document.getElementById("video");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 64;
  const painter = canvas.getContext("2d", { willReadFrequently: true });
  const context = new AudioContext({ latencyHint: 0.01 });
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  const source = video.srcObject
    ? context.createMediaStreamSource(video.srcObject) : context.createMediaElementSource(video);
  source.connect(analyser).connect(context.destination);
  const wave = new Float32Array(analyser.fftSize);
  window.seen = [];
  const look = (now) => {
    painter.drawImage(video, 0, 0, 64, 64);
    const mouth = painter.getImageData(30, 28, 4, 32).data;
    let open = 0;
    for (let at = 0; at < mouth.length; at += 4) open += mouth[at] > 160;
    const top = painter.getImageData(0, 4, 64, 1).data;
    let number = 0;
    for (let bit = 0; bit < 16; bit++) number += (top[4 * (4 * bit + 2)] > 128) * 2 ** bit;
    analyser.getFloatTimeDomainData(wave);
    const loud = Math.sqrt(wave.reduce((sum, value) => sum + value * value, 0) / wave.length);
    window.seen.push([performance.now() / 1000, number, open / (mouth.length / 4), loud]);
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
}
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed")


def sentence() -> np.ndarray:
    """Syllables of random loudness and length, with pauses: no two places of it are alike."""
    random = np.random.default_rng(3)
    parts = []
    for _ in range(24):
        length, level = random.integers(4_000, 15_000), random.choice([0.0, 0.1, 0.2, 0.3])
        parts.append(level * np.sin(np.arange(length) * 2 * np.pi * 200 / RATE) * np.sqrt(2) * 0.7)
    return np.concatenate(parts).astype(np.float32)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    voice = tmp_path_factory.mktemp("voice") / "voice.wav"
    write_wav(voice, sentence(), RATE)
    arguments = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={voice}",
        "--autoplay-policy=no-user-gesture-required",
        "--no-sandbox",
    ]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


def loudness(wave_N: np.ndarray) -> np.ndarray:
    """One value a pixel frame."""
    per = RATE // FPS
    return np.sqrt(np.mean(np.square(wave_N[: len(wave_N) // per * per].reshape(-1, per)), axis=1))


def best_correlation(seen: np.ndarray, loud: np.ndarray) -> float:
    """The highest correlation of what was seen, at 25 values a second, with any place of the file, which repeats."""
    looped = np.tile(loud, 3)
    return max(np.corrcoef(seen, looped[at : at + len(seen)])[0, 1] for at in range(len(loud)))


def by_frame(times: np.ndarray, numbers: np.ndarray, openings: np.ndarray) -> np.ndarray:
    """Openings in the order of the frames' own numbers, whenever they were seen; misread numbers are left out."""
    off = numbers - times * FPS
    sure = np.abs(off - np.median(off)) < FPS / 2
    order = np.argsort(numbers[sure], kind="stable")
    places, seen = numbers[sure][order], openings[sure][order]
    return np.interp(np.arange(places[0], places[-1] + 1), places, seen)


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_page_shows_a_mouth_that_follows_the_microphone(browser: Any, transport: str, tmp_path: Path):
    with running(FakeBackend()) as server:
        page = browser.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(server.http)
        assert page.locator("#structure-row").is_hidden(), "the model cannot be guided so"
        page.locator("#echo").uncheck()
        page.locator("#transport").select_option(transport)
        page.locator("#start").click()
        page.locator("#status", has_text="Live").wait_for(timeout=15_000)
        page.locator("#microphone").click()
        page.locator("#status", has_text="microphone is open").wait_for(timeout=5_000)
        page.wait_for_timeout(700)
        page.evaluate(WATCH)
        page.wait_for_timeout(3_000)
        times, numbers, openings, heard = np.array(page.evaluate("() => window.seen")).T
        assert np.median(np.diff(times)) == pytest.approx(1 / FPS, abs=0.015)
        assert best_correlation(by_frame(times, numbers, openings), loudness(sentence())) > 0.7
        grid = np.arange(times[0], times[-1], 1 / FPS)
        mouth = np.interp(grid, times, openings)
        skews = np.arange(-12, 13) * 0.02
        synced = [np.corrcoef(np.interp(grid + s, times, heard), mouth)[0, 1] for s in skews]
        assert max(synced) > 0.7, (max(synced), skews[int(np.argmax(synced))])
        assert page.locator("#rate").inner_text().endswith("/s") and page.locator("#error").is_hidden()

        page.wait_for_function(
            f"() => Math.abs(parseFloat(document.getElementById('skew').textContent)) <= {SKEW_MS}", timeout=SETTLED_MS
        )
        page.locator("#example").click()
        page.wait_for_timeout(1_200)  # the figure is told anew once a second
        page.wait_for_function(  # a busy machine's moment goes by, a delay that stays does not
            f"() => Math.abs(parseFloat(document.getElementById('skew').textContent)) <= {SKEW_MS}", timeout=2_000
        )
        page.locator("#interrupt").click()
        asked = page.evaluate("() => performance.now() / 1000")
        page.wait_for_function(
            "asked => window.seen.filter(([at]) => at > asked + 0.6).length > 10", arg=asked, timeout=5_000
        )
        times, numbers, openings, heard = np.array(page.evaluate("() => window.seen")).T
        assert openings[(times > asked - 1.0) & (times < asked)].max() > 0
        after = times > asked + 0.5
        assert openings[after].max() == 0 and heard[times > asked + 0.6].max() < 0.01
        late = times > asked - 1.0  # a browser that was stopped for a while goes on by the clock
        numbers[1:-1] = np.median([numbers[:-2], numbers[1:-1], numbers[2:]], axis=0)  # a lone one was misread
        assert (np.diff(numbers[late]) - FPS * np.diff(times[late]) <= AHEAD + 4).all()
        page.locator("#start").click()
        page.locator("#status", has_text="Stopped").wait_for(timeout=5_000)
        assert not faults
        page.close()
        until = time.monotonic() + 5
        while server.house.seats.taken and time.monotonic() < until:
            time.sleep(0.05)
        assert not server.house.seats.taken


def test_page_takes_websocket_where_udp_does_not_come_through(browser: Any):
    def dead(route: Any) -> None:
        answer = route.fetch()
        sdp = re.sub(r"a=ice-pwd:\S+", "a=ice-pwd:" + "x" * 22, answer.json()["sdp"])
        route.fulfill(response=answer, json={"sdp": sdp})

    def sooner(route: Any) -> None:
        answer = route.fetch()
        assert "CONNECT_MS = 8000;" in answer.text()
        route.fulfill(response=answer, body=answer.text().replace("CONNECT_MS = 8000;", "CONNECT_MS = 500;"))

    backend = FakeBackend()
    backend.about = backend.about._replace(structure_guidance=1.1, audio_guidance=0.7)
    with running(backend, TOKEN) as server:
        page = browser.new_page()
        page.route("**/v1/webrtc", dead)
        page.route("**/page/rtc.js", sooner)
        page.goto(server.http)
        page.locator("#token").wait_for()
        assert page.locator("#start").is_disabled()
        page.locator("#token").fill(TOKEN.decode())
        page.locator("#token").press("Enter")
        page.locator("#structure-value", has_text="1.10").wait_for()
        page.locator("#guidance-value", has_text="0.70").wait_for()
        page.locator("#guidance").fill("1")  # off can be chosen, though the model's own value lies between the steps
        page.locator("#start").click()
        page.locator("#status", has_text="Live by WebSocket").wait_for(timeout=15_000)
        page.wait_for_function("() => document.getElementById('video').currentTime > 1.5", timeout=5_000)
        assert page.evaluate("() => document.getElementById('video').videoWidth") == SIZE
        chosen = backend.opened[-1]
        assert (chosen.steps, chosen.audio_guidance, chosen.structure_guidance) == (None, 1.0, None)
        page.locator("#structure").fill("2")
        page.locator("#apply").click()
        page.wait_for_timeout(500)
        assert (backend.opened[-1].audio_guidance, backend.opened[-1].structure_guidance) == (1.0, 2.0)
        page.close()
