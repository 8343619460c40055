"""The web page in a real browser, and what it answers."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from data.views import gallery, queries
from engine import checkpoints
from engine.feeds import ImageFeed
from retrieval.evaluate import evaluate
from serving.clock import clock
from serving.explaining import explain
from serving.opening import open_searcher
from serving.origins import Wanted
from serving.searcher import QUERY_LENGTH, Hit
from tests.serving.commands import CPU, run
from tests.serving.footage_files import write_table
from tests.serving.page_requests import WAIT, asked_for

pytest.importorskip("gradio", reason="the page needs Gradio: pip install -r requirements-search.txt")
pytest.importorskip(
    "selenium", reason="the browser is driven by selenium: pip install -r requirements-dev.txt"
)

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from serving.page import page_server
from serving.page_answers import CAUTION, MOST_PICTURES, Page

pytestmark = pytest.mark.integration
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")


@pytest.fixture
def browser(tmp_path):
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromium-driver (Debian's packages) are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "disable-gpu",
        "window-size=1280,1200",
    ):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def found_first(demo, k_test):
    """A query whose person the evaluation ranks first with and without re-ranking, and that person's images."""
    model, content = checkpoints.load_retrieval_model(demo.checkpoint)
    images, gallery_ids = gallery(demo.records)
    captions, query_ids = queries(demo.records)
    feed = ImageFeed(
        [demo.dataset.path(record) for record in demo.records], tuple(content["image_size"]), None
    )
    result = evaluate(model, feed.batches(16, CPU.device), captions, query_ids, gallery_ids, k_test=k_test)
    good = (result.cosine.first_hit == 1) & (result.reranked.first_hit == 1)
    number = int(good.argmax())
    assert good[number]
    person = {
        image for image, identity in zip(images, gallery_ids, strict=True) if identity == query_ids[number]
    }
    return captions[number], person


def captions_of(driver) -> list[tuple[str, str]]:
    """(first line, image path) under every picture that is shown."""
    labels = driver.find_elements(By.CSS_SELECTOR, "#found .caption-label")
    return [tuple(label.text.split("\n")) for label in labels]


def wait(driver, condition):
    return WebDriverWait(driver, WAIT, ignored_exceptions=[Exception]).until(lambda _: condition())


def click(driver, selector: str) -> None:
    """As soon as it can be clicked: while a page is still being laid out, its parts move away."""
    wait(driver, lambda: driver.find_element(By.CSS_SELECTOR, selector).click() is None)


def loaded(driver, selector: str) -> list:
    """The images of a part of the page, once all of them have pixels."""
    images = driver.find_elements(By.CSS_SELECTOR, f"{selector} img")
    for image in images:
        driver.execute_script("arguments[0].scrollIntoView()", image)
    return images if all(image.get_property("naturalWidth") > 0 for image in images) else []


def test_a_person_is_found_looked_at_and_found_again(demo, searcher, address, browser):
    sentence, person = found_first(demo, 32)
    browser.get(address)
    box = wait(browser, lambda: browser.find_element(By.CSS_SELECTOR, "#sentence textarea, #sentence input"))
    box.send_keys(sentence)
    browser.find_element(By.ID, "search").click()
    wait(browser, lambda: len(loaded(browser, "#found")) == 10)
    plain = captions_of(browser)
    assert plain[0][1] in person
    assert [image for _, image in plain] == [hit.image for hit in searcher.by_sentence(sentence)]

    browser.execute_script("window.scrollTo(0, 0)")
    browser.find_element(By.CSS_SELECTOR, "#rerank input").click()
    browser.find_element(By.ID, "search").click()
    wait(browser, lambda: captions_of(browser) != plain and len(loaded(browser, "#found")) == 10)
    hits = searcher.by_sentence(sentence, 10, 32)
    expected = [(f"{place} · {hit.score:.3f}", hit.image) for place, hit in enumerate(hits, 1)]
    assert [(re.sub(r"\s+", " ", score), image) for score, image in captions_of(browser)] == expected
    assert hits[0].image in person

    browser.execute_script("window.scrollTo(0, 0)")
    browser.find_elements(By.CSS_SELECTOR, "#found img")[0].click()
    picture = wait(browser, lambda: loaded(browser, "#picture"))[0]
    with Image.open(demo.crops / hits[0].image) as whole:
        assert (picture.get_property("naturalWidth"), picture.get_property("naturalHeight")) == whole.size
    assert hits[0].image in browser.find_element(By.ID, "details").text

    browser.find_element(By.ID, "more").click()
    wait(browser, lambda: "Most like" in browser.find_element(By.ID, "note").text)
    alike = [hit.image for hit in searcher.like(hits[0])]
    wait(browser, lambda: [image for _, image in captions_of(browser)] == alike)
    assert hits[0].image not in alike
    assert_nothing_outside(browser, address)


def assert_nothing_outside(driver, address):
    """Every request of the browser, also those that were blocked, went to the page's own server."""
    asked = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    assert len(asked) > 10
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:", "chrome:"))]


