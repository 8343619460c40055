"""The caption store: nothing lost, nothing read that is not whole, whatever happens to the file."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning import summary
from captioning.store import CaptionStore, StoreError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_the_disk():
    """Forcing data to disk guards against power failures, which no test here has; it takes milliseconds each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def records_of(path: Path) -> dict[str, dict]:
    return {record["key"]: record for record in CaptionStore(path)}


def test_put_is_there_for_the_next_process(tmp_path):
    path = tmp_path / "deep" / "captions.jsonl"
    with CaptionStore(path) as store:
        assert len(store) == 0
        store.put("a.jpg", text="a red coat", usage={"requests": 1})
        store.put("b.jpg", status="refused", error="filter")
        store.put("a.jpg", text="a blue coat")
        assert store.get("a.jpg")["text"] == "a blue coat"
    again = CaptionStore(path)
    assert len(again) == 2
    assert "a.jpg" in again
    assert again.get("a.jpg") == {"key": "a.jpg", "status": "done", "text": "a blue coat"}
    assert again.status("b.jpg") == "refused"
    assert again.get("c.jpg") is None
    assert [record["key"] for record in again] == ["a.jpg", "b.jpg"]
    assert again.duplicates == 1


def test_missing_keeps_order_and_knows_what_to_ask_again(tmp_path):
    store = CaptionStore(tmp_path / "s.jsonl")
    for status in ("done", "refused", "empty", "failed"):
        store.put(status, status=status)
    keys = ["new", "done", "refused", "empty", "failed", "new"]
    assert store.missing(keys) == ["new", "failed"]
    assert store.missing(keys, retry_refused=True) == ["new", "refused", "empty", "failed"]
    store.put("refused", text="now it answers")
    assert store.missing(keys, retry_refused=True) == ["new", "empty", "failed"]


def test_unknown_status_and_a_folder_are_told(tmp_path):
    with pytest.raises(ValueError, match="Unknown caption status 'good'"):
        CaptionStore(tmp_path / "s.jsonl").put("a", status="good")
    with pytest.raises(StoreError, match=r"is a folder; name a \.jsonl file"):
        CaptionStore(tmp_path)


TEXTS = [
    "plain",
    'quotes " and \\ and {"key": "x", "status": "done"}',
    "line\nbreak\r\n",
    "日本語 🚶",
    "\ud800",
    "",
]


def test_every_truncation_leaves_exactly_the_whole_records(tmp_path):
    path = tmp_path / "s.jsonl"
    with CaptionStore(path) as store:
        for index, text in enumerate(TEXTS):
            store.put(f"image {index}", text=text)
    content = path.read_bytes()
    ends = [position for position, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends)
        torn = cut > 0 and cut not in ends and cut - 1 not in ends
        with CaptionStore(path) as store:
            assert [record["text"] for record in store] == TEXTS[:whole]
            assert store.torn == torn
            store.put("next", text="goes on")
            assert store.torn == torn
        again = CaptionStore(path)
        assert [record["text"] for record in again] == [*TEXTS[:whole], "goes on"]
        assert again.torn == torn
        assert again.duplicates == 0


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 40,
        b"not json",
        b'"a string"',
        b'{"key": 3, "status": "done"}',
        b'{"key": "a"}',
        b'{"key": "a", "status": "good"}',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"key": "a", "sta{"key": "b", "status": "done"}',
    ],
)
def test_garbage_lines_are_counted_and_ignored(tmp_path, garbage):
    path = tmp_path / "s.jsonl"
    with CaptionStore(path) as store:
        store.put("first")
    path.write_bytes(path.read_bytes() + garbage + b"\n" + b'{"key": "last", "status": "done"}\n\n')
    store = CaptionStore(path)
    assert [record["key"] for record in store] == ["first", "last"]
    assert store.torn == 1
    assert store.summary().torn == 1


@settings(max_examples=60, deadline=None)
@given(
    records=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=20)), max_size=8),
    cuts=st.lists(st.integers(0, 10_000), max_size=3),
)
def test_any_text_survives_any_series_of_kills(tmp_path_factory, records, cuts):
    """After each cut (a kill in the middle of the last line) the rest goes on being appended."""
    path = tmp_path_factory.mktemp("store") / "s.jsonl"
    expected: dict[str, str] = {}
    for position, (key, text) in enumerate(records):
        with CaptionStore(path) as store:
            store.put(key, text=text)
        expected[key] = text
        if position < len(cuts):
            fragment = json.dumps({"key": "torn", "status": "done", "text": "x" * 50}).encode()
            with path.open("ab") as file:
                file.write(fragment[: 1 + cuts[position] % (len(fragment) - 1)])
    assert {key: record["text"] for key, record in records_of(path).items()} == expected


def append_many(path: Path, writer: int, count: int) -> None:
    with CaptionStore(path) as store:
        for index in range(count):
            store.put(f"{writer}/{index}", text="x" * (writer * 1000 + index))


