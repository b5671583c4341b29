"""The page in headless Chromium: it asks for nothing, complains of nothing, and each control does what it says."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import page_study
import pytest
import world
from browser import chromium, opened
from page_study import ATTACKS
from playwright.sync_api import Browser, Page

from vdep.evaluation.samples import read_samples
from vdep.report.page import write
from vdep.report.page.room import Room

pytestmark = pytest.mark.timeout(300)
CHECKPOINTS = [f"{model}/{variant}/seed-1" for model in ("toy", "other") for variant in ("baseline", "vdep")]
CHECKPOINTS += ["toy/vdep-alpha0/seed-1", "toy/vdep/seed-2"]
BENCHMARKS = {"gqa": 90, "pope": 40}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with report.html, and report/ where gqa has a page of its own."""
    folder = tmp_path_factory.mktemp("study")
    made = page_study.make(folder, CHECKPOINTS, BENCHMARKS, attacks=ATTACKS)
    build = (made.request, world.ROOT, folder / "report.html", folder / "report", folder / "log")
    write.build(*build, Room())
    return folder


@pytest.fixture
def page(browser: Browser, study: Path) -> Iterator[Page]:
    with opened(browser, study / "report.html") as found:
        yield found.page
        assert found.page.evaluate("window.hacked") is None


def shown(page: Page) -> int:
    """How many questions the list says that there are."""
    return int(page.locator("#answers-count strong").inner_text().split()[0].replace(",", ""))


def points(study: Path, benchmark: str, checkpoint: str) -> list[tuple[str, float, str]]:
    path = study / "results" / "evaluations" / checkpoint / f"{benchmark}.samples.jsonl.gz"
    return [(row["category"], row["points"], row["answer"]) for row in read_samples(path) if row["pass"] == "seen"]


def both(study: Path, benchmark: str, left: str, right: str) -> list[tuple[str, float, float, bool]]:
    rows = zip(points(study, benchmark, left), points(study, benchmark, right), strict=True)
    return [(category, a, b, x == y) for (category, a, x), (_, b, y) in rows]


def choose(page: Page, control: str, label: str) -> None:
    page.locator(f"#answers select[data-control={control}]").select_option(label=label)


def press(page: Page, kind: str) -> None:
    page.locator(f"#answers .segment[data-value={kind}]").click()


@pytest.mark.parametrize("colors", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_is_readable_at_every_width_in_light_and_dark(browser: Browser, study: Path, width: int, colors: str) -> None:
    with opened(browser, study / "report.html", width, colors) as found:
        page = found.page
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page can be pushed sideways"
        smallest = page.evaluate(f"Math.min(...({TEXTS})().map((e) => parseFloat(getComputedStyle(e).fontSize)))")
        assert smallest >= 10.5
        assert page.evaluate(CONTRAST) == []
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 27)"
        assert dark == (colors == "dark")


TEXTS = """() => [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.closest('svg')
  && [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))"""
CONTRAST = f"""() => {{
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const luminance = (color) => {{
    const [r, g, b] = channels(color).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }};
  const behind = (element) => {{
    for (let e = element; e; e = e.parentElement) {{
      const color = getComputedStyle(e).backgroundColor, alpha = channels(color)[3];
      if (alpha === undefined || alpha > 0.99) return color;
    }}
    return 'rgb(255, 255, 255)';
  }};
  const contrast = (e) => {{
    const [dim, bright] = [luminance(getComputedStyle(e).color), luminance(behind(e))].sort((x, y) => x - y);
    return (bright + 0.05) / (dim + 0.05);
  }};
  const poor = ({TEXTS})().filter((e) => contrast(e) < 4.5);
  return poor.map((e) => `${{e.className}} ${{e.textContent.slice(0, 30)}} ${{contrast(e)}}`);
}}"""
"""Texts whose contrast is below that of WCAG 2, level AA."""


def test_what_models_wrote_stays_text(page: Page) -> None:
    press(page, "all")
    while (more := page.locator("#answers .more")).count():
        more.click()
    text = page.locator(".answers").inner_text()
    for attack in ATTACKS:
        assert re.sub(r"\s+", " ", attack).strip() in re.sub(r"\s+", " ", text)
    assert page.locator("main script, main img[src='x'], header script, header img").count() == 0
    page.locator(".zoom").first.click()
    assert page.evaluate("window.hacked") is None


