"""Queue a ComfyUI workflow from a shell or a timer, follow it, and fetch its pictures. Needs Python 3.10, nothing else.

    python headless.py workflow_api.json --set Prompt.value="a lighthouse in fog" --set Seed.value=random \
        --upload 12.image=photo.png --url http://127.0.0.1:8188 --out pictures

The workflow is in API form (in the editor: Workflow > Export (API)). A node is named by its number or its title. Exit
code 0: done; 1: failed, and the last line says why; 2: wrong use. See docs/headless.md for cron and systemd.
"""

from __future__ import annotations

import argparse
import base64
import json
import mimetypes
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
    """Something a person can act on; the text is all there is to say."""


class Server:
    """A running ComfyUI.

    Args:
        url: Such as http://127.0.0.1:8188, with http:// or https://.
        timeout: Seconds without any answer after which the work is given up.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url, self.timeout = url.rstrip("/"), timeout
        self.client = uuid.uuid4().hex

    def get(self, path: str) -> bytes:
        """Body of the answer."""
        return self._ask(urllib.request.Request(self.url + path))

    def post(self, path: str, value: Any) -> Any:
        """The answer to JSON, parsed."""
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
        """Queue a graph, tell on stderr how it goes, and return the outputs by node once it is done."""
        events = self._events()
        next(events)  # connected before the work is queued, so that nothing is missed
        prompt = self.post("/prompt", {"prompt": graph, "client_id": self.client})["prompt_id"]
        for kind, data in events:
            if data.get("prompt_id") not in (None, prompt):
                continue
            if kind == "executing" and data.get("node"):
                tell(f"{title(graph, data.get('display_node') or data['node'])} …")
            elif kind == "progress":
                tell(f"  {data['value']} of {data['max']}", again=data["value"] < data["max"])
            elif kind == "execution_error":
                raise Failed(f"{data.get('node_type')}: {data.get('exception_message', '').strip()}")
            elif kind == "execution_interrupted":
                raise Failed("Somebody cancelled the work.")
            elif kind == "execution_success":
                break
        return self._history(prompt)

    def _history(self, prompt: str) -> dict[str, Any]:
        for _ in range(100):  # written just after the last event
            history = json.loads(self.get(f"/history/{prompt}"))
            if prompt in history:
                return history[prompt]["outputs"]
            time.sleep(0.1)
        raise Failed("The work is done, but ComfyUI has forgotten it.")

    def _ask(self, request: urllib.request.Request) -> bytes:
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise Failed(refusal(error.read(), error.code)) from error
        except OSError as error:
            raise Failed(f"ComfyUI does not answer at {self.url}: {getattr(error, 'reason', error)}") from error

    def _events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """("connected", {}) first, then every event that ComfyUI sends this client (a websocket, RFC 6455)."""
        parts = urllib.parse.urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            channel = socket.create_connection((parts.hostname or "", port), self.timeout)
        except OSError as error:
            raise Failed(f"ComfyUI does not answer at {self.url}: {error}") from error
        if parts.scheme == "https":
            import ssl

            channel = ssl.create_default_context().wrap_socket(channel, server_hostname=parts.hostname)
        with channel, channel.makefile("rwb") as stream:
            key = base64.b64encode(secrets.token_bytes(16)).decode()
            stream.write((f"GET {parts.path}/ws?clientId={self.client} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
                          "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                          f"Sec-WebSocket-Key: {key}\r\n\r\n").encode())
            stream.flush()
            if b" 101 " not in stream.readline():
                raise Failed(f"{self.url} is no ComfyUI: it refuses the websocket.")
            while stream.readline().strip():
                pass
            yield "connected", {}
            while True:
                code, payload = self._frame(stream)
                if code == 9:  # a ping wants its bytes back, masked as all that clients send
                    mask = secrets.token_bytes(4)
                    stream.write(bytes([0x8A, 0x80 | len(payload)]) + mask
                                 + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))
                    stream.flush()
                elif code == 8:
                    raise Failed("ComfyUI closed the connection.")
                elif code == 1:
                    event = json.loads(payload)
                    yield event["type"], event.get("data") or {}

    def _frame(self, stream: Any) -> tuple[int, bytes]:
        """The kind (1 text, 2 bytes, 8 close, 9 ping) and content of the next message."""
        kind, content = 0, b""
        while True:
            try:
                first, second = exactly(stream, 2)
                length = second & 0x7F
                if length >= 126:
                    form, size = (">H", 2) if length == 126 else (">Q", 8)
                    length, = struct.unpack(form, exactly(stream, size))
                content += exactly(stream, length)
            except OSError as error:
                raise Failed(f"No word from ComfyUI in {self.timeout:g} s, or the connection broke: {error}") from error
            kind = first & 0x0F or kind
            if first & 0x80:
                return kind, content


def exactly(stream: Any, count: int) -> bytes:
    """The next `count` bytes."""
    found = stream.read(count)
    if len(found) < count:
        raise ConnectionError("it ended")
    return found


def change(graph: dict[str, Any], setting: str, value: str) -> None:
    """Set one input: `setting` is "node.input", the node by its number or title; the value "random" draws a seed."""
    name, dot, key = setting.rpartition(".")
    found = [node for number, node in graph.items() if name in (number, title(graph, number))]
    if not dot or len(found) != 1:
        raise Failed(f"{name!r} names {len(found)} nodes of the workflow. Use a number or title from: "
                     + ", ".join(f"{number} {title(graph, number)}" for number in graph))
    inputs = found[0]["inputs"]
    if key not in inputs:
        raise Failed(f"{name!r} has no input {key!r}; it has: {', '.join(inputs)}.")
    inputs[key] = secrets.randbelow(2**32) if value == "random" else as_type(value, inputs[key])


def as_type(text: str, old: Any) -> Any:
    """A text in the type of the value that it replaces."""
    if isinstance(old, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def title(graph: dict[str, Any], number: str) -> str:
    """What the editor calls a node."""
    node = graph.get(number, {})
    return node.get("_meta", {}).get("title") or node.get("class_type", number)


def refusal(body: bytes, code: int) -> str:
    """What ComfyUI has against a graph, in one line."""
    try:
        answer = json.loads(body)
        parts = [answer["error"]["message"]]
        parts += [f"{node['class_type']}: {error['message']} ({error['details']})"
                  for node in (answer.get("node_errors") or {}).values() for error in node["errors"]]
        return "; ".join(parts)
    except (ValueError, KeyError, TypeError):
        return f"ComfyUI answers with HTTP status {code}."


def fetch(server: Server, outputs: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """Save the finished pictures, not the previews. Each appears under its name only when it is whole.

    Args:
        name: A name for the first picture instead of its own; a picture of that name is replaced.
    """
    pictures = [image for node in outputs.values() for image in node.get("images", []) if image["type"] == "output"]
    folder.mkdir(parents=True, exist_ok=True)
    saved = []
    for number, image in enumerate(pictures):
        query = urllib.parse.urlencode({key: image[key] for key in ("filename", "subfolder", "type")})
        path = folder / (name if name and number == 0 else image["filename"])
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(server.get(f"/view?{query}"))
        part.replace(path)
        saved.append(path)
    return saved


def tell(text: str, again: bool = False) -> None:
    """Say how it goes: on a terminal in one line that changes, else in plain lines without every single step."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()
    elif not again:
        print(text, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(description="Queue a ComfyUI workflow and fetch its pictures.")
    parser.add_argument("workflow", type=Path, help="a workflow in API form")
    parser.add_argument("--url", default="http://127.0.0.1:8188", help="where ComfyUI listens (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE",
                        help="change an input; NODE is a number or a title, and the value random draws a seed")
    parser.add_argument("--upload", action="append", default=[], metavar="NODE.INPUT=FILE",
                        help="send a picture and use it there")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the pictures (default: here)")
    parser.add_argument("--name", default="", help="file name for the first picture; replaces what has that name")
    parser.add_argument("--timeout", type=float, default=600, help="seconds without an answer before giving up")
    options = parser.parse_args(arguments)
    for text in [*options.set, *options.upload]:
        if "=" not in text:
            parser.error(f"{text!r} has no '='")
    server = Server(options.url, options.timeout)
    try:
        graph = json.loads(options.workflow.read_text(encoding="utf-8"))
        if not isinstance(graph, dict) or not all(isinstance(n, dict) and "class_type" in n for n in graph.values()):
            raise Failed(f"{options.workflow} is no workflow in API form. Export it so from the editor.")
        for setting, _, value in (text.partition("=") for text in options.set):
            change(graph, setting, value)
        for setting, _, file in (text.partition("=") for text in options.upload):
            change(graph, setting, server.upload(Path(file)))
        saved = fetch(server, server.run(graph), options.out, options.name)
    except (Failed, OSError, ValueError) as error:
        sys.stderr.write(f"\n{error}\n" if sys.stderr.isatty() else f"{error}\n")
        return 1
    if not saved:
        sys.stderr.write("The workflow saved no picture. Give it a Save Image node.\n")
        return 1
    print(*saved, sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
