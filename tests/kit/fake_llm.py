"""A chat-completions endpoint on 127.0.0.1 that misbehaves as told. Standard library only.

    with FakeLlm() as fake:
        fake.say(text="no JSON at all").say(status=429, headers={"Retry-After": "0"})   # then it answers well
        fake.refuses = lambda body: refusal("no seed, please") if "seed" in body else None   # as often as it is asked
        client = ChatClient(LanguageModel(fake.base_url, "fake-model"))
        …
        assert fake.requests[0].body["model"] == "fake-model"

As a process, answering well: `python tests/kit/fake_llm.py [PORT]`; it prints its address.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = {"positive": "photo of a tabby cat wearing neon glasses, night alley, pink rim light",
        "negative": "cartoon, lowres, watermark", "title": "Neon Cat"}


@dataclass(frozen=True)
class Turn:
    """The server's reaction to one request."""

    text: str | None = None
    """The message's content; None is the best answer to the question."""
    status: int = 200
    error: Any = None
    """Raw body, such as an error's."""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before the answer."""
    drop: str = ""
    """"before": close without an answer. "during": close in the middle of the body."""
    finish: str = "stop"
    usage: Any = None
    refusal: str | None = None
    message: dict[str, Any] | None = None
    """The whole message, in place of one with `text`."""
    endless: bool = False
    """Send an endless body until the client disconnects."""


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: dict[str, Any]


class FakeLlm:
    """The server, in a thread. `say` queues turns; with none left it gives valid answers."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.answered: list[Request] = []
        """Those whose answer was sent whole."""
        self.given_up = threading.Event()
        """Set once a client closed its connection while waiting for an answer."""
        self.open = threading.Event()
        """While it is not set, requests wait until `answer_held`."""
        self.open.set()
        self.held = threading.Semaphore(0)
        """Counts requests that wait."""
        self._released = threading.Semaphore(0)
        self.turns: deque[Turn] = deque()
        self.refuses: Callable[[dict[str, Any]], Turn | None] = lambda body: None
        """What the server does not take: the turn that refuses a request's body, before the queued ones; else None."""
        self.answers: Callable[[dict[str, Any]], str] = best_answer
        """What the message says where a turn does not: the best answer to a request's body."""
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.fake = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def say(self, text: str | None = None, **turn: Any) -> FakeLlm:
        self.turns.append(Turn(text=text, **turn))
        return self

    def answer_held(self, count: int) -> None:
        """Let `count` of the requests that wait be answered."""
        self._released.release(count)

    def forget(self) -> FakeLlm:
        """As at the start, for the next test."""
        self.requests.clear()
        self.answered.clear()
        self.turns.clear()
        self.open.set()
        self.held, self._released = threading.Semaphore(0), threading.Semaphore(0)
        self.given_up.clear()
        self.refuses = lambda body: None
        return self

    def __enter__(self) -> FakeLlm:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    fake: FakeLlm

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect early."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        fake = self.server.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        turn = fake.refuses(body) or (fake.turns.popleft() if fake.turns else Turn())
        fake.requests.append(request)
        if not fake.open.is_set():
            fake.held.release()
            fake._released.acquire()
        if turn.delay and not self._wait(turn.delay):
            fake.given_up.set()
            return
        if turn.drop == "before":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if turn.endless:
            self._stream_without_end()
            return
        answer = turn.error if turn.error is not None else completion(turn, body, fake.answers)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(turn.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in turn.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if turn.drop == "during":
            self.wfile.write(data[:len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(data)
        fake.answered.append(request)

    def _wait(self, seconds: float) -> bool:
        """Wait; False as soon as the client is gone."""
        self.connection.settimeout(0.05)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.connection.recv(1, socket.MSG_PEEK) == b"":
                    return False
            except TimeoutError:
                continue
            except OSError:
                return False
        self.connection.settimeout(None)
        return True

    def _stream_without_end(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        except OSError:
            self.server.fake.given_up.set()
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def completion(turn: Turn, body: dict[str, Any],
               answers: Callable[[dict[str, Any]], str] | None = None) -> dict[str, Any]:
    """The body of a chat completion."""
    text = turn.text if turn.text is not None or turn.refusal else (answers or best_answer)(body)
    usage = turn.usage if turn.usage is not None else {"prompt_tokens": 100, "completion_tokens": 50,
                                                       "total_tokens": 150}
    return {"id": "fake", "object": "chat.completion", "created": 0, "model": body["model"], "usage": usage,
            "choices": [{"index": 0, "finish_reason": turn.finish,
                         "message": turn.message or {"role": "assistant", "content": text, "refusal": turn.refusal}}]}


def refusal(message: str, status: int = 400, **error: Any) -> Turn:
    """A turn with an error in OpenAI's form."""
    return Turn(status=status, error={"error": {"message": message, **error}})


def streamed(pieces: Iterable[dict[str, Any]], finish: str = "stop", usage: Any = None) -> bytes:
    """The body of a completion as server-sent events, one for each delta."""
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in pieces]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}, {"choices": [], "usage": usage}]
    lines = [": still working", *(f"data: {json.dumps(chunk)}" for chunk in chunks), "data: [DONE]"]
    return "".join(f"{line}\n\n" for line in lines).encode()


def best_answer(body: dict[str, Any]) -> str:
    """A valid answer to the pack's own questions."""
    wish = body["messages"][-1]["content"]
    if not isinstance(wish, str):  # with a picture
        wish = wish[0]["text"]
    if match := re.match(r"Write \d+ prompts: (.*?)\.", wish):
        wanted = [(int(number), category) for number, category in re.findall(r"(\d+) of (\w+)", match[1])]
        first = 1000 * wish.count(",") if "taken" in wish else 0
        categories = [category for number, category in wanted for _ in range(number)]
        return json.dumps({"prompts": [
            {"category": category, "subject": f"{category} {_word(first + 7 * index)}",
             "prompt": " ".join([category, *(_word(first + 7 * index + k) for k in range(6))])}
            for index, category in enumerate(categories)]})
    keys = re.search(r"with the keys (.*?), all texts", body["messages"][0]["content"])
    if keys and "subject" in keys[1]:
        return json.dumps({name: f"{name} words" for name in keys[1].split(", ")})
    return json.dumps(GOOD)


def _word(number: int) -> str:
    """A made-up word for each number."""
    word = ""
    for _ in range(4):
        number, digit = divmod(number, 20)
        word += "bcdfghjklmnpqrtvwxyz"[digit] + "ao"[digit % 2]
    return word


if __name__ == "__main__":
    fake = FakeLlm(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(fake.base_url, flush=True)
    fake._server.serve_forever()