def test_a_script_that_got_in_would_not_run(browser: Browser, study: Path) -> None:
    """Whatever else fails: the page's own policy lets no other script run, and nothing be fetched."""
    page = browser.new_page()
    page.goto((study / "report.html").as_uri())
    refused = page.evaluate(
        """async () => {
          const refused = [];
          document.addEventListener('securitypolicyviolation', (event) => refused.push(event.effectiveDirective));
          document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.hacked = 9' }));
          document.body.append(Object.assign(document.createElement('img'), { src: 'http://127.0.0.1:9/x.png' }));
          await fetch('http://127.0.0.1:9/x').catch(() => 0);
          await new Promise((done) => setTimeout(done, 100));
          return refused;
        }"""
    )
    assert sorted(refused) == ["connect-src", "img-src", "script-src-elem"]
    assert page.evaluate("window.hacked") is None
    page.close()


def test_verdicts_come_first_and_say_on_what(page: Page) -> None:
    assert page.locator("main > section").first.get_attribute("id") == "verdicts"
    card = page.locator(".verdict").first
    assert "holds" in card.inner_text()
    assert "+2.50" in card.inner_text()
    assert "mean of 2" not in card.inner_text()
    card.locator("summary").click()
    assert "mean of 2" in card.inner_text()
    badges = page.locator("#verdicts table .badge").all_inner_texts()
    assert [text.split()[-1] for text in badges] == ["better", "worse", "verdict"]
    table = page.locator("#verdicts table")
    assert "90% interval" in table.inner_text().lower(), "1 - the rules' level"
    single = table.locator("tbody tr").filter(has_text="AI2D")
    assert "1 (over questions)" in single.inner_text()
    note = page.locator("#verdicts").inner_text()
    assert "Over 3 seeds: t intervals" in note
    assert "One seed: two checkpoints, no training noise" in note


def test_a_number_says_where_it_comes_from_and_what_is_beside_it_can_be_left_out(page: Page) -> None:
    table = page.locator("#table-main")
    assert "[57.00, 63.00]" in table.inner_text()
    assert "blind" not in table.inner_text()
    table.get_by_role("button", name="intervals").click()
    assert "[57.00, 63.00]" not in table.inner_text()
    table.get_by_role("button", name="without the picture").click()
    assert "blind 20.00" in table.inner_text()
    table.locator(".number").first.click()
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    assert "w" * 64 in dialog.inner_text()
    assert "toy/baseline/seed-1" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_a_long_sheet_is_shown_in_full_when_asked(page: Page) -> None:
    audit = page.locator("#audit")
    assert audit.locator("tbody tr").count() == 40
    audit.get_by_role("button", name="Show all 60 rows").click()
    assert audit.locator("tbody tr").count() == 60
    audit.get_by_role("searchbox").fill("NO, 17")
    assert audit.locator("tbody tr").all_inner_texts() == ["t17\tgqa\t77.10\tno, 17"]


def test_losses_are_of_the_chosen_model_against_what_is_chosen(page: Page) -> None:
    losses = page.locator("#losses")
    curves = losses.locator("polyline").count()
    losses.locator("select").select_option("other")
    assert losses.locator("polyline").count() < curves, "toy has more runs"
    assert "100 %" in losses.locator("svg").first.text_content()
    losses.get_by_role("button", name="steps", exact=True).click()
    assert "400" in losses.locator("svg").first.text_content()
    losses.locator("svg").first.hover()
    assert re.search(r"\d\.\d", losses.locator(".readout").first.inner_text())


