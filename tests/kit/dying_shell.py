"""`python -m atelier` in several processes, of which one is killed:

    accelerate launch --multi_gpu --num_processes 2 dying_shell.py RANK STEP train train.toml

The process of that rank, which is not the first, is killed after that step.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

    from atelier.shell.main import main
    from atelier.shell.progress import QuietProgress

    rank, last = sys.argv[1:3]

    def measure(self: QuietProgress, values: Mapping[str, float]) -> None:
        if os.environ["RANK"] == rank and values["step"] == int(last):
            os.kill(os.getpid(), signal.SIGKILL)

    QuietProgress.measure = measure
    sys.exit(main(sys.argv[3:]))
