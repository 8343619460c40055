"""Galleries on a Milvus server: milvus-lite behind a port, as a cluster would be reached; the token, and a server that goes away."""

from __future__ import annotations

import base64
import contextlib
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("grpc", reason="needs pip install -r requirements-stores.txt")
pytest.importorskip("milvus_lite", reason="needs pip install -r requirements-stores.txt")

import grpc

from data.errors import UserError
from serving import milvus_collection, stores
from serving.index import SearchIndex
from serving.origins import Wanted
from serving.stores import named_store
from tests.serving.galleries import draw, draw_all, update
from tests.serving.test_milvus_store import check


class Watch(grpc.ServerInterceptor):
    """Keeps what requests bring along to say who they are."""

    def __init__(self) -> None:
        self.tokens: set[str | None] = set()

    def intercept_service(self, continuation, details):
        self.tokens.add(dict(details.invocation_metadata).get("authorization"))
        return continuation(details)


@contextlib.contextmanager
def served(folder, watch: Watch):
    from milvus_lite.adapter.grpc.servicer import MilvusServicer
    from milvus_lite.db import MilvusLite
    from pymilvus.grpc_gen import milvus_pb2_grpc

    database = MilvusLite(str(folder))
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[watch])
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(database), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield named_store(f"milvus:http://127.0.0.1:{port}")
    finally:
        server.stop(0).wait()
        database.close()


def test_two_machines_share_a_gallery_and_the_token_goes_to_the_server_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("MILVUS_TOKEN", "me:secret")
    pictures, watch = draw_all(tmp_path / "pictures", 12), Watch()
    with served(tmp_path / "server", watch) as store:
        update(tmp_path / "here", pictures, store)
        shutil.copytree(tmp_path / "here", tmp_path / "copy")
        assert update(tmp_path / "there", pictures, store)[1] == []
        draw(pictures, "100.png", 100)
        assert update(tmp_path / "there", pictures, store)[1] == ["100.png"]
        for directory in ("here", "there", "copy"):  # a copy of the folder needs nothing but the server
            check(tmp_path / directory, pictures)
        assert watch.tokens == {base64.b64encode(b"me:secret").decode()}
        for path in (tmp_path / "here").iterdir():
            assert b"secret" not in path.read_bytes()


def test_a_server_that_goes_away_is_told_and_nothing_is_lost(tmp_path, monkeypatch):
    pictures = draw_all(tmp_path / "pictures", 12)
    with served(tmp_path / "server", Watch()) as store:
        update(tmp_path / "index", pictures, store)
        index = SearchIndex(tmp_path / "index")
    monkeypatch.setattr(milvus_collection, "SECONDS", 1.0)
    monkeypatch.setattr(milvus_collection, "_CONNECT_SECONDS", 1.0)
    draw(pictures, "100.png", 100)
    for action in (
        lambda: index.nearest(np.ones(12, np.float32), 3, Wanted()),
        lambda: SearchIndex(tmp_path / "index"),
        lambda: update(tmp_path / "index", pictures, store),
    ):
        with pytest.raises(UserError, match=r"does not do what it is asked .* is Milvus running there"):
            action()
    with served(tmp_path / "server", Watch()) as elsewhere:  # started again, on another port here
        assert update(tmp_path / "other", pictures, elsewhere)[1] == ["100.png"]
        check(tmp_path / "other", pictures)


def test_an_answer_that_takes_too_long_is_told(tmp_path, monkeypatch):
    """The client passes on what gRPC raises, which is no MilvusException."""
    from milvus_lite.engine.collection import Collection

    pictures = draw_all(tmp_path / "pictures", 4)
    with served(tmp_path / "server", Watch()) as store:
        update(tmp_path / "index", pictures, store)
        monkeypatch.setattr(milvus_collection, "SECONDS", 1.0)
        plain = Collection.query
        monkeypatch.setattr(
            Collection, "query", lambda *given, **named: time.sleep(2) or plain(*given, **named)
        )
        draw(pictures, "100.png", 100)
        with pytest.raises(UserError, match=r"does not do what it is asked \(Deadline Exceeded\): is Milvus"):
            update(tmp_path / "index", pictures, store)


@pytest.mark.parametrize("package", ["pymilvus", "milvus_lite"])
def test_a_missing_package_is_named(package, monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"which is not installed: pip install -r requirements-stores.txt\."):
        stores.named_store(f"milvus:{tmp_path / 'a.db'}")
