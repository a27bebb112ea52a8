"""report.html in a real browser without a window: it opens, filters, searches, scrolls, windows, and trusts no text."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from evaluation_fixtures import a_sample, samples_of, write_manifest, write_visuals

from medvlm.data_recipes.sample import Question
from medvlm.eval.case_tags import comparison_tags, tags_of
from medvlm.eval.compare import compare
from medvlm.eval.models import Response, reference_of
from medvlm.eval.report_comparison import write_comparison
from medvlm.eval.run import Settings, evaluate
from medvlm.eval.stages import scores_of
from medvlm.scripts.bench.chromium import Chromium, find_chromium

PROGRAM = find_chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium or chrome is installed; see docs/report.md")

USABLE = "document.documentElement?.dataset.usable"
SCRIPT = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
PATIENTS = 4
BOX = "<box>(0.200, 0.300, 0.500, 0.600, 0.700, 0.800)</box>"


@dataclass(frozen=True)
class Every:
    """Right on all but each ``n``-th request, where it writes ``text``."""

    n: int
    text: str
    name: str

    def answer(self, requests):
        places = [sha256(f"{request.sample_id}{len(request.visuals)}".encode()).digest()[0] for request in requests]
        return [
            Response(text=self.text if place % self.n == 0 else reference_of(request.question))
            for place, request in zip(places, requests, strict=True)
        ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("browser")
    write_visuals(folder, PATIENTS)
    asked = [sample for patient in range(PATIENTS) for sample in samples_of(patient)]
    asked += [
        a_sample(p, "volume", "box", "Where is it?", Question(kind="box", answers=(BOX,), topic="box"))
        for p in range(PATIENTS)
    ]
    asked = [replace(one, metadata=one.metadata | {"sex": "F"}) for one in asked]
    manifest = write_manifest(folder / "m.jsonl", asked)
    settings = Settings(conditions=("image", "no_image"))
    for name, model in (("a", Every(2, SCRIPT, "model-a")), ("b", Every(3, "I cannot tell.", "model-b"))):
        evaluate(model, [manifest], folder / name, settings, gallery_size=100)
    return folder / "a", folder / "b"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    assert PROGRAM is not None
    with Chromium(PROGRAM, timeout_s=15) as opened:
        yield opened


@pytest.fixture
def page(browser: Chromium, runs: tuple[Path, Path]) -> Chromium:
    return opened(browser, runs[0] / "report.html")


def opened(browser: Chromium, path: Path) -> Chromium:
    browser.size(1400, 1000)
    browser.complaints.clear()
    browser.open(Path("/dev/null"))  # another address: the next one is loaded anew, whatever hash it had
    browser.open(path)
    browser.until(USABLE)
    browser.ask("document.documentElement.style.scrollBehavior = 'auto'")
    return browser


def status(page: Chromium) -> str:
    return str(page.ask("document.querySelector('[data-part=status]').textContent"))


def choose(page: Chromium, facet: str, value: str) -> None:
    page.ask(
        f"(() => {{const s = document.querySelector('[data-facet={facet}]'); s.value = {json.dumps(value)};"
        "s.dispatchEvent(new Event('change'))})()"
    )


def show(page: Chromium, sample_id: str) -> None:
    """Open a case by its link, and wait until its pictures stand there."""
    page.ask(f"location.hash = 'case={sample_id}'")
    page.until(f"document.querySelector('.detail code')?.textContent === {json.dumps(sample_id)}")


PIXELS = """(() => {
  const canvas = document.querySelector('.detail canvas');
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  return {width: canvas.width, height: canvas.height, grey: [...data].filter((_, place) => place % 4 === 0)};
})()"""


def pixels(page: Chromium) -> np.ndarray:
    page.until("document.querySelector('.detail .viewer[data-drawn]') !== null")
    told = page.ask(PIXELS)
    return np.array(told["grey"]).reshape(told["height"], told["width"])


def windowed(voxels: np.ndarray, low: float, high: float) -> np.ndarray:
    return ((voxels.round().clip(-1024, 3071) - low) / (high - low) * 255).clip(0, 255)


def test_it_opens_whole_and_without_complaint(page: Chromium, runs: tuple[Path, Path]) -> None:
    total = len({row["sample_id"] for row in scores_of(runs[0])})
    assert status(page) == f"{total} of {total} cases" and page.complaints == []
    assert page.ask("document.querySelectorAll('.row').length") < total  # only what is in sight is drawn
    assert float(page.ask(USABLE)) < 3000
    assert page.ask("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0


def test_filters_show_what_the_scores_say(page: Chromium, runs: tuple[Path, Path]) -> None:
    by_sample: dict[str, list] = {}
    for row in sorted(scores_of(runs[0]), key=lambda row: row["condition"] != "image"):
        by_sample.setdefault(row["sample_id"], []).append(row)
    tags = {name: tags_of(rows) for name, rows in by_sample.items()}
    for tag in ("wrong", "unparsed", "missed", "blind", "seen"):
        expected = sum(tag in one for one in tags.values())
        assert expected > 0, tag
        page.ask(f"document.querySelector('[data-tag={tag}]').click()")
        assert status(page).startswith(f"{expected} of"), tag
        assert page.ask(f"document.querySelector('[data-tag={tag}]').getAttribute('aria-pressed')") == "true"
        page.ask("document.querySelector('[data-part=clear]').click()")
    both = sum("wrong" in one and "unparsed" in one for one in tags.values())
    page.ask(
        "document.querySelector('[data-tag=wrong]').click(); document.querySelector('[data-tag=unparsed]').click()"
    )
    assert status(page).startswith(f"{both} of")
    page.ask("document.querySelector('[data-part=clear]').click()")
    choose(page, "kind", "box")
    assert status(page).startswith(f"{PATIENTS} of") and page.complaints == []


def test_search_finds_words_and_says_when_nothing_fits(page: Chromium) -> None:
    page.ask("document.body.focus()")
    page.key("/")
    assert page.ask("document.activeElement.dataset.part") == "search"
    page.type("which ZONE")
    assert status(page).startswith(f"{3 * PATIENTS} of")
    page.type(" nowhere-to-be-found")
    assert status(page).startswith("0 of")
    assert "No case fits" in page.ask("document.querySelector('.detail').textContent")
    assert page.complaints == []


def test_the_list_is_used_by_keys(page: Chromium) -> None:
    page.ask("document.querySelector('.list').focus()")
    first = page.ask("document.querySelector('.detail code').textContent")
    page.key("ArrowDown")
    page.key("j")
    assert page.ask("document.querySelector('.row[aria-selected=true]').dataset.place") == "2"
    assert page.ask("document.querySelector('.detail code').textContent") != first
    assert page.ask("document.querySelector('.list').getAttribute('aria-activedescendant')") == "case-2"
    page.key("End")
    assert page.ask("document.querySelector('.list').scrollTop") > 0
    assert page.ask("Number(document.querySelector('.row[aria-selected=true]').dataset.place)") > 20
    unnamed = "[...document.querySelectorAll('button, input, select')].filter(e => !(e.textContent.trim() || "
    unnamed += "e.getAttribute('aria-label') || e.closest('label'))).length"
    assert page.ask(unnamed) == 0


def test_a_scan_shows_its_hounsfield_units_under_every_window(page: Chromium, runs: tuple[Path, Path]) -> None:
    show(page, "1-volume-side")
    voxels = np.load(runs[0].parent / "1.npy")  # axes S, P, L: as shown
    assert np.abs(pixels(page) - windowed(voxels[4], -1350, 150)).max() <= 1.0
    page.ask("document.querySelector('.detail [data-preset=Bone]').click()")
    assert np.abs(pixels(page) - windowed(voxels[4], -500, 1300)).max() <= 1.0
    page.ask(
        "(() => {const [level, width] = document.querySelectorAll('.detail input[type=number]'); level.value = -400;"
        "width.value = 900; width.dispatchEvent(new Event('input'))})()"
    )
    assert np.abs(pixels(page) - windowed(voxels[4], -850, 50)).max() <= 1.0
    page.drag(".detail .stage", 60, 0)  # to the right: a wider window
    assert float(page.ask("document.querySelectorAll('.detail input[type=number]')[1].value")) > 900
    assert page.ask("[...document.querySelectorAll('.detail .letter')].map(e => e.textContent).join('')") == "RLAP"
    assert page.complaints == []


def test_a_scan_is_scrolled_by_wheel_keys_and_slider_in_three_planes(page: Chromium, runs: tuple[Path, Path]) -> None:
    show(page, "2-volume-side")
    voxels = np.load(runs[0].parent / "2.npy")
    pixels(page)
    page.wheel(".detail .stage", -100)
    page.until("document.querySelector('.detail output').textContent === '6 / 8'")
    assert np.abs(pixels(page) - windowed(voxels[5], -1350, 150)).max() <= 1.0
    page.ask("document.querySelector('.detail .stage').focus()")
    page.key("ArrowDown")
    page.key("ArrowDown")
    assert np.abs(pixels(page) - windowed(voxels[3], -1350, 150)).max() <= 1.0
    page.ask("(() => {const s = document.querySelector('.detail input[type=range]'); s.value = 0;"
             "s.dispatchEvent(new Event('input'))})()")  # fmt: skip
    assert np.abs(pixels(page) - windowed(voxels[0], -1350, 150)).max() <= 1.0
    page.ask("document.querySelector('.detail [data-plane=Coronal]').click()")
    assert np.abs(pixels(page) - windowed(voxels[::-1, 8], -1350, 150)).max() <= 1.0  # the head is up
    page.ask("document.querySelector('.detail [data-plane=Sagittal]').click()")
    assert np.abs(pixels(page) - windowed(voxels[::-1, :, 8], -1350, 150)).max() <= 1.0
    frame = page.ask("(r => [r.width, r.height])(document.querySelector('.stage').getBoundingClientRect())")
    assert frame[0] / frame[1] == pytest.approx(16 * 4 / (8 * 8), rel=0.02)  # millimetres, not voxels
    assert page.complaints == []


def test_boxes_stand_where_they_are_and_only_in_their_slices(page: Chromium) -> None:
    show(page, "1-volume-box")
    pixels(page)
    told = page.ask("(() => {const r = document.querySelector('.boxes .box-reference');"
                    "return ['x', 'y', 'width', 'height'].map(k => Number(r.getAttribute(k)))})()")  # fmt: skip
    assert told == pytest.approx([0.2, 0.3, 0.4, 0.4])
    page.ask("(() => {const s = document.querySelector('.detail input[type=range]'); s.value = 0;"
             "s.dispatchEvent(new Event('input'))})()")  # fmt: skip
    assert page.ask("document.querySelectorAll('.boxes rect').length") == 0  # z runs from 0.5 to 0.8


def test_a_clip_is_stepped_through(page: Chromium) -> None:
    show(page, "0-video-presence")
    before = page.ask("document.querySelector('.detail .stage img').src")
    page.wheel(".detail .stage", -100)
    page.until("document.querySelector('.detail output').textContent.startsWith('frame 2 / 4')")
    assert page.ask("document.querySelector('.detail .stage img').src") != before


def test_what_a_model_wrote_stays_text(page: Chromium, runs: tuple[Path, Path]) -> None:
    named = next(row["sample_id"] for row in scores_of(runs[0]) if row["condition"] == "image" and row["unparsed"])
    show(page, named)
    assert SCRIPT in page.ask("document.querySelector('.detail').textContent")
    assert page.ask("document.querySelectorAll('.detail script, .detail .said img').length") == 0
    assert page.ask("typeof window.hacked") == "undefined"
    page.ask("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 3\">')")
    page.until("new Promise(done => setTimeout(() => done(true), 50))")
    assert page.ask("typeof window.hacked") == "undefined"  # even so: its policy runs no script but its own


@pytest.mark.parametrize("dark", [False, True])
def test_narrow_and_dark(page: Chromium, dark: bool) -> None:
    page.size(400, 800, dark=dark)
    assert page.ask("document.documentElement.scrollWidth") <= 400
    background = page.ask("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(18, 23, 26)") is dark
    page.ask("document.querySelector('.row').click()")
    assert abs(page.ask("document.querySelector('.detail').getBoundingClientRect().top")) < 50


def test_two_runs_beside_each_other(browser: Chromium, runs: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = runs
    found = compare(a, b, tmp_path)
    write_comparison(tmp_path / "two.html", a, b, found)
    page = opened(browser, tmp_path / "two.html")
    first, second = ({r["sample_id"]: r for r in scores_of(run) if r["condition"] == "image"} for run in runs)
    tags = {name: comparison_tags(row, second[name]) for name, row in first.items()}
    for tag in ("a_only", "b_only", "both", "differ"):
        expected = sum(tag in one for one in tags.values())
        assert expected > 0, tag
        page.ask(f"document.querySelector('[data-tag={tag}]').click()")
        assert status(page).startswith(f"{expected} of"), tag
        page.ask("document.querySelector('[data-part=clear]').click()")
    show(page, next(name for name, one in tags.items() if "a_only" in one))
    said = page.ask("[...document.querySelectorAll('.detail .beside')][0].textContent")
    assert "A, with its image" in said and "B, with its image" in said and "I cannot tell." in said
    text = page.ask("document.querySelector('#differences + p + div').textContent")
    assert all(row["title"] in text for row in found["tests"]) and page.complaints == []