def test_a_browser_is_told_why(demo, searcher, address, browser):
    sentence, _ = found_first(demo, 32)
    browser.get(address)
    box = wait(browser, lambda: browser.find_element(By.CSS_SELECTOR, "#sentence textarea, #sentence input"))
    box.send_keys(sentence)
    browser.find_element(By.CSS_SELECTOR, "#rerank input").click()
    browser.find_element(By.ID, "search").click()
    wait(browser, lambda: len(loaded(browser, "#found")) == 10)
    browser.execute_script("window.scrollTo(0, 0)")
    browser.find_elements(By.CSS_SELECTOR, "#found img")[0].click()
    wait(browser, lambda: loaded(browser, "#picture"))
    assert not browser.find_elements(By.CSS_SELECTOR, "#explanation img")  # nobody has asked for it

    browser.find_element(By.CSS_SELECTOR, "#explain input").click()
    [first] = wait(browser, lambda: loaded(browser, "#explanation"))
    expected = explain(searcher, sentence, searcher.by_sentence(sentence, 10, 32)[0])
    assert (first.get_property("naturalWidth"), first.get_property("naturalHeight")) == expected.size
    assert CAUTION in browser.find_element(By.ID, "caution").text
    address_of_first = first.get_property("src")

    browser.execute_script("window.scrollTo(0, 0)")
    browser.find_elements(By.CSS_SELECTOR, "#found img")[1].click()  # another picture, another explanation
    wait(browser, lambda: loaded(browser, "#explanation")[0].get_property("src") != address_of_first)
    browser.execute_script("window.scrollTo(0, 0)")
    browser.find_element(By.ID, "search").click()  # which a new search takes away
    wait(browser, lambda: not browser.find_elements(By.CSS_SELECTOR, "#explanation img"))
    assert_nothing_outside(browser, address)


def test_only_what_a_sentence_has_found_is_explained(searcher):
    page = Page(searcher)
    hits = page.find("a man in a red shirt", 3, False)[1]
    box, note = page.why(True, hits[0], "a man in a red shirt")
    assert box["visible"]
    assert box["value"].size == explain(searcher, "a man in a red shirt", hits[0]).size
    assert html.unescape(note) == CAUTION
    gone = Hit(hits[0].row, "another/image.jpg", 1.0)
    for arguments, words in (
        ((False, hits[0], "a man"), ""),
        (("yes", hits[0], "a man"), ""),
        ((True, None, "a man"), "Click a picture."),
        ((True, hits[0], None), "only a sentence has words"),
        ((True, hits[0], "?!"), "no word in it"),
        ((True, gone, "a man"), "another/image.jpg"),
    ):
        box, note = page.why(*arguments)
        assert (box["visible"], box["value"]) == (False, None)
        assert words in html.unescape(note)
    assert page.find("a man", 1, False)[-1] == "a man"
    assert page.more(hits[0], 1)[-1] is None


def test_a_bad_sentence_is_answered_and_the_page_lives_on(address, browser):
    browser.get(address)
    box = wait(browser, lambda: browser.find_element(By.CSS_SELECTOR, "#sentence textarea, #sentence input"))
    box.send_keys("?!")
    browser.find_element(By.ID, "search").click()
    wait(browser, lambda: "no word in it" in browser.find_element(By.ID, "note").text)
    box.clear()
    box.send_keys("<img src=x onerror=alert(1)> man " * 40)
    assert len(box.get_property("value")) <= QUERY_LENGTH
    browser.find_element(By.ID, "search").click()
    wait(browser, lambda: len(loaded(browser, "#found")) == 10)


def test_what_a_browser_sends_is_checked(searcher):
    page = Page(searcher)
    pictures, hits, *_ = page.find("a man", 10_000, True)
    assert len(pictures) == len(hits) == min(MOST_PICTURES, len(searcher.index))
    assert "use at most" in page.find("a" * 1000, 10, False)[2]
    assert page.more(None, 10)[1:3] == ([], "Click a picture first.")
    gone = Hit(hits[0].row, "another/image.jpg", 1.0)
    assert page.more(gone, 10)[1:3] == ([], "another/image.jpg is no longer in the index: search again.")


def test_an_index_that_has_grown_is_read_anew(demo, crops, tmp_path):
    def update():
        run("index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", tmp_path / "index")

    update()
    page = Page(open_searcher(tmp_path / "index", CPU))
    assert len(page.find("a man", 100, False)[1]) == 32
    shutil.copytree(demo.crops, crops / "more")
    update()
    assert len(page.find("a man", 100, False)[1]) == 64


@pytest.fixture(scope="module")
def footage(demo, tmp_path_factory):
    """A searcher of crops of which half are of a door and half of a gate, ten seconds apart."""
    root = tmp_path_factory.mktemp("footage-page")
    crops = Path(shutil.copytree(demo.crops, root / "crops"))
    write_table(crops)
    assert run("index", "--images", crops, "--checkpoint", demo.checkpoint, "--out", root / "index").code == 0
    return open_searcher(root / "index", CPU)


