"""A real ComfyUI process to test against: start it, queue graphs, watch its websocket, look at the pictures.

    with Host(folder) as host:
        result = host.queue(graph)
        assert result.status == "success", result.error
        pictures = result.pictures("9")
"""

from __future__ import annotations

import io
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import websocket
from kit import absent_package, checkpoint_sized, frozen_heap, leash
from kit.device import device_name
from PIL import Image

from tools import comfyui

START_SECONDS = 240
"""A cold start on a busy machine; 8 s on an idle one."""
SMALL_HEAP = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "4194304", "MALLOC_TRIM_THRESHOLD_": "16777216"}
"""Has glibc give freed weights back to the system at once. Other systems' allocators know none of these variables."""

@dataclass(frozen=True)
class Event:
    """One message of the websocket: `progress`, `executing`, `executed`, `execution_error`, …, `text`, `preview`."""

    kind: str
    data: dict[str, Any]

@dataclass
class Result:
    """The outcome of a queued graph."""

    status: str
    """"success", "error", "interrupted", "rejected" (before the run, in whole or part) or "lost" (the process
    ended)."""
    error: str = ""
    """The error message that the user reads."""
    events: list[Event] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    """By node id, as in the history: {"images": [...], "text": [...]}."""
    host: Host | None = None

    def pictures(self, node: str) -> list[np.ndarray]:
        """The pictures a node showed or saved, uint8 `[H, W, C]`."""
        assert self.host is not None
        return [self.host.picture(image) for image in self.outputs[node]["images"]]

    def text(self, node: str) -> str:
        """The text a node showed."""
        return "\n".join(self.outputs[node]["text"])

    def ran(self) -> set[str]:
        """Ids of the nodes that were executed, not taken from the cache."""
        return {e.data["node"] for e in self.events if e.kind == "executing" and e.data.get("node")}

    def kinds(self, kind: str) -> list[dict[str, Any]]:
        """The data of all events of one kind."""
        return [event.data for event in self.events if event.kind == kind]


