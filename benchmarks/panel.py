"""What the training panel costs the trainer: processor time of its progress by step, at a fast trainer's speed.

    python benchmarks/panel.py [--steps 200] [--pace 20]

Everything counts that happens in ComfyUI's process for the panel: recording the numbers, throttling, the timer threads,
memory readings and the JSON of each message. The peer is the same loop with a progress that does nothing. What is
printed is the difference, as a share of the step.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "tests"), str(ROOT)]


class Server:
    """Stands in for the host's server: encodes every message as it would be sent."""

    sent = size = 0

    def send_sync(self, event: str, data: dict[str, Any]) -> None:
        self.sent += 1
        self.size += len(json.dumps({"type": event, "data": data}))

    def send_progress_text(self, text: str, node: str) -> None:
        self.send_sync("text", {"text": text, "node": node})


def processor_seconds(progress: Any, steps: int, pace: float) -> float:
    """Processor time of this process for `steps` steps that take 1 / `pace` seconds each and compute nothing."""
    before = time.process_time()
    progress.phase("training", steps)
    for step in range(1, steps + 1):
        time.sleep(1 / pace)
        progress.measure({"step": step, "steps": steps, "loss": 0.1 + step % 7 / 100, "lr": 1e-4, "epoch": step / 20,
                         "steps_per_second": pace})
        progress.advance(step, f"step {step}")
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description="What the training panel costs the trainer.")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pace", type=float, default=20, help="steps a second")
    arguments = parser.parse_args()
    from kit.pack import load_pack, pack_module

    with tempfile.TemporaryDirectory() as folder:
        pack = load_pack(Path(folder))
        monitor, sessions = pack_module(pack, "nodes.panel.monitor"), pack_module(pack, "nodes.panel.sessions")
        server = Server()
        pack_module(pack, "nodes.host.web_server")._server = lambda: server
        session = sessions.Session(sessions.Key("p", "4", "w"), can_sample=True)
        quiet = pack_module(pack, "atelier.progress").Progress()
        without = processor_seconds(quiet, arguments.steps, arguments.pace)
        with_panel = processor_seconds(monitor.TrainingProgress(session), arguments.steps, arguments.pace)
    each = (with_panel - without) / arguments.steps
    print(f"{arguments.steps} steps at {arguments.pace:g} a second: {server.sent} messages, "
          f"{server.size / max(1, server.sent):.0f} bytes each; {1e6 * each:.0f} µs of processor time a step, "
          f"{each * arguments.pace:.2%} of it")


if __name__ == "__main__":
    main()
