"""The page of the service in a real Chromium, asked by mouse, keyboard and camera."""

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from annotate_data import moving, write_video
from chromium import chromium, watched_page
from patience import PATIENCE
from served import Served
from sgmg.masks import mask_to_rle

pytestmark = pytest.mark.slow
REPORT = Path(__file__).resolve().parents[3] / "pipelines/exports/report"
DECODE = "([rle, width, height]) => [...report.masks.pixels(rle, width, height)]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium with a camera that is drawn."""
    with chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as one:
        yield one


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A window of its own for a test."""
    made = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light", accept_downloads=True)
    made.set_default_timeout(1000 * PATIENCE)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, served: Served) -> Iterator[Page]:
    """The page; the test fails where it wrote an error or asked for anything of elsewhere."""
    with watched_page(context, served.url, f"blob:{served.url}", "data:") as made:
        made.set_default_timeout(1000 * PATIENCE)
        made.goto(served.url)
        expect(made.locator("#limits")).to_contain_text("At most")
        yield made


def masks(page: Page) -> np.ndarray:
    """The drawn masks, RGBA."""
    page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    data = page.locator("#masks").evaluate("canvas => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))))


def ask(page: Page, *sentences: str) -> None:
    """Types sentences, and waits for the answers."""
    before = page.locator(".track").count()
    for sentence in sentences:
        page.fill("#sentence", sentence)
        page.press("#sentence", "Enter")
    page.locator(".track .score:not(:empty)").nth(before + len(sentences) - 1).wait_for()


def test_two_sentences_about_a_video_are_drawn_switched_and_saved(page: Page, served: Served, tmp_path: Path) -> None:
    page.set_input_files("#file", served.video)
    ask(page, *served.sentences)
    expect(page.locator("#facts")).to_contain_text("12 frames")
    expect(page.locator(".track .chart svg")).to_have_count(2)
    both = masks(page)
    assert both.shape == (40, 56, 4)
    assert both[..., 3].any()
    page.get_by_role("switch").first.click()
    one = masks(page)
    assert not np.array_equal(one, both)
    page.get_by_role("switch").nth(1).click()
    assert not masks(page).any()
    for place in range(2):
        page.get_by_role("switch").nth(place).click()
    np.testing.assert_array_equal(masks(page), both)
    page.locator("#seek").fill("7")
    expect(page.locator("#clock")).to_have_text("0.7 s")
    assert not np.array_equal(masks(page), both)
    saved = {}
    for format in ("overlay", "coco", "davis"):
        with page.expect_download() as download:
            page.locator(f"[data-format={format}]").click()
        saved[format] = tmp_path / download.value.suggested_filename
        download.value.save_as(saved[format])
        expect(page.locator("#said")).to_have_text(f"Saved as {saved[format].name}.")
    with av.open(str(saved["overlay"])) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12
    assert {one["name"] for one in json.loads(saved["coco"].read_text())["categories"]} == set(served.sentences)
    with zipfile.ZipFile(saved["davis"]) as archive:
        assert len(archive.namelist()) == 13


def test_the_masks_that_are_drawn_are_those_of_the_answer(page: Page, served: Served) -> None:
    page.set_input_files("#file", served.video)
    ask(page, served.sentences[0])
    files, data = {"video": served.video.read_bytes()}, {"sentences": served.sentences[0]}
    answer = httpx.post(f"{served.url}/segment", files=files, data=data, timeout=PATIENCE)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    for frame in (0, 5):
        page.locator("#seek").fill(str(frame))
        (expected,) = [one["rle"]["counts"] for one in lines if one.get("frame") == frame]
        assert mask_to_rle(masks(page)[..., 3] > 0) == expected


def test_an_object_that_is_in_no_frame_is_said(page: Page, served: Served) -> None:
    def nothing(route: Route) -> None:
        answer = route.fetch()
        lines = [json.loads(line) for line in answer.text().splitlines()]
        empty = mask_to_rle(np.zeros((40, 56), np.bool_))
        for line in lines:
            if "rle" in line:
                line |= {"box": None, "rle": {"size": [40, 56], "counts": empty}}
        lines[-1]["tracks"][0]["status"] = "absent"
        body = "".join(json.dumps(line) + "\n" for line in lines)
        route.fulfill(response=answer, body=body)

    page.route("**/sentences", nothing)
    page.set_input_files("#file", served.video)
    ask(page, "a flying pig")
    expect(page.locator(".here")).to_have_text("not here: in no frame of this video")
    expect(page.locator(".track .badge")).to_have_text("Absent")
    assert not masks(page).any()


def test_it_works_by_the_keyboard_alone(page: Page, served: Served) -> None:
    page.set_input_files("#file", served.video)
    ask(page, *served.sentences)
    page.locator("body").evaluate("() => document.activeElement.blur()")
    first = masks(page)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#seek")).to_have_value("1")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#seek")).to_have_value("0")
    page.keyboard.press("1")
    page.keyboard.press("2")
    assert not masks(page).any()
    page.keyboard.press("1")
    page.keyboard.press("2")
    np.testing.assert_array_equal(masks(page), first)
    page.keyboard.press("Space")
    expect(page.locator("#play")).to_have_accessible_name("Pause")
    page.keyboard.press("Space")
    expect(page.locator("#play")).to_have_accessible_name("Play")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.locator("#sentence")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#add")).to_be_focused()


def test_images_are_shown_as_a_video(page: Page, tmp_path: Path) -> None:
    files = []
    for number, frame in enumerate(moving(2, 4, 40, 56)):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(frame).save(files[-1])
    page.set_input_files("#file", files)
    ask(page, "a dog")
    expect(page.locator("#facts")).to_contain_text("4 frames")
    expect(page.locator("#still")).to_be_visible()
    page.locator("#seek").fill("3")
    assert masks(page)[..., 3].any()


def test_what_the_service_refuses_is_said_in_its_words(page: Page, context: BrowserContext, tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"no video")
    other = context.new_page()
    other.goto(page.url)
    expect(other.locator("#limits")).to_contain_text("At most")
    other.set_input_files("#file", tmp_path / "no.mp4")
    expect(other.get_by_role("alert")).to_contain_text("The video cannot be used: the file is no video")
    expect(other.locator("#drop")).to_be_visible()


def test_a_video_that_the_service_has_forgotten_is_sent_again(context: BrowserContext, served: Served) -> None:
    page = context.new_page()
    page.goto(served.url)
    expect(page.locator("#limits")).to_contain_text("At most")
    with page.expect_response("**/videos") as kept:
        page.set_input_files("#file", served.video)
    id = kept.value.json()["id"]
    ask(page, served.sentences[0])
    assert httpx.delete(f"{served.url}/videos/{id}").status_code == 204
    with page.expect_response("**/videos") as again:
        ask(page, served.sentences[1])
    assert again.value.json()["id"] == id
    expect(page.locator(".track .score:not(:empty)")).to_have_count(2)


def silent(_: Route) -> None:
    """Leaves a request without an answer."""


def opened(context: BrowserContext, served: Served) -> Page:
    """A page whose console tells of requests that were refused, as browsers do."""
    page = context.new_page()
    page.goto(served.url)
    return page


def test_what_was_cancelled_can_be_asked_again(context: BrowserContext, served: Served) -> None:
    page = opened(context, served)
    page.route("**/sentences", silent)
    page.set_input_files("#file", served.video)
    with page.expect_request("**/sentences"):
        page.fill("#sentence", served.sentences[0])
        page.press("#sentence", "Enter")
    expect(page.locator(".here")).to_have_text("looking …")
    page.locator("#cancel").click()
    expect(page.locator("#said")).to_have_text("Cancelled.")
    expect(page.locator(".here")).to_have_text("not answered")
    page.unroute("**/sentences")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".track .score")).to_contain_text("%")
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()


def test_a_video_takes_the_place_of_one_that_is_still_being_sent(
    context: BrowserContext, served: Served, tmp_path: Path
) -> None:
    page = opened(context, served)
    page.route("**/videos", silent)
    first = tmp_path / "first.mp4"
    first.write_bytes(served.video.read_bytes())
    with page.expect_request("**/videos"):
        page.set_input_files("#file", first)
    page.unroute("**/videos")
    page.set_input_files("#file", served.video)
    ask(page, served.sentences[0])
    expect(page.locator("#facts")).to_contain_text(f"{served.video.name} · 56")
    assert masks(page)[..., 3].any()


def test_a_token_is_asked_for_and_what_was_chosen_goes_on(context: BrowserContext, served: Served) -> None:
    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer a secret":
            route.continue_()
        else:
            route.fulfill(status=401, json={"error": "The token is missing or wrong."})

    page = opened(context, served)
    page.route("**/videos", guard)
    page.set_input_files("#file", served.video)
    expect(page.get_by_role("dialog", name="This service wants a token")).to_be_visible()
    page.fill("#token", "a secret")
    page.press("#token", "Enter")
    ask(page, served.sentences[0])
    expect(page.get_by_role("alert")).to_be_hidden()


def test_masks_of_a_file_that_the_browser_cannot_play_are_shown_and_saved(page: Page, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.avi", moving(3, 6, 40, 56), codec="mpeg4")
    page.set_input_files("#file", video)
    ask(page, "a dog")
    expect(page.locator("#unplayable")).to_be_visible()
    page.get_by_role("button", name="Next frame").click()
    expect(page.locator("#count")).to_have_text("2 / 6")
    assert masks(page)[..., 3].any()
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#count")).not_to_have_text("2 / 6")
    with page.expect_download() as download:
        page.get_by_role("button", name="Video (mp4)").click()
    assert download.value.suggested_filename == "overlay.mp4"


def test_it_fits_a_phone_and_the_dark(browser: Browser, served: Served) -> None:
    made = browser.new_context(viewport={"width": 360, "height": 720}, color_scheme="dark", has_touch=True)
    with watched_page(made, served.url, f"blob:{served.url}", "data:") as page:
        page.goto(served.url)
        page.set_input_files("#file", served.video)
        ask(page, *served.sentences)
        assert page.evaluate("() => document.documentElement.scrollWidth") == 360
        ground = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        assert ground == "rgb(14, 16, 20)"
        page.locator("#theme").tap()
        page.locator("#theme").tap()
        expect(page.locator("#theme")).to_have_accessible_name("Colours: dark")
    made.close()


def test_a_camera_is_answered_frame_by_frame(page: Page) -> None:
    page.locator("#camera").click()
    page.fill("#sentence", "a dog")
    page.press("#sentence", "Enter")
    expect(page.locator(".here")).to_contain_text("score")
    assert masks(page)[..., 3].any()
    page.locator("#another").click()
    expect(page.locator("#drop")).to_be_visible()


def test_masks_are_decoded_as_pycocotools_does(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<script>const report = {}</script><script src=masks.js></script>")
    (tmp_path / "masks.js").write_bytes((REPORT / "masks.js").read_bytes())
    page = browser.new_page()
    page.goto(f"file://{tmp_path}/page.html")
    draw = np.random.default_rng(0)
    for height, width in ((1, 1), (7, 5), (40, 56), (360, 640)):
        coarse = draw.random((height // 4 + 1, width // 4 + 1)) < 0.4
        mask = coarse.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
        for one in (mask, np.zeros_like(mask), np.ones_like(mask)):
            rle = {"size": [height, width], "counts": mask_to_rle(one)}
            got = page.evaluate(
                "([rle, width, height]) => [...report.masks.pixels(rle, width, height)]", [rle, width, height]
            )
            np.testing.assert_array_equal(np.array(got).reshape(height, width), one)
            small = (max(1, width // 3), max(1, height // 3))
            less = page.evaluate(
                "([rle, width, height]) => [...report.masks.pixels(rle, width, height)]", [rle, *small]
            )
            rows = np.floor((np.arange(small[1]) + 0.5) * height / small[1]).astype(int)
            columns = np.floor((np.arange(small[0]) + 0.5) * width / small[0]).astype(int)
            np.testing.assert_array_equal(np.array(less).reshape(small[::-1]), one[np.ix_(rows, columns)])
    page.close()