def test_the_attention_viewer_shows_picture_layer_and_difference(page: Page) -> None:
    attention = page.locator("#attention")

    def painted() -> list[str]:
        return attention.locator(".panel > canvas").evaluate_all("(all) => all.map((c) => c.toDataURL())")

    page.wait_for_function("document.querySelectorAll('#attention img').length > 0")
    page.wait_for_timeout(100)
    first = painted()
    assert len(set(first)) == 3
    attention.locator("input[type=range]").press("ArrowLeft")
    assert "2 of 3" in attention.inner_text()
    second = painted()
    assert all(a != b for a, b in zip(first, second, strict=True))
    attention.get_by_role("button", name="Picture 2").click()
    assert all(a != b for a, b in zip(second, painted(), strict=True))
    attention.locator("select[data-control=head]").select_option("head 3")
    third = painted()
    attention.locator("select[data-control=head]").select_option("mean of all")
    assert third != painted()
    attention.locator("select[data-control=right]").select_option(index=0)
    same = painted()
    assert same[0] == same[1]
    assert "\n0.0 points in all" in attention.inner_text()
    attention.locator(".panel > canvas").first.press("ArrowRight")
    assert re.search(r"row 1, column 1: \d\.\d+ % and", attention.locator("> article > .readout").inner_text())


def test_the_answers_are_filtered_by_everything_that_can_be_chosen(page: Page, study: Path) -> None:
    gqa = both(study, "gqa", "toy/baseline/seed-1", "toy/vdep/seed-1")
    everything = gqa + both(study, "pope", "toy/baseline/seed-1", "toy/vdep/seed-1")
    kinds = {
        "disagree": lambda a, b, same: a != b, "gained": lambda a, b, same: b > a, "lost": lambda a, b, same: b < a,
        "words": lambda a, b, same: not same, "right": lambda a, b, same: a == b > 0, "wrong": lambda a, b, same: a == b == 0,
        "all": lambda a, b, same: True,
    }  # fmt: skip
    for kind, test in kinds.items():
        press(page, kind)
        assert shown(page) == sum(test(a, b, same) for _, a, b, same in everything), kind
    choose(page, "benchmark", "GQA")
    assert shown(page) == 90
    choose(page, "category", "category 2")
    assert shown(page) == sum(category == "category 2" for category, *_ in gqa)
    choose(page, "category", "all categories")
    page.locator("#answers-search").fill("NUMBER 17 of")
    assert shown(page) == 1
    assert "gqa-17" in page.locator(".answers").inner_text()
    page.locator("#answers-search").fill("")
    press(page, "gained")
    before = shown(page)
    choose(page, "left", "vdep, seed 1")
    choose(page, "right", "baseline, seed 1")
    press(page, "lost")
    assert shown(page) == before, "what one way is gained is the other way lost"
    choose(page, "model", "other")
    press(page, "gained")
    there = both(study, "gqa", "other/baseline/seed-1", "other/vdep/seed-1")
    choose(page, "benchmark", "GQA")
    assert shown(page) == sum(b > a for _, a, b, _ in there)


def test_the_overview_counts_all_and_chooses_a_benchmark(page: Page, study: Path) -> None:
    row = page.locator(".overview tbody tr").first
    everything = both(study, "gqa", "toy/baseline/seed-1", "toy/vdep/seed-1")
    gained, lost = sum(b > a for _, a, b, _ in everything), sum(b < a for _, a, b, _ in everything)
    assert (row.locator("td.gained").inner_text(), row.locator("td.lost").inner_text()) == (str(gained), str(lost))
    row.get_by_role("button").click()
    assert shown(page) == gained + lost


def test_a_question_shows_everyones_answer(page: Page) -> None:
    press(page, "all")
    card = page.locator(".question").first
    page.wait_for_function("document.querySelector('.question img').naturalWidth > 0")
    card.locator(".zoom").click()
    dialog = page.locator("dialog")
    assert dialog.locator(".everyone .answer").count() == len(CHECKPOINTS)
    assert dialog.locator("img").count() == 1
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()


def test_everything_is_reached_by_the_keyboard(page: Page) -> None:
    """Tab goes through every control in order, shows where it is, and the controls work without a mouse."""
    controls = "a[href], button, select, input, summary, canvas[tabindex], .frame"
    reachable = page.evaluate(f"[...document.querySelectorAll('{controls}')].filter((e) => e.checkVisibility()).length")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen, bare = 1, []
    for _ in range(reachable + 5):
        page.keyboard.press("Tab")
        where = page.evaluate(
            """() => {
              const e = document.activeElement, style = getComputedStyle(e);
              return [e.tagName, e.className, style.outlineStyle, parseFloat(style.outlineWidth)];
            }"""
        )
        if where[0] == "BODY":
            break
        seen += 1
        if where[2] == "none" or where[3] < 1.5:
            bare.append(where)
    assert seen >= reachable
    assert not bare
    page.locator("#answers .segment[data-value=gained]").focus()
    page.keyboard.press("Space")
    assert page.locator("#answers .segment[data-value=gained]").get_attribute("aria-pressed") == "true"
    page.locator(".zoom").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()


