"""Queue a ComfyUI workflow from a shell or a timer, follow it, and fetch its pictures. Needs Python 3.10, nothing else.

    python headless.py workflow_api.json --set Prompt.value="a lighthouse in fog" --set Seed.value=random \
        --upload 12.image=photo.png --url http://127.0.0.1:8188 --out pictures

The workflow is in API format (in the editor: Workflow > Export (API)). A node is named by its number or its title. Exit
code 0: done; 1: failed, and the last line says why; 2: wrong use. See docs/headless.md for cron and systemd.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import mimetypes
import re
import secrets
import socket
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Failed(Exception):
    """A failure that the user can act on; the text is the whole message."""


class WrongUse(Failed):
    """The command line names something that the workflow has not, or a file that is not there."""


SHORTEST = 60
"""Least seconds to wait for an answer, whatever the time limit."""


class Server:
    """A running ComfyUI.

    Args:
        url: Such as http://127.0.0.1:8188, with http:// or https://.
        timeout: Seconds without any word after which the queue is asked whether the work is still in it.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url, self.timeout = url.rstrip("/"), timeout
        self.client = uuid.uuid4().hex
        # Without the environment's proxy, as for the events: ComfyUI is on this machine or a near one.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> bytes:
        """GET; the body of the answer."""
        return self._ask(urllib.request.Request(self.url + path))

    def post(self, path: str, value: Any) -> Any:
        """POST JSON; the parsed answer."""
        request = urllib.request.Request(self.url + path, json.dumps(value).encode(),
                                         {"Content-Type": "application/json"})
        return json.loads(self._ask(request) or b"{}")

    def upload(self, file: Path) -> str:
        """Put a picture into the input folder; returns the name to use in a graph."""
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        mark = secrets.token_hex(16)
        head = (f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{file.name}"\r\n'
                f"Content-Type: {kind}\r\n\r\n")
        body = head.encode() + file.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        request = urllib.request.Request(self.url + "/upload/image", body,
                                         {"Content-Type": f"multipart/form-data; boundary={mark}"})
        answer = json.loads(self._ask(request))
        return "/".join(filter(None, [answer.get("subfolder"), answer["name"]]))

    def run(self, graph: dict[str, Any]) -> dict[str, Any]:
        """Queue a graph, report its progress on stderr, and return the outputs by node when it is done."""
        events = self._events()
        next(events)  # connected before the work is queued, so that nothing is missed
        prompt = self.post("/prompt", {"prompt": graph, "client_id": self.client})["prompt_id"]
        for kind, data in events:
            if data.get("prompt_id") not in (None, prompt):
                continue
            if kind == "silence" and not self._queued(prompt):
                break  # done, with the last event lost on the way
            if kind == "executing" and data.get("node"):
                report(f"{title(graph, data.get('display_node') or data['node'])} …")
            elif kind == "progress":
                report(f"  {data['value']} of {data['max']}", again=data["value"] < data["max"])
            elif kind == "execution_error":
                raise Failed(f"{data.get('node_type')}: {data.get('exception_message', '').strip()}")
            elif kind == "execution_interrupted":
                raise Failed("Somebody cancelled the work.")
            elif kind == "execution_success":
                break
        return self._history(prompt)

    def _queued(self, prompt: str) -> bool:
        """Whether the work is running, or waits behind other work."""
        queue = json.loads(self.get("/queue"))
        return any(prompt in entry[1:2] for part in ("queue_running", "queue_pending") for entry in queue.get(part, []))

    def _history(self, prompt: str) -> dict[str, Any]:
        for _ in range(100):  # written just after the last event
            history = json.loads(self.get(f"/history/{prompt}"))
            if prompt in history:
                status = history[prompt].get("status") or {}
                if status.get("status_str") == "error":
                    raise Failed(next((f"{data.get('node_type')}: {data.get('exception_message', '').strip()}"
                                       for kind, data in status.get("messages", []) if kind == "execution_error"),
                                      "Somebody cancelled the work."))
                return history[prompt]["outputs"]
            time.sleep(0.1)
        raise Failed("The work is no longer in the queue, and ComfyUI has forgotten what became of it.")

    def _ask(self, request: urllib.request.Request) -> bytes:
        try:
            with self._opener.open(request, timeout=max(self.timeout, SHORTEST)) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise Failed(refusal(error.read(), error.code)) from error
        except OSError as error:
            raise Failed(f"ComfyUI does not answer at {self.url}: {getattr(error, 'reason', error)}") from error

    def _events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """("connected", {}) first, then every event that ComfyUI sends this client (a websocket, RFC 6455).

        ("silence", {}) stands for `timeout` seconds without any.
        """
        parts = urllib.parse.urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            channel = socket.create_connection((parts.hostname or "", port), max(self.timeout, SHORTEST))
        except OSError as error:
            raise Failed(f"ComfyUI does not answer at {self.url}: {error}") from error
        if parts.scheme == "https":
            import ssl

            channel = ssl.create_default_context().wrap_socket(channel, server_hostname=parts.hostname)
        with channel:
            stream = Stream(channel)
            key = base64.b64encode(secrets.token_bytes(16)).decode()
            channel.sendall((f"GET {parts.path}/ws?clientId={self.client} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
                             "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                             f"Sec-WebSocket-Key: {key}\r\n\r\n").encode())
            if b" 101 " not in stream.line():
                raise Failed(f"{self.url} is no ComfyUI: it refuses the websocket.")
            while stream.line().strip():
                pass
            yield "connected", {}
            channel.settimeout(self.timeout)
            while True:
                if not stream.ready():
                    yield "silence", {}
                    continue
                code, payload = frame(stream)
                if code == 9:  # a ping wants its bytes back, masked as all that clients send
                    mask = secrets.token_bytes(4)
                    channel.sendall(bytes([0x8A, 0x80 | len(payload)]) + mask
                                    + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))
                elif code == 8:
                    raise Failed("ComfyUI closed the connection.")
                elif code == 1:
                    event = json.loads(payload)
                    if isinstance(event, dict) and isinstance(event.get("data"), dict):  # other packs send all sorts
                        yield str(event.get("type")), event["data"]


class Stream:
    """Buffered reads from a socket; a timeout loses no bytes."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel, self._come = channel, bytearray()

    def ready(self) -> bool:
        """Whether there is something to read, after waiting for the socket's timeout at most."""
        try:
            if not self._come:
                self._receive()
        except TimeoutError:
            return False
        except OSError as error:
            raise Failed(f"The connection to ComfyUI broke: {error}") from error
        return True

    def read(self, count: int) -> bytes:
        """The next `count` bytes."""
        try:
            while len(self._come) < count:
                self._receive()
        except OSError as error:
            raise Failed(f"The connection to ComfyUI broke: {error}") from error
        content = bytes(self._come[:count])
        del self._come[:count]
        return content

    def line(self) -> bytes:
        """The next bytes up to the end of the line."""
        content = b""
        while not content.endswith(b"\n"):
            content += self.read(1)
        return content

    def _receive(self) -> None:
        part = self._channel.recv(65536)
        if not part:
            raise ConnectionError("it ended")
        self._come += part


def frame(stream: Stream) -> tuple[int, bytes]:
    """The kind (1 text, 2 bytes, 8 close, 9 ping) and content of the next message of a websocket."""
    kind, content = 0, b""
    while True:
        first, second = stream.read(2)
        length = second & 0x7F
        if length >= 126:
            form, size = (">H", 2) if length == 126 else (">Q", 8)
            length, = struct.unpack(form, stream.read(size))
        content += stream.read(length)
        kind = first & 0x0F or kind
        if first & 0x80:
            return kind, content


def change(graph: dict[str, Any], setting: str, value: str) -> None:
    """Set one input: `setting` is "node.input", the node by its number or title; both may hold dots.

    The value takes the type of the one it replaces; "random" draws a seed where that is a number.
    """
    nodes = [(name, node) for number, node in graph.items() for name in {number, title(graph, number)}]
    found = [(node["inputs"], key) for name, node in nodes for key in node.get("inputs", {})
             if f"{name}.{key}" == setting]
    if len(found) == 1:
        (inputs, key), = found
        inputs[key] = as_type(value, inputs[key], setting)
        return
    named = [(name, node) for name, node in nodes if setting.startswith(f"{name}.")]
    if len(named) == 1 and not found:
        (name, node), = named
        raise WrongUse(f"{name!r} has no input {setting[len(name) + 1:]!r}; it has: "
                       f"{', '.join(node.get('inputs', {}))}.")
    name = named[0][0] if named else setting.rpartition(".")[0] or setting
    raise WrongUse(f"{name!r} names {len(named)} nodes of the workflow. Use a number or title from: "
                   + ", ".join(f"{number} {title(graph, number)}" for number in graph))


def as_type(text: str, old: Any, setting: str) -> Any:
    """`text` converted to the type of the value that it replaces; `setting` names the input in errors."""
    if isinstance(old, str):
        return text
    if isinstance(old, bool):
        known = {"true": True, "1": True, "false": False, "0": False}
        if text.strip().lower() not in known:
            raise WrongUse(f"{setting} is a switch, and {text!r} is neither true nor false.")
        return known[text.strip().lower()]
    if text == "random":
        if isinstance(old, int | float):
            return secrets.randbelow(2**32)
        raise WrongUse(f"{setting} holds no number, so that none can be drawn for it.")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(old, int | float) and not isinstance(value, list) and not is_number(value):
        raise WrongUse(f"{setting} is a number, and {text!r} is none.")
    return value


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def title(graph: dict[str, Any], number: str) -> str:
    """The title of a node in the editor."""
    node = graph.get(number, {})
    return node.get("_meta", {}).get("title") or node.get("class_type", number)


def refusal(body: bytes, code: int) -> str:
    """ComfyUI's reasons for refusing a graph, in one line."""
    try:
        answer = json.loads(body)
        parts = [answer["error"]["message"]]
        parts += [f"{node['class_type']}: {error['message']} ({error['details']})"
                  for node in (answer.get("node_errors") or {}).values() for error in node["errors"]]
        return "; ".join(parts)
    except (ValueError, KeyError, TypeError):
        return f"ComfyUI answers with HTTP status {code}."


def fetch(server: Server, outputs: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """Save the finished pictures, not the previews. Each appears under its name only when it is complete.

    Args:
        name: A name for the first picture instead of its own; a picture of that name is replaced.
    """
    pictures = [image for node in outputs.values() for image in node.get("images", [])
                if image.get("type") == "output"]
    folder.mkdir(parents=True, exist_ok=True)
    saved: list[Path] = []
    for number, image in enumerate(pictures):
        query = urllib.parse.urlencode({key: image.get(key, "") for key in ("filename", "subfolder", "type")})
        path = unused(folder / (name if name and number == 0 else plain_name(image["filename"])), saved)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(server.get(f"/view?{query}"))
        part.replace(path)
        saved.append(path)
    return saved


def plain_name(name: str) -> str:
    """A server's name for a picture as one that stays in its folder."""
    plain = re.sub(r'[<>:"|?*\0-\x1f]', "_", re.split(r"[/\\]", name)[-1]).strip(" .")
    if re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", plain):
        plain = f"_{plain}"  # Windows keeps these names for devices
    return plain or "picture"


def unused(path: Path, saved: list[Path]) -> Path:
    """`path`, numbered where this run has saved a picture of that name already, as of another folder of ComfyUI's."""
    taken = {str(other).casefold() for other in saved}
    number, free = 1, path
    while str(free).casefold() in taken:
        number += 1
        free = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return free


def report(text: str, again: bool = False) -> None:
    """Report progress: on a terminal in one line that changes, else in plain lines without every single step."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()
    elif not again:
        print(text, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(description="Queue a ComfyUI workflow and fetch its pictures.")
    parser.add_argument("workflow", type=Path, help="a workflow in API format")
    parser.add_argument("--url", default="http://127.0.0.1:8188", help="where ComfyUI listens (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE",
                        help="change an input; NODE is a number or a title, and random draws a seed for a number")
    parser.add_argument("--upload", action="append", default=[], metavar="NODE.INPUT=FILE",
                        help="send a picture and use it there")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the pictures (default: here)")
    parser.add_argument("--name", default="", help="file name for the first picture; replaces what has that name")
    parser.add_argument("--timeout", type=float, default=600,
                        help="seconds without a word before asking the queue whether the work is still in it "
                             "(default: %(default)s)")
    options = parser.parse_args(arguments)
    for text in [*options.set, *options.upload]:
        if "=" not in text:
            parser.error(f"{text!r} has no '='")
    server = Server(options.url, options.timeout)
    try:
        if not options.workflow.is_file():
            raise WrongUse(f"There is no workflow {options.workflow}. Give a file that was exported in API format.")
        graph = json.loads(options.workflow.read_text(encoding="utf-8"))
        if not isinstance(graph, dict) or not all(isinstance(n, dict) and "class_type" in n for n in graph.values()):
            raise Failed(f"{options.workflow} is no workflow in API format. Export it so from the editor.")
        for setting, _, value in (text.partition("=") for text in options.set):
            change(graph, setting, value)
        for setting, _, file in (text.partition("=") for text in options.upload):
            change(graph, setting, server.upload(Path(file)))
        saved = fetch(server, server.run(graph), options.out, options.name)
    except (Failed, OSError, ValueError) as error:
        sys.stderr.write(f"\n{error}\n" if sys.stderr.isatty() else f"{error}\n")
        return 2 if isinstance(error, WrongUse) else 1
    if not saved:
        sys.stderr.write("The workflow saved no picture. Give it a Save Image node.\n")
        return 1
    print(*saved, sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