def test_source_and_time_are_shown_and_filtered_by(footage):
    page = Page(footage)
    everything = page.find("a man", 32, False)[1]
    pictures, hits, *_ = page.find("a man", 32, False, ["gate"], "0:30", "200")
    kept = [hit for hit in everything if hit.origin is not None]
    kept = [hit for hit in kept if hit.origin.source == "gate" and 30 <= hit.origin.seconds <= 200]
    assert [hit.image for hit in hits] == [hit.image for hit in kept]
    for (_, caption), hit in zip(pictures, hits, strict=True):
        assert caption.split("\n")[2] == f"gate {clock(hit.origin.seconds)}"
    _, details, _ = page.show(hits, SimpleNamespace(index=0))
    assert f"frame {hits[0].origin.frame}, 30 x 80 px at" in details
    alike = page.more(hits[0], 32, ["door"], "", None)[1]
    assert {hit.origin.source for hit in alike} == {"door"}
    for filters, words in (
        ((["roof"], "", ""), "nothing of the source roof"),
        (([["x"]], "", ""), "The sources are none"),
        (("gate", "", ""), "The sources are none"),
        ((None, "noon", ""), "is no time"),
        (([], "5", {"a": 1}), "is no time"),
    ):
        assert words in html.unescape(page.find("a man", 10, False, *filters)[2])


def test_a_browser_filters_by_source_and_time(footage, browser):
    with page_server(footage, "127.0.0.1", 0) as address:
        browser.get(address)
        box = wait(
            browser, lambda: browser.find_element(By.CSS_SELECTOR, "#sentence textarea, #sentence input")
        )
        box.send_keys("a man")
        browser.find_element(By.CSS_SELECTOR, "#sources input").send_keys("gate", Keys.ENTER)
        browser.find_element(By.CSS_SELECTOR, "#after textarea, #after input").send_keys("0:30")
        browser.find_element(By.ID, "search").click()
        expected = [hit.image for hit in footage.by_sentence("a man", 10, 0, Wanted(("gate",), 30.0))]
        wait(browser, lambda: [caption[1] for caption in captions_of(browser)] == expected)
        assert all(caption[2].startswith("gate 00:") for caption in captions_of(browser))


def test_a_browser_filters_and_is_told_why(footage, browser):
    """Both at once: what is explained is what the filter has left, and another filter takes the explanation away."""
    sentence = "a man in a red shirt"
    with page_server(footage, "127.0.0.1", 0) as address:
        browser.get(address)
        box = wait(
            browser, lambda: browser.find_element(By.CSS_SELECTOR, "#sentence textarea, #sentence input")
        )
        box.send_keys(sentence)
        click(browser, "#rerank input")
        click(browser, "#explain input")
        browser.find_element(By.CSS_SELECTOR, "#sources input").send_keys("gate", Keys.ENTER)
        before = browser.find_element(By.CSS_SELECTOR, "#before textarea, #before input")
        before.send_keys("2:00")
        browser.find_element(By.ID, "search").click()
        hits = footage.by_sentence(sentence, 10, 32, Wanted(("gate",), None, 120.0))
        assert 1 < len(hits) < 10  # of the gate's 16
        wait(browser, lambda: [caption[1] for caption in captions_of(browser)] == [hit.image for hit in hits])

        browser.execute_script("window.scrollTo(0, 0)")
        browser.find_elements(By.CSS_SELECTOR, "#found img")[1].click()
        [picture] = wait(browser, lambda: loaded(browser, "#explanation"))
        expected = explain(footage, sentence, hits[1])
        assert (picture.get_property("naturalWidth"), picture.get_property("naturalHeight")) == expected.size
        assert hits[1].image in browser.find_element(By.ID, "details").text
        assert CAUTION in browser.find_element(By.ID, "caution").text

        browser.execute_script("window.scrollTo(0, 0)")
        before.clear()
        before.send_keys("0:40")
        browser.find_element(By.ID, "search").click()
        fewer = footage.by_sentence(sentence, 10, 32, Wanted(("gate",), None, 40.0))
        assert len(fewer) < len(hits)
        wait(
            browser, lambda: [caption[1] for caption in captions_of(browser)] == [hit.image for hit in fewer]
        )
        wait(browser, lambda: not browser.find_elements(By.CSS_SELECTOR, "#explanation img"))
        assert_nothing_outside(browser, address)


def test_the_server_filters_as_the_page_does(footage):
    with page_server(footage, "127.0.0.1", 0) as address:
        output = asked_for(address, "find", ["a man", 32, False, ["gate"], "", "100"])
    shown = [picture["caption"] for picture in output["data"][0]]
    expected = footage.by_sentence("a man", 32, 0, Wanted(("gate",), None, 100.0))
    assert [caption.split("\n")[1] for caption in shown] == [hit.image for hit in expected]
