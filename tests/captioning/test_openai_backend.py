"""The openai backend against a local server that fails in every way a provider does."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest
from PIL import Image

from captioning import prompts
from captioning.backends import BackendError, Request, endpoint, make_backend
from captioning.files import load_pre_captions
from captioning.pipeline import caption_sample, estimate_sample
from captioning.store import CaptionStore
from tests.captioning.chat_server import ChatServer, reply_body, sized_images

KEY = "sk-test-51b3c0ffee9a7d"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("PSPD_TEST_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def backend_for(server: ChatServer, **options):
    return make_backend(
        "openai", base_url=server.url, model="vl", api_key_env="PSPD_TEST_KEY", **{"timeout": 1.0, **options}
    )


def answers(backend, requests):
    return {reply.key: reply for reply in backend.answer(requests)}


def texts(count: int) -> list[Request]:
    return [Request(f"k{i}", None, f"question {i}") for i in range(count)]


def test_request_carries_model_image_prompt_key_and_options(tmp_path):
    image = tmp_path / "a.png"
    Image.new("RGB", (300, 900)).save(image)
    with ChatServer() as server:
        backend = backend_for(
            server, image_size=300, temperature=0.5, max_tokens=33, extra_body={"top_p": 0.8}
        )
        reply = answers(backend, [Request("a", image, "what?")])["a"]
    asked = server.asked[0]
    assert reply.status == "done"
    assert reply.usage == {"requests": 1, "prompt_tokens": 100, "completion_tokens": 20}
    assert backend.usage == Counter(reply.usage)
    assert asked.size == (100, 300)
    assert asked.prompt == "what?"
    assert asked.authorization == f"Bearer {KEY}"
    fields = {name: asked.body[name] for name in asked.body if name != "messages"}
    assert fields == {"model": "vl", "temperature": 0.5, "max_tokens": 33, "top_p": 0.8}


@pytest.mark.parametrize(
    "fault", ["429", "429-after", "500", "hang", "reset", "half-body", "bad-json", "empty"]
)
def test_every_fault_is_survived(fault):
    with ChatServer(scripted=[fault, fault]) as server:
        reply = answers(backend_for(server, timeout=0.2), texts(1))["k0"]
    assert (reply.status, reply.usage["requests"]) == ("done", 3)


@pytest.mark.parametrize(
    "response",
    [
        (400, {}, b'{"error": {"code": "data_inspection_failed", "message": "Input may be inappropriate."}}'),
        (400, {}, b'{"error": {"code": "content_filter", "message": "The response was filtered"}}'),
        (200, {}, reply_body("The man", finish_reason="content_filter")),
        (200, {}, reply_body(None, message={"role": "assistant", "content": None, "refusal": "I can't."})),
    ],
)
def test_content_filters_are_refusals_and_not_retried(response):
    with ChatServer(scripted=[response]) as server:
        reply = answers(backend_for(server), texts(1))["k0"]
    assert (reply.status, reply.text, len(server.asked)) == ("refused", "", 1)


def test_empty_content_is_given_up_soon_and_a_bad_request_at_once():
    with ChatServer(scripted=["empty"] * 3 + [(413, {}, b"too large")]) as server:
        backend = backend_for(server, concurrency=1)
        empty, rejected = backend.answer(texts(2))
    assert (empty.status, empty.usage["requests"]) == ("empty", 3)
    assert (rejected.status, rejected.usage["requests"]) == ("failed", 1)
    assert "413" in rejected.error
    assert "too large" in rejected.error


def test_truncated_answer_loses_its_broken_end_and_parts_are_joined():
    scripted = [
        (200, {}, reply_body("The man is wearing a red coat, blue jea", finish_reason="length")),
        (200, {}, reply_body([{"type": "text", "text": "The man "}, {"type": "text", "text": "in red"}])),
    ]
    with ChatServer(scripted=scripted) as server:
        first, second = backend_for(server, concurrency=1).answer(texts(2))
    assert first.text == "The man is wearing a red coat"
    assert second.text == "The man in red"


def test_retry_after_holds_back_every_question():
    with ChatServer(scripted=[(429, {"Retry-After": "1"}, b"slow down")]) as server:
        started = time.monotonic()
        replies = answers(backend_for(server, concurrency=1), texts(3))
    assert {reply.status for reply in replies.values()} == {"done"}
    assert time.monotonic() - started >= 1.0


def test_retry_after_in_all_its_forms():
    assert endpoint.retry_after({"retry-after": "7"}) == 7
    assert endpoint.retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert endpoint.retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)}) == pytest.approx(
        30, abs=2
    )
    assert endpoint.retry_after({"retry-after": formatdate(time.time() - 30, usegmt=True)}) == 0
    assert endpoint.retry_after({"retry-after": "99999999"}) == endpoint.LONGEST_RETRY_AFTER
    assert endpoint.retry_after({"retry-after": "soon"}) is None
    assert endpoint.retry_after({}) is None


def test_backoff_doubles_with_jitter_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 1.0)
    generator = random.Random(0)
    for attempt, full in enumerate([1, 2, 4, 8, 16, 32, 60, 60], start=1):
        waits = [endpoint.backoff(attempt, generator) for _ in range(200)]
        assert full / 2 <= min(waits) < 0.6 * full
        assert 0.9 * full < max(waits) <= full


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (401, b'{"error": {"message": "Incorrect API key provided: ' + KEY.encode() + b'"}}', "key"),
        (404, b'{"error": {"message": "The model vl does not exist"}}', "model"),
        (429, b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}', "account"),
        (301, b"", "redirects"),
    ],
)
def test_hopeless_answers_stop_at_once_with_the_servers_words(status, body, hint):
    with ChatServer(scripted=[(status, {}, body)] * 9) as server, pytest.raises(BackendError) as caught:
        list(backend_for(server, concurrency=2).answer(texts(50)))
    message = str(caught.value)
    assert len(server.asked) <= 4
    assert str(status) in message
    assert hint in message
    assert server.url in message
    assert KEY not in message
    assert "\n" not in message


def test_failures_in_a_row_stop_the_run_and_successes_in_between_do_not():
    dead = ChatServer(answer=describe_nothing, scripted=[(500, {}, b"out of memory")] * 1000)
    with dead as server, pytest.raises(BackendError, match=r"5 requests in a row failed.*out of memory"):
        list(backend_for(server, attempts=2, stop_after=5, concurrency=2).answer(texts(100)))
    assert len(server.asked) < 20
    every_other = [(413, {}, b"too large"), "good"] * 20
    with ChatServer(scripted=every_other) as server:
        replies = answers(backend_for(server, stop_after=2, concurrency=1), texts(40))
    assert Counter(reply.status for reply in replies.values()) == {"failed": 20, "done": 20}


def describe_nothing(_):
    return ""


def test_no_server_at_all_is_told_soon():
    backend = make_backend("openai", base_url="http://127.0.0.1:9/v1", model="vl", stop_after=3)
    started = time.monotonic()
    with pytest.raises(BackendError, match=r"127\.0\.0\.1:9/v1.*no connection"):
        list(backend.answer(texts(10)))
    assert time.monotonic() - started < 5


def test_unreadable_images_fail_without_a_request_and_without_stopping(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not really")
    requests = [Request(f"b{i}", tmp_path / "broken.jpg", "what?") for i in range(20)]
    requests.append(Request("gone", tmp_path / "gone.jpg", "what?"))
    with ChatServer() as server:
        replies = answers(backend_for(server, stop_after=3), [*requests, *texts(1)])
    assert replies.pop("k0").status == "done"
    assert {reply.status for reply in replies.values()} == {"failed"}
    assert "gone.jpg" in replies["gone"].error
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_key_env": "PSPD_NO_SUCH_KEY"}, "PSPD_NO_SUCH_KEY"),
        ({"api_key_env": "sk-abc-123"}, "NAME"),
        ({"base_url": "localhost:8000"}, "base_url"),
        ({"concurrency": 0}, "concurrency"),
    ],
)
def test_wrong_options_are_one_sentence(options, words):
    with pytest.raises(BackendError, match=words) as caught:
        make_backend("openai", **{"base_url": "http://h/v1", "model": "m", **options})
    assert "sk-abc-123" not in str(caught.value)


def test_a_key_that_no_header_takes_is_not_shown(monkeypatch):
    monkeypatch.setenv("PSPD_TEST_KEY", "secret\r\nkey")
    with pytest.raises(BackendError) as caught:
        make_backend("openai", base_url="http://h/v1", model="m", api_key_env="PSPD_TEST_KEY")
    assert "secret" not in str(caught.value)


def test_password_in_the_address_is_not_shown():
    backend = make_backend("openai", base_url="http://me:hunter22@127.0.0.1:9/v1", model="m", stop_after=1)
    with pytest.raises(BackendError) as caught:
        list(backend.answer(texts(1)))
    assert "hunter22" not in str(caught.value)


def test_closing_early_cancels_what_is_in_flight():
    with ChatServer(scripted=["good"] + ["hang"] * 50) as server:
        backend = backend_for(server, concurrency=4, timeout=60)
        replies = backend.answer(texts(50))
        assert next(replies).status == "done"
        started = time.monotonic()
        replies.close()
        assert time.monotonic() - started < 1
        time.sleep(0.1)
        assert server.open == 0
    assert len(server.asked) <= 6
    assert not any(thread.name == "captioning-endpoint" for thread in threading.enumerate())


def test_works_inside_a_running_event_loop():
    """As in a notebook."""

    async def cell():
        with ChatServer() as server:
            return answers(backend_for(server), texts(3))

    assert len(asyncio.run(cell())) == 3


def test_estimate_counts_what_is_missing(tmp_path):
    images = sized_images(tmp_path / "imgs", 10)
    with ChatServer() as server:
        backend = backend_for(
            server, concurrency=5, prompt_price=2, completion_price=10, seconds_per_request=4
        )
        with CaptionStore(tmp_path / "s.jsonl") as store:
            before = estimate_sample(images, tmp_path / "imgs", backend, store, text_backend=backend)
            assert not server.asked
            caption_sample(images[:5], tmp_path / "imgs", backend, store)
            after = estimate_sample(images, tmp_path / "imgs", backend, store)
    assert before.requests == 40
    assert before.seconds == pytest.approx(40 * 4 / 5)
    assert before.cost == pytest.approx((before.prompt_tokens * 2 + before.completion_tokens * 10) / 1e6)
    assert after.requests == 10
    # Two patches across and four down for sizes of 40..49 x 100.
    prompt = (len(prompts.base_prompt()) + len(prompts.styled_prompt("the person wears"))) / 4
    assert after.prompt_tokens == pytest.approx(5 * (prompt + 2 * (8 + 10)), rel=0.02)


def test_unreliable_server_captions_every_image_exactly_once(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    images = sized_images(tmp_path / "imgs", 150)
    faults = ("429", "429-after", "500", "slow", "reset", "half-body", "bad-json", "empty")
    with ChatServer(fault_rate=0.4, latency=0.005, faults=faults) as server:
        backend = backend_for(server, concurrency=12, timeout=20, attempts=20)
        with CaptionStore(tmp_path / "pre_captions.jsonl") as store:
            # Three empty answers in a row are possible; the second call asks for those alone.
            report = caption_sample(images, tmp_path / "imgs", backend, store)
            caption_sample(images, tmp_path / "imgs", backend, store, retry_refused=True)
    assert report.asked == 150
    assert store.summary().done == len(images)
    assert store.duplicates == 0
    assert set(server.good.values()) == {1}
    assert len(server.good) == 2 * len(images)
    assert server.peak == 12
    assert len(server.faults) == len(faults) + 1
    assert backend.usage["requests"] == len(server.asked)
    assert KEY not in caplog.text


CLIENT = """
    import logging, sys
    from pathlib import Path
    from captioning.backends import endpoint, make_backend
    from captioning.pipeline import caption_sample, export
    from captioning.store import CaptionStore

    folder, url, concurrency = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    logging.basicConfig(filename=folder / "client.log", level=logging.DEBUG)
    endpoint.FIRST_WAIT = 0.01
    images = sorted(p.relative_to(folder / "imgs").as_posix() for p in (folder / "imgs").rglob("*.png"))
    backend = make_backend("openai", base_url=url, model="vl", api_key_env="PSPD_TEST_KEY", timeout=1.0,
                           concurrency=concurrency, attempts=12)
    with CaptionStore(folder / "pre_captions.jsonl") as store:
        # Three empty answers in a row happen to one question in 25,000: the second call asks for those again.
        for _ in range(2):
            report = caption_sample(images, folder / "imgs", backend, store, retry_refused=True)
        export(store, folder / "pre_captions.json", images)
    (folder / "report.txt").write_text(f"{report} {backend.usage} {vars(store)} {backend!r}")
