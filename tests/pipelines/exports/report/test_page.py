"""The page in headless Chromium, opened from disk."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from pipelines.annotate.verdicts import read_verdicts
from pipelines.exports.mp4 import mp4_file
from pipelines.exports.overlay_video import still, write_overlay
from pipelines.exports.report import write_report
from pipelines.exports.report.write import script
from pipelines.files import Folder
from pipelines.predictions import Prediction, QueryTrack, predictions_table
from pipelines.sources.csv_table import CsvLine, csv_lines
from pipelines.video.listing import Video
from sgmg.masks import masks_to_rles

pytestmark = pytest.mark.xdist_group("browser")  # one browser, and one corpus

HOSTILE = "</script><img src=x onerror=alert(1)>\" ' & \u2028 <b>bold</b> {{x}} ${y}"
ARABIC = "الكلب على اليمين"


@dataclass(frozen=True)
class Corpus:
    """A run's folder, and the page of it."""

    out: Folder

    @property
    def url(self) -> str:
        return Path(self.out.path("report/index.html")).as_uri()


def said(video: Video, masks: np.ndarray, expression: int, text: str, score: float, **more: Any) -> Prediction:
    """What was found in a video of five frames a second."""
    t, height, width = masks.shape
    return Prediction(
        dataset="videos",
        split="",
        video=video.id,
        expression=str(expression),
        text=text,
        width=width,
        height=height,
        frame_names=tuple(f"{place:05d}" for place in range(t)),
        queries=(QueryTrack(tuple(masks_to_rles(masks)), ((0.0, 0.0, 1.0, 1.0),) * t, (score,) * t),),
        score=score,
        fingerprint="a checkpoint",
        source=video.path,
        source_fingerprint="",
        fps=5.0,
        timestamps=tuple(place / 5 for place in range(t)),
        **more,
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Three videos with odd names, one of them with an overlay, and a quarantine."""
    folder = tmp_path_factory.mktemp("corpus")
    masks = np.zeros((10, 48, 64), np.bool_)
    masks[:5, 10:30, 10:30] = True
    videos: list[Video] = []
    for name in ("one/dog #1 100%?.mp4", "two/dog #1 100%?.mp4", "two/<i>'q\" \u202eüber.mp4"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        with mp4_file(path, (48, 64)) as mp4:
            for place in range(10):
                mp4.add(np.full((48, 64, 3), 90, np.uint8), place / 5)
        videos.append(Video(str(path)))
    rows = [
        [said(videos[0], masks, 0, "a brown dog", 0.875), said(videos[0], masks, 1, HOSTILE, 0.5)],
        [said(videos[1], masks & False, 0, "a brown dog", 0.125, status="absent", note="nowhere above 0.3")],
        [said(videos[2], masks, 0, ARABIC, 0.625, status="partial", note="3 frames are <u>damaged</u>")],
    ]
    out = Folder(str(folder / "out"))
    for number, some in enumerate(rows):
        with out.output(f"predictions/{number}.parquet") as stream:
            pq.write_table(predictions_table(some), stream)
    write_overlay(out, f"overlay/{videos[0].id}.mp4", videos[0], [rows[0]])
    problems = [
        {"video": f"/in/{n}{HOSTILE}", "stage": ("list", "decode")[n % 2], "reason": f"why {n}"} for n in range(120)
    ]
    out.write("quarantine.jsonl", "".join(json.dumps(one) + "\n" for one in problems).encode())
    out.write("config.json", json.dumps({"checkpoint": HOSTILE}).encode())
    write_report(out)
    return Corpus(out)


def opened(page: Page, corpus: Corpus, hash: str = "") -> None:
    page.goto(corpus.url + hash)
    page.wait_for_selector("html[data-ready]", state="attached")


def shown(page: Page) -> list[str]:
    return page.locator(".card .open").all_text_contents()


def test_filters_by_text_status_and_score_leave_what_passes_all(page: Page, corpus: Corpus) -> None:
    opened(page, corpus)
    assert len(shown(page)) == 3
    expect(page.locator("#summary")).to_have_text("3 videos, 4 expressions")
    page.locator("#query").fill("DOG brown two")
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator("#summary")).to_have_text("1 of 3 videos, 1 expressions")
    page.locator("#query").fill("uber")  # without its dots
    expect(page.locator(".card")).to_have_count(1)
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".card")).to_have_count(3)
    page.get_by_role("checkbox", name="Found").uncheck(force=True)
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_role("checkbox", name="Absent").uncheck(force=True)
    expect(page.locator(".card .badge:visible")).to_have_text(["Partial"])
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_role("slider", name="Lowest score").fill("80")
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator(".card .line.faint")).to_have_count(1)  # the other expression of that video
    page.locator("#query").fill("nothing like it")
    expect(page.locator("#nothing")).to_have_text("No video passes these filters.")


def test_names_and_sentences_are_text_whatever_is_in_them(page: Page, corpus: Corpus) -> None:
    opened(page, corpus)
    expect(page.locator(".card .strip svg")).to_have_count(4)
    assert page.locator("main b, main i:not(.histogram i), main u, img[src=x]").count() == 0
    assert HOSTILE in page.locator(".card .sentence").all_text_contents()
    assert "<i>'q\" \u202eüber.mp4" in shown(page)
    arabic = page.locator(".sentence", has_text=ARABIC)
    assert arabic.evaluate("one => getComputedStyle(one).direction") == "rtl"
    page.get_by_role("tab", name="Quarantine").click()
    expect(page.locator("#problem-rows tr").first).to_contain_text(f"/in/0{HOSTILE}")
    page.get_by_role("tab", name="Run").click()
    expect(page.locator("#about-rows td").last).to_have_text(HOSTILE.replace("\u2028", " "))


def test_an_overlay_plays_in_its_card_and_in_its_details(page: Page, corpus: Corpus) -> None:
    opened(page, corpus)
    expect(page.locator(".play:visible")).to_have_count(1)
    page.get_by_role("button", name="Play dog #1 100%?.mp4").click()
    _plays(page, ".card video")
    page.locator(".open", has_text="dog").first.click()
    assert page.locator(".card video").evaluate("one => one.paused")
    _plays(page, "#details video")
    assert page.locator("#details video").evaluate("one => one.duration") == pytest.approx(2.0, abs=0.01)
    page.locator("#details video").evaluate("one => one.pause()")
    box = page.locator("#details .chart").first.bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + 9)
    assert page.locator("#details video").evaluate("one => one.currentTime") == pytest.approx(1.5, abs=0.05)
    expect(page.locator("#details .chart").first).to_have_attribute(
        "aria-label", re.compile("mask in 50 % of the frames")
    )


def _plays(page: Page, selector: str) -> None:
    page.wait_for_function("selector => document.querySelector(selector)?.currentTime > 0.2", arg=selector)


def test_details_tell_why_and_lead_on_to_the_next_video(page: Page, corpus: Corpus) -> None:
    opened(page, corpus)
    page.locator(".open", has_text="über").click()
    details = page.locator("#details")
    expect(details.locator(".note")).to_have_text("3 frames are <u>damaged</u>")
    expect(details.locator(".stage img")).to_be_visible()
    expect(details.locator(".stage")).to_contain_text("No overlay was made")
    page.keyboard.press("ArrowRight")
    expect(details.locator("h2")).to_have_text("dog #1 100%?.mp4")
    page.keyboard.press("Escape")
    expect(details).to_be_hidden()
    expect(page).not_to_have_url(re.compile("video="))


def test_verdicts_are_filtered_by_kept_and_saved_as_a_table_that_jobs_read(
    page: Page, corpus: Corpus, tmp_path: Path
) -> None:
    opened(page, corpus)
    expect(page.get_by_role("button", name="Save")).to_be_hidden()
    page.locator(".card").filter(has_text="<b>bold</b>").locator(".open").click()
    answers = page.get_by_role("group", name="Verdict")
    answers.nth(0).get_by_role("button", name="Accepted").click()
    answers.nth(1).get_by_role("button", name="Rejected").click()
    answers.nth(1).get_by_role("button", name="To correct").click()
    expect(answers.nth(1).get_by_role("button", name="Rejected")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Escape")
    expect(page.locator(".card .verdict:visible")).to_have_text(["Accepted", "To correct"])
    page.locator("#verdict").select_option("None yet")
    expect(page.locator(".card")).to_have_count(2)
    page.locator("#verdict").select_option("To correct")
    expect(page.locator("#summary")).to_have_text("1 of 3 videos, 1 expressions")
    opened(page, corpus)  # they are kept
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save 2 verdicts").click()
    saved.value.save_as(tmp_path / "verdicts.csv")
    said = read_verdicts(str(tmp_path / "verdicts.csv"))
    assert sorted(said.values()) == ["accepted", "to-correct"]
    assert {expression for _, expression in said} == {"0", "1"}
    assert HOSTILE in {line.values["text"] for line in lines_of(tmp_path / "verdicts.csv")}


def test_stepping_goes_on_from_a_video_that_its_verdict_has_filtered_out(page: Page, corpus: Corpus) -> None:
    opened(page, corpus)
    page.locator("#verdict").select_option("None yet")
    names = shown(page)
    page.locator(".card .open").nth(1).click()
    for group in page.get_by_role("group", name="Verdict").all():
        group.get_by_role("button", name="Accepted").click()
    expect(page.locator(".card")).to_have_count(2)
    page.keyboard.press("ArrowRight")
    expect(page.locator("dialog h2")).to_have_text(names[2])


def test_another_run_at_the_same_place_has_no_verdicts_yet(page: Page, corpus: Corpus) -> None:
    opened(page, corpus)
    page.locator(".card .open").first.click()
    page.get_by_role("group", name="Verdict").first.get_by_role("button", name="Accepted").click()
    page.keyboard.press("Escape")
    before = corpus.out.read("config.json")
    try:
        corpus.out.write("config.json", json.dumps({"made_by": {"fingerprint": "another checkpoint"}}).encode())
        write_report(corpus.out)
        opened(page, corpus)
        expect(page.locator(".card .verdict:visible")).to_have_count(0)
        expect(page.locator("#export")).to_be_hidden()
    finally:
        corpus.out.write("config.json", before)
        write_report(corpus.out)
    opened(page, corpus)
    expect(page.locator(".card .verdict:visible")).to_have_text(["Accepted"])


def lines_of(path: Path) -> list[CsvLine]:
    return list(csv_lines(path.read_text(), "verdicts.csv", ("video", "expression", "text", "verdict")))


def test_all_of_it_works_from_the_keyboard(page: Page, corpus: Corpus) -> None:
    opened(page, corpus)
    page.keyboard.press("/")
    page.keyboard.type("brown")
    expect(page.locator(".card")).to_have_count(2)
    page.locator("#query").blur()
    seen: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        if seen[-1] == "open":
            break
    assert "open" in seen
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_be_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className") == "open"
    page.locator("#tab-videos").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#problems")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "tab-problems"
    page.keyboard.press("Tab")
    assert page.locator(":focus-visible").count() == 1


def test_the_quarantine_is_paged_and_filtered(page: Page, corpus: Corpus) -> None:
    opened(page, corpus, "#tab=problems")
    expect(page.locator("#problem-rows tr")).to_have_count(50)
    page.locator("#problem-pager").get_by_role("button", name="Page 3", exact=True).click()
    expect(page.locator("#problem-rows tr")).to_have_count(20)
    page.locator("#reasons button", has_text="decode").click()
    expect(page.locator("#problem-summary")).to_have_text("60 of 120 items could not be used")
    page.locator("#query").fill("why 117")
    expect(page.locator("#problem-rows .reason")).to_have_text(["why 117"])


def test_the_address_keeps_what_is_shown(page: Page, corpus: Corpus) -> None:
    opened(page, corpus)
    page.locator("#query").fill("brown")
    expect(page.locator(".card")).to_have_count(2)
    page.locator(".open").last.click()
    url = page.url
    opened(page, corpus)
    page.goto(url)
    page.reload()
    expect(page.locator(".card")).to_have_count(2)
    expect(page.locator("#details .note")).to_have_text("nowhere above 0.3")
    page.go_back()
    expect(page.locator("#details")).to_be_hidden()


def test_light_or_dark_is_the_systems_until_somebody_chooses(page: Page, corpus: Corpus) -> None:
    opened(page, corpus)

    def dark() -> bool:
        return page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 16, 20)"

    assert not dark()
    page.emulate_media(color_scheme="dark")
    assert dark()
    page.locator("#theme").click()
    assert not dark()
    expect(page.locator("#theme")).to_have_accessible_name("Colours: light")
    page.locator("#theme").click()
    page.emulate_media(color_scheme="light")
    assert dark()
    page.reload()
    assert dark()


def test_an_overlay_that_is_gone_is_told(context: BrowserContext, corpus: Corpus, tmp_path: Path) -> None:
    page = context.new_page()  # its console tells of files that are missing
    copy = copied(corpus, tmp_path)
    for name in copy.out.names("overlay"):
        copy.out.remove(f"overlay/{name}")
    opened(page, copy)
    page.get_by_role("button", name="Play dog #1 100%?.mp4").click()
    expect(page.locator(".card .failed")).to_contain_text("cannot play the overlay")


def test_what_was_written_anew_since_is_told(page: Page, corpus: Corpus, tmp_path: Path) -> None:
    copy = copied(corpus, tmp_path)
    copy.out.write("report/data/page-0000.js", script("page", 0, {}))
    opened(page, copy)
    expect(page.locator(".thumb.bare")).to_have_count(3)
    page.locator(".open").first.click()
    expect(page.locator("#details .failed")).to_contain_text("the report was written anew")


def copied(corpus: Corpus, folder: Path) -> Corpus:
    return Corpus(Folder(str(shutil.copytree(corpus.out.path(), folder / "copy"))))


@pytest.mark.slow
def test_ten_thousand_videos_open_page_by_page(page: Page, tmp_path: Path) -> None:
    out = Folder(str(tmp_path / "out"))
    videos = [Video(f"/in/clip_{number:05d}.mp4") for number in range(10_000)]
    masks = np.zeros((4, 6, 9), np.bool_)
    rows = [said(video, masks, 0, f"thing {n % 1000}", n % 101 / 100) for n, video in enumerate(videos)]
    for part in range(0, 10_000, 500):
        with out.output(f"predictions/{part:05d}.parquet") as stream:
            pq.write_table(predictions_table(rows[part : part + 500]), stream)
    picture = still(np.zeros((6, 9, 3), np.uint8))
    for video in videos:
        out.write(f"overlay/{video.id}.jpg", picture)
    write_report(out)
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))
    opened(page, Corpus(out))
    expect(page.locator("#summary")).to_have_text("10\u202f000 videos, 10\u202f000 expressions")
    expect(page.locator(".card .strip svg")).to_have_count(24)
    assert len([url for url in loaded if "/data/" in url]) == 2  # the index, and the first page
    page.locator("#query").fill("thing 777 clip")
    expect(page.locator("#summary")).to_have_text("19 of 10\u202f000 videos, 19 expressions")  # 10 sentences, 10 names
    page.locator("#query").fill("")
    page.locator("#pager").get_by_role("button", name="Page 417", exact=True).click()
    expect(page.locator(".card .open").last).to_have_text("clip_09999.mp4")
    expect(page.locator(".card")).to_have_count(16)
    page.locator("#sort").select_option("best")
    expect(page.locator(".card .score").first).to_have_text("100 %")
