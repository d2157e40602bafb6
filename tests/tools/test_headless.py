"""The example script for timers, against what a ComfyUI may say; tests/e2e/test_headless.py runs it on a real one."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tools import headless

SCRIPT = Path(headless.__file__)


class FakeServer(ThreadingHTTPServer):
    """Just enough of ComfyUI: it says nothing until it was asked for its queue often enough."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.queues: list[dict[str, Any]] = []
        """One answer for each time somebody asks; the last goes on."""
        self.asked = threading.Semaphore(0)
        self.history: dict[str, Any] = {}
        self.event: dict[str, Any] = {"type": "execution_success", "data": {"prompt_id": "p"}}
        self.speak_after = -1
        """How many questions about the queue before the event is sent; -1: never."""

    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b'{"prompt_id": "p"}')

    def do_GET(self) -> None:
        if self.path.startswith("/ws"):
            self.websocket()
        elif self.path == "/queue":
            queues = self.server.queues
            self.answer(json.dumps(queues.pop(0) if len(queues) > 1 else queues[0]).encode())
            self.server.asked.release()
        elif self.path.startswith("/history"):
            self.answer(json.dumps(self.server.history).encode())
        else:
            self.answer(self.path.encode())

    def websocket(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.protocol_version = "HTTP/1.1"
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"),
                            ("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())):
            self.send_header(name, value)
        self.end_headers()
        if self.server.speak_after >= 0:
            for _ in range(self.server.speak_after):
                self.server.asked.acquire()
            text = json.dumps(self.server.event).encode()
            self.wfile.write(bytes([0x81, 126]) + struct.pack(">H", len(text)) + text)
            self.wfile.flush()
        self.rfile.read()  # until the other side goes
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    thread = threading.Thread(target=fake.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield fake
    fake.shutdown()
    fake.server_close()


def image(filename: str, subfolder: str = "") -> dict[str, str]:
    return {"filename": filename, "subfolder": subfolder, "type": "output"}


def done(*images: dict[str, str]) -> dict[str, Any]:
    return {"p": {"outputs": {"9": {"images": list(images)}}, "status": {"status_str": "success", "messages": []}}}


def run(server: FakeServer, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    graph = folder / "graph.json"
    graph.write_text(json.dumps({"1": {"class_type": "X", "inputs": {}}}), encoding="utf-8")
    command = [sys.executable, "-I", "-S", "-X", "utf8", str(SCRIPT), str(graph), "--url", server.url(), "--out",
               str(folder / "out"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120,
                          env=os.environ | environment)


PENDING = {"queue_running": [[0, "other", {}, {}, []]], "queue_pending": [[1, "p", {}, {}, []]]}
RUNNING = {"queue_running": [[1, "p", {}, {}, []]], "queue_pending": []}
GONE = {"queue_running": [[0, "other", {}, {}, []]], "queue_pending": []}


def test_work_behind_other_work_is_waited_for(server: FakeServer, tmp_path: Path) -> None:
    server.queues, server.speak_after, server.history = [PENDING, PENDING, RUNNING], 3, done(image("a.png"))
    result = run(server, tmp_path, "--timeout", "0.2")
    assert result.returncode == 0, result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_no_proxy_of_the_environment_is_asked(server: FakeServer, tmp_path: Path) -> None:
    server.queues, server.history = [RUNNING, GONE], done(image("a.png"))
    nobody = "http://127.0.0.1:9"
    result = run(server, tmp_path, "--timeout", "0.2", http_proxy=nobody, HTTP_PROXY=nobody, no_proxy="", NO_PROXY="")
    assert result.returncode == 0, result.stderr


def test_the_end_is_noticed_where_its_message_was_lost(server: FakeServer, tmp_path: Path) -> None:
    server.queues, server.history = [RUNNING, GONE], done(image("a.png"))
    result = run(server, tmp_path, "--timeout", "0.2")
    assert result.returncode == 0, result.stderr
    failed = {"node_type": "KSampler", "exception_message": "out of memory\n"}
    server.queues = [GONE]
    server.history = {"p": {"outputs": {}, "status": {"status_str": "error", "messages": [
        ["execution_start", {}], ["execution_error", failed]]}}}
    result = run(server, tmp_path, "--timeout", "0.2")
    assert (result.returncode, result.stderr.strip()) == (1, "KSampler: out of memory")


def test_forgotten_work_is_given_up(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.queues = [PENDING, GONE]
    monkeypatch.setattr(headless.time, "sleep", lambda _: None)
    with pytest.raises(headless.Failed, match="no longer in the queue"):
        headless.Server(server.url(), 0.2).run({"1": {"class_type": "X", "inputs": {}}})


def test_pictures_of_one_name_are_all_kept(server: FakeServer, tmp_path: Path) -> None:
    outputs = done(image("x_1.png", "a"), image("x_1.png", "b"), image("X_1.png", "c"))["p"]["outputs"]
    saved = headless.fetch(headless.Server(server.url(), 5), outputs, tmp_path, "")
    assert [path.name for path in saved] == ["x_1.png", "x_1 (2).png", "X_1 (3).png"]
    assert [f"subfolder={folder}" in path.read_text() for path, folder in zip(saved, "abc", strict=True)] == [True] * 3
    saved = headless.fetch(headless.Server(server.url(), 5), outputs, tmp_path, "x_1.png")
    assert [path.name for path in saved] == ["x_1.png", "x_1 (2).png", "X_1 (3).png"], "yesterday's are replaced"


@pytest.mark.parametrize(("name", "kept"), [
    ("../evil.png", "evil.png"), ("..\\..\\evil.png", "evil.png"), ("/no such folder/evil.png", "evil.png"),
    ("C:evil.png", "C_evil.png"), ("..", "picture"), ("a/", "picture"), ("größe 1.png", "größe 1.png"),
    ("nul.png", "_nul.png"), ("com1.tar.png", "_com1.tar.png")])
def test_pictures_stay_in_their_folder(server: FakeServer, tmp_path: Path, name: str, kept: str) -> None:
    outputs = done(image(name))["p"]["outputs"]
    saved = headless.fetch(headless.Server(server.url(), 5), outputs, tmp_path / "out", "")
    assert saved == [tmp_path / "out" / kept]
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == ([f"out/{kept}"] if "." in kept
                                                                                        else [])


def graph() -> dict[str, Any]:
    return {"1": {"class_type": "X", "_meta": {"title": "A.B"},
                  "inputs": {"on": True, "seed": 5, "cfg": 1.5, "text": "a", "mode.width": 3, "link": ["2", 0]}},
            "2": {"class_type": "Y", "inputs": {"text": "b"}}, "3": {"class_type": "Y", "inputs": {"text": "c"}}}


@pytest.mark.parametrize(("setting", "text", "value"), [
    ("1.on", "False", False), ("1.on", "true", True), ("1.on", "0", False), ("1.on", " TRUE", True), ("1.seed", "7", 7),
    ("1.cfg", "7", 7), ("1.cfg", "1e-3", 0.001), ("1.seed", '["2", 0]', ["2", 0]), ("1.text", "7", "7"),
    ("1.text", "random", "random"), ("1.mode.width", "4", 4), ("A.B.mode.width", "4", 4),
    ("A.B.text", "x.y=z", "x.y=z"),
    ("1.link", "words", "words"), ("1.link", "8", 8)])
def test_a_value_takes_the_type_of_the_old_one(setting: str, text: str, value: Any) -> None:
    changed = graph()
    headless.change(changed, setting, text)
    key = setting.removeprefix("1.").removeprefix("A.B.")
    assert changed["1"]["inputs"] == {**graph()["1"]["inputs"], key: value}
    assert type(changed["1"]["inputs"][key]) is type(value)


def test_a_seed_is_drawn_for_a_number() -> None:
    drawn = set()
    for _ in range(4):
        changed = graph()
        headless.change(changed, "A.B.seed", "random")
        drawn.add(changed["1"]["inputs"]["seed"])
    assert len(drawn) > 1 and all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in drawn)


@pytest.mark.parametrize(("setting", "text", "message"), [
    ("1.on", "maybe", "1.on is a switch, and 'maybe'"), ("1.on", "random", "1.on is a switch"),
    ("1.seed", "seven", "1.seed is a number, and 'seven' is none"), ("1.cfg", "1,5", "is a number"),
    ("1.cfg", "NaN", "is a number"), ("1.cfg", "true", "is a number"), ("1.link", "random", "1.link holds no number"),
    ("1.size", "4", "'1' has no input 'size'; it has: on, seed"), ("Y.text", "x", "'Y' names 2 nodes"),
    ("Z.text", "x", "'Z' names 0 nodes"), ("nonsense", "x", "'nonsense' names 0 nodes")])
def test_what_cannot_be_set_is_said(setting: str, text: str, message: str) -> None:
    changed = graph()
    with pytest.raises(headless.Failed) as failed:
        headless.change(changed, setting, text)
    assert message in str(failed.value)
    assert changed == graph()