def test_within_three_clicks(page: Page) -> None:
    """Does it help, and how sure: no click. What VDEP answers and the baseline does not: two. Where the model looks: one."""
    assert page.locator("#verdicts .badge").first.is_visible()
    assert page.locator("#verdicts .estimate").first.is_visible()
    page.locator("#nav").get_by_text("Answers").click()
    press(page, "gained")
    card = page.locator(".question").first
    card.scroll_into_view_if_needed()
    marks = card.locator(".answer .mark").all_inner_texts()
    assert marks == ["✗", "✓"]
    page.locator("#nav").get_by_text("Where it looks").click()
    page.wait_for_timeout(50)
    assert page.locator(".panel > canvas").first.is_visible()


def test_the_colours_can_be_chosen(page: Page) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.locator("#theme").click()
    assert page.evaluate(background) == light
    page.locator("#theme").click()
    assert page.evaluate(background) != light


def test_a_further_page_has_everything_of_one_benchmark_and_leads_back(browser: Browser, study: Path, tmp_path: Path) -> None:
    made = page_study.make(tmp_path, CHECKPOINTS[:4], {"gqa": 120, "pope": 40})
    room = Room(texts=16_000, pictures=40_000)
    write.build(made.request, world.ROOT, tmp_path / "report.html", tmp_path / "report", tmp_path / "log", room)
    with opened(browser, tmp_path / "report.html") as found:
        choose(found.page, "benchmark", "GQA")
        press(found.page, "all")
        assert shown(found.page) < 120
        assert "there are 120" in found.page.locator("#answers-count").inner_text()
        link = found.page.locator("#answers-count a").get_attribute("href")
    with opened(browser, tmp_path / link) as found:
        press(found.page, "all")
        assert shown(found.page) == 120
        assert found.page.locator("main > section").count() == 1
        assert (tmp_path / link).parent.joinpath(found.page.locator(".home").get_attribute("href")).resolve() == (
            tmp_path / "report.html"
        ).resolve()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_at_the_papers_size_it_stays_below_15_mb_and_answers_at_once(browser: Browser, tmp_path: Path) -> None:
    """72,323 questions, ten checkpoints of two models, photographs: counts of all, and what is seen first is what matters."""
    variants = ("baseline", "vdep", "alpha-0.1", "alpha-0.01", "ratio-0.5", "ratio-0.8", "loss-inverse", "loss-sigmoid")
    checkpoints = [f"llava-7b/{variant}/seed-42" for variant in variants]
    checkpoints += [f"tinyllava-3b/{variant}/seed-42" for variant in variants[:2]]
    made = page_study.make(tmp_path, checkpoints, page_study.PAPER, pictures=300, words=12)
    write.build(made.request, world.ROOT, tmp_path / "report.html", tmp_path / "report", tmp_path / "log")
    print((tmp_path / "log").read_text())
    size = (tmp_path / "report.html").stat().st_size
    assert 5_000_000 < size < 15_000_000
    assert all(path.stat().st_size < 60_000_000 for path in (tmp_path / "report").iterdir())
    started = time.monotonic()
    with opened(browser, tmp_path / "report.html") as found:
        total = found.page.locator(".overview tr.primary td").first.inner_text()
        assert total.replace(",", "") == "72323"
        assert time.monotonic() - started < 15
        press(found.page, "gained")
        assert shown(found.page) > 500
        pictures = found.page.evaluate(
            "[...document.querySelectorAll('.question')].map((q) => q.querySelectorAll('img').length)"
        )
        assert sum(pictures) >= 20, "those that are seen first have pictures"
        started = time.monotonic()
        found.page.locator("#answers-search").fill("number 12")
        assert 0 < shown(found.page) < 500
        assert time.monotonic() - started < 3