def test_processes_append_at_once_and_see_each_other(tmp_path):
    path = tmp_path / "s.jsonl"
    mine = CaptionStore(path)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(path, writer, 60)) for writer in range(1, 4)]
    for process in writers:
        process.start()
    for index in range(60):
        mine.put(f"0/{index}", text="mine")
    for process in writers:
        process.join()
        assert process.exitcode == 0
    mine.refresh()
    for store in (mine, CaptionStore(path)):
        assert len(store) == 240
        assert (store.torn, store.duplicates) == (0, 0)
        assert len(store.get("3/59")["text"]) == 3059


def test_put_waits_for_the_process_that_is_writing(tmp_path):
    path = tmp_path / "s.jsonl"
    store = CaptionStore(path)
    store.put("a")
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writer = threading.Thread(target=store.put, args=("b",))
        writer.start()
        other.write(b'{"key": "c", ')
        other.flush()
        writer.join(0.1)
        assert writer.is_alive()
        other.write(b'"status": "done"}\n')
    writer.join()
    assert [record["key"] for record in CaptionStore(path)] == ["a", "c", "b"]
    assert len(store) == 3
    assert store.torn == 0


def test_written_records_are_forced_to_disk_in_time_and_on_close(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    eager = CaptionStore(tmp_path / "eager.jsonl", sync_seconds=0)
    eager.put("a")
    eager.put("b")
    assert len(synced) == 2
    with CaptionStore(tmp_path / "lazy.jsonl", sync_seconds=3600) as lazy:
        lazy.put("a")
        assert len(synced) == 2
    assert len(synced) == 3


def test_own_records_are_not_read_twice(tmp_path):
    first, second = CaptionStore(tmp_path / "s.jsonl"), CaptionStore(tmp_path / "s.jsonl")
    first.put("a")
    second.put("b")
    first.put("c")
    first.refresh()
    second.refresh()
    assert [len(store) for store in (first, second)] == [3, 3]
    assert first.duplicates == second.duplicates == 0


def test_full_disk_leaves_no_half_record(tmp_path, monkeypatch):
    path = tmp_path / "s.jsonl"
    store = CaptionStore(path)
    store.put("a", text="whole")
    before = path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    with pytest.raises(StoreError, match="disk is full"):
        store.put("b", text="half")
    monkeypatch.undo()
    assert path.read_bytes() == before
    store.put("b", text="again")
    assert set(records_of(path)) == {"a", "b"}


@pytest.mark.integration
def test_sigkill_loses_nothing_that_put_returned_from(tmp_path):
    """The child says every key aloud after `put`; whatever it said must be in the file."""
    path = tmp_path / "s.jsonl"
    script = (
        "import sys; from captioning.store import CaptionStore\n"
        "store = CaptionStore(sys.argv[1]); n = len(store)\n"
        "while True: store.put(f'k{n}', text='word ' * 50); print(f'k{n}', flush=True); n += 1"
    )
    said: list[str] = []
    for kill_after in (1, 17, 60):
        command = [sys.executable, "-c", script, str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            for _ in range(kill_after):
                said.append(child.stdout.readline().strip())
            child.kill()
            said += [line.strip() for line in child.stdout.read().splitlines() if line]
    store = CaptionStore(path)
    assert not store.missing(said)
    # Said and stored differ by at most the one record per kill that was written and not yet said.
    assert len(said) <= len(store) <= len(said) + 3
    assert store.duplicates == 0


def test_summary_counts_images_not_steps(tmp_path):
    store = CaptionStore(tmp_path / "s.jsonl")
    store.put("a::base", step="base", text="an answer", model="vl")
    store.put("a", base_caption="a man in red", styled_caption="he wears a red coat now", model="vl")
    store.put("b", base_caption="a man in red", styled_caption="he wears red", model="palette")
    store.put("c", status="refused", model="vl")
    store.put("d", status="empty")
    store.put("e", status="failed")
    found = store.summary()
    assert (found.done, found.refused, found.empty, found.failed, found.steps) == (2, 1, 1, 1, 1)
    assert found.models == {"vl": 1, "palette": 1}
    assert set(found.captions) == {"base_caption", "styled_caption"}
    base, styled = found.captions["base_caption"], found.captions["styled_caption"]
    assert (base.captions, base.distinct, base.words_mean, base.characters_mean) == (2, 1, 4, 12)
    assert (styled.distinct, styled.words_min, styled.words_mean, styled.words_max) == (2, 3, 4.5, 6)
    assert "2 done, 1 refused, 1 empty, 1 failed" in str(found)
    assert str(CaptionStore(tmp_path / "none.jsonl").summary()).startswith("0 done")


def test_summary_command(tmp_path, capsys):
    path = tmp_path / "s.jsonl"
    CaptionStore(path).put("a", base_caption="a man in red")
    assert summary.main([str(path)]) == 0
    assert "1 done" in capsys.readouterr().out
    assert summary.main([str(tmp_path / "none.jsonl")]) == 1
    assert capsys.readouterr().err.startswith("error: There is no caption store")