class Host:
    """One ComfyUI process in a base folder of its own, on a free port of 127.0.0.1."""

    def __init__(self, base: Path, *, install: bool = True) -> None:
        """`install` puts the pack into `base`; without it, `base` already has a pack."""
        checkout = comfyui.find()
        assert checkout is not None, "mark tests that need ComfyUI with `host`"
        self.base = base
        self._checkout = checkout
        self._log = base / "host.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        if install:
            comfyui.install_pack(base)
        for patch in (checkpoint_sized, absent_package, frozen_heap):
            patch.add_to(base)

    def __enter__(self) -> Host:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Process ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self.port = _free_port()
        processor = ["--cpu"] if device_name() == "cpu" else []
        command = [sys.executable, leash.__file__, str(self._checkout / "main.py"), *processor,
                   "--listen", "127.0.0.1", "--port", str(self.port), "--base-directory", str(self.base),
                   "--database-url", "sqlite:///:memory:", "--disable-api-nodes",
                   # Results of the last graph alone: all of a test's models together would fill the memory, and what
                   # the default cache keeps depends on how much is free.
                   "--cache-classic"]
        # One thread: models here are small, and threads that wait for each other are slow beside other tests' work.
        environment = {**os.environ, **SMALL_HEAP, "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1", "OMP_NUM_THREADS": "1",
                       "PYTHONPATH": os.pathsep.join(filter(None, [self._absent(), os.environ.get("PYTHONPATH")]))}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._checkout, env=environment, stdin=subprocess.PIPE,
                                             stdout=log, stderr=subprocess.STDOUT)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.2)
        self.stop()
        raise AssertionError(f"ComfyUI did not start:\n{self.log()[-4000:]}")

    def _absent(self) -> str:
        """A folder for the front of the module path, where a stub makes an optional package fail to import."""
        folder = self.base / "absent"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prodigyopt.py").write_text("raise ModuleNotFoundError(__name__)\n", encoding="utf-8")
        return str(folder)

    @property
    def running(self) -> bool:
        """True while the process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Terminate the process, and kill it if it does not exit."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._forget()

    def kill(self) -> None:
        """Kill the process, as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._forget()

    def _forget(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.wait()
        self._process.stdin.close()
        self._process = None

    def log(self) -> str:
        """Everything the process has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    # Requests ---------------------------------------------------------------------------------------------------------

    def get(self, path: str) -> bytes:
        """Body of a GET request."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return answer.read()

    def get_json(self, path: str) -> Any:
        """Body of a GET request, parsed."""
        return json.loads(self.get(path))

    def post(self, path: str, value: Any) -> Any:
        """Body of the answer to a POST request, parsed; None where it is empty."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(value).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def defaults(self, node: str) -> dict[str, Any]:
        """Default values of a node's required widgets, as the editor fills them in."""
        values: dict[str, Any] = {}
        for name, (kind, *options) in self.get_json(f"/object_info/{node}")[node]["input"]["required"].items():
            choices = kind if isinstance(kind, list) else options[0].get("options") if options else None
            if options and "default" in options[0]:
                values[name] = options[0]["default"]
            elif choices:
                values[name] = choices[0]
        return values

    def picture(self, image: dict[str, str]) -> np.ndarray:
        """A picture the host serves, uint8 `[H, W, C]`."""
        query = urllib.parse.urlencode({key: image[key] for key in ("filename", "subfolder", "type")})
        return np.asarray(Image.open(io.BytesIO(self.get(f"/view?{query}"))).convert("RGB"))

    def interrupt(self) -> None:
        """Interrupt the running graph, as the editor's Cancel does."""
        self.post("/interrupt", {})

    def free(self) -> None:
        """Clear all cached results and unload all models."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        # The queue's thread acts on it between two jobs; once another job has run, it has.
        done = self.queue({
            "picture": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
            "shown": {"class_type": "PreviewImage", "inputs": {"images": ["picture", 0]}}})
        assert done.status == "success", done.error

    def queue(self, graph: dict[str, Any], on_event: Callable[[Event], None] | None = None,
              timeout: float = 600) -> Result:
        """Queue a graph in API format and wait for its end.

        Args:
            on_event: Called with each event as it arrives; may call `interrupt` or `kill`.
            timeout: Seconds after which the test fails.
        """
        client = uuid.uuid4().hex
        events: list[Event] = []
        channel = websocket.create_connection(f"ws://127.0.0.1:{self.port}/ws?clientId={client}", timeout=timeout)
        try:
            try:
                answer = self.post("/prompt", {"prompt": graph, "client_id": client})
                prompt = answer["prompt_id"]
            except urllib.error.HTTPError as error:
                return Result("rejected", _rejection(json.loads(error.read())), host=self)
            status, message = "", ""
            end = time.monotonic() + timeout
            while not status:
                assert time.monotonic() < end, f"no end after {timeout} s; last: {events[-1:]}\n{self.log()[-2000:]}"
                event = _event(channel.recv())
                if event is None:
                    continue
                events.append(event)
                if event.data.get("prompt_id") == prompt:
                    status, message = _ending(event)
                if on_event is not None:
                    on_event(event)
        except (OSError, websocket.WebSocketException) as error:
            return Result("lost", str(error), events, host=self)
        finally:
            channel.close()
        history = self._history(prompt)
        if answer["node_errors"]:
            # The host runs what does not depend on the faulty nodes.
            status, message = "rejected", _rejection(answer)
        return Result(status, message, events, history.get("outputs", {}), self)

    def _history(self, prompt: str) -> dict[str, Any]:
        # Written just after the last event; on a busy machine that can take a while.
        end = time.monotonic() + 120
        while prompt not in (history := self.get_json(f"/history/{prompt}")):
            assert time.monotonic() < end, f"no history of {prompt}\n{self.log()[-2000:]}"
            time.sleep(0.1)
        return history[prompt]

def _free_port() -> int:
    """A port that nobody listens on, outside the range that systems assign automatically.

    The host opens it many seconds later, and other processes are assigned ports in the meantime.
    """
    while True:
        # Not by `random`, which has the same seed in every process. Linux assigns ports from 32768 on, others higher.
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port

def _ending(event: Event) -> tuple[str, str]:
    match event.kind:
        case "execution_success":
            return "success", ""
        case "execution_error":
            return "error", event.data["exception_message"].strip()
        case "execution_interrupted":
            return "interrupted", ""
    return "", ""

def _event(message: str | bytes) -> Event | None:
    if isinstance(message, str):
        value = json.loads(message)
        return Event(value["type"], value["data"])
    (number,) = struct.unpack_from(">I", message)
    if number == 3:
        (length,) = struct.unpack_from(">I", message, 4)
        node = message[8:8 + length].decode()
        return Event("text", {"node": node, "text": message[8 + length:].decode()})
    return Event("preview", {"bytes": message}) if number in (1, 4) else None

def _rejection(answer: dict[str, Any]) -> str:
    """The messages that the editor shows for a graph that fails validation."""
    parts = [answer["error"]["message"]] if "error" in answer else []
    for node in answer.get("node_errors", {}).values():
        parts += [f"{error['message']}: {error['details']}" for error in node["errors"]]
    return "; ".join(parts)