"""


def client_command(folder: Path, server: ChatServer, concurrency: int) -> list[str]:
    script = folder / "client.py"
    script.write_text(textwrap.dedent(CLIENT))
    return [sys.executable, str(script), str(folder), server.url, str(concurrency)]


@pytest.mark.integration
def test_interrupted_client_ends_at_once_and_keeps_what_it_has(tmp_path):
    sized_images(tmp_path / "imgs", 40)
    with ChatServer(scripted=["good"] * 10 + ["hang"] * 400, latency=0.01) as server:
        command = client_command(tmp_path, server, 4)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background job ignores SIGINT, and so would its children: these tests may run as one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as client:
            while len(server.asked) < 14 and client.poll() is None:
                time.sleep(0.01)
            interrupted = time.monotonic()
            client.send_signal(signal.SIGINT)
            trace = client.stderr.read()
            client.wait(timeout=20)
            assert time.monotonic() - interrupted < 5
    assert trace.rstrip().endswith("KeyboardInterrupt")
    assert KEY not in trace
    store = CaptionStore(tmp_path / "pre_captions.jsonl")
    assert sum(record["status"] == "done" for record in store) == sum(server.good.values()) == 10


@dataclass(frozen=True)
class Kill:
    """What the server had been asked, and what the store held, when a client was killed."""

    asked: int
    done: frozenset


def caption_with_kills(
    folder: Path, server: ChatServer, count: int, kills: int, concurrency: int
) -> list[Kill]:
    """Run the client until it is done, killing it `kills` times after a random number of requests."""
    command = client_command(folder, server, concurrency)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    sizes = sizes_of(folder)
    generator = random.Random(count)
    history = []
    for _ in range(kills):
        stop_at = len(server.asked) + generator.randrange(1, 2 * count // (kills + 1))
        with subprocess.Popen(command, cwd=ROOT, env=environment) as client:
            while len(server.asked) < stop_at and client.poll() is None:
                time.sleep(generator.uniform(0, 0.01))
            client.kill()
        records = CaptionStore(folder / "pre_captions.jsonl")
        done = {
            (sizes[record["key"].split("::")[0]], record["step"])
            for record in records
            if record["status"] == "done" and "step" in record
        }
        history.append(Kill(len(server.asked), frozenset(done)))
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=400)
    return history


def sizes_of(folder: Path) -> dict[str, tuple[int, int]]:
    sizes = {}
    for path in (folder / "imgs").rglob("*.png"):
        with Image.open(path) as image:
            sizes[path.relative_to(folder / "imgs").as_posix()] = image.size
    return sizes


@pytest.mark.parametrize(
    ("count", "kills"),
    [
        pytest.param(150, 3, marks=pytest.mark.integration),
        pytest.param(2000, 10, marks=pytest.mark.slow),
    ],
)
def test_killed_client_loses_and_repeats_only_what_was_in_flight(tmp_path, count, kills):
    concurrency = 16
    images = sized_images(tmp_path / "imgs", count)
    with ChatServer(fault_rate=0.3, latency=0.01, seed=count) as server:
        history = caption_with_kills(tmp_path, server, count, kills, concurrency)
        asked = [(request.size, prompts.kind_of(request.prompt)) for request in server.asked]

    assert len(history) == kills
    for kill in history:
        assert not kill.done & set(asked[kill.asked :]), "something stored was asked again"

    store = CaptionStore(tmp_path / "pre_captions.jsonl")
    captions = load_pre_captions(tmp_path / "pre_captions.json")
    for image, (width, height) in sizes_of(tmp_path).items():
        assert f"size {width} by {height}" in captions[image].base_caption
        assert captions[image].styled_caption.startswith(captions[image].opening)
    assert list(captions) == sorted(images)
    assert store.duplicates == 0
    assert store.torn <= kills
    # Each kill can waste the answers that were on their way; the rest was paid for once.
    assert len(server.good) == 2 * count
    assert sum(server.good.values()) - 2 * count <= kills * concurrency
    assert server.peak <= concurrency
    assert {request.authorization for request in server.asked} == {f"Bearer {KEY}"}
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".png"]
    assert len(written) >= 5
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
