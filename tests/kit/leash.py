"""Run a Python script that ends with the process that started it, however that ends: a killed test worker, say.

    process = subprocess.Popen([sys.executable, leash.__file__, "main.py", *arguments], stdin=subprocess.PIPE)

The script's standard input is a pipe whose other end only the parent holds. The system closes that end with the
parent, on every platform, and a thread that waits for it then ends the script.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from pathlib import Path

EXIT_CODE = 75
"""Of a script whose parent is gone."""


def _exit_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(EXIT_CODE)


if __name__ == "__main__":
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    sys.argv = sys.argv[1:]
    # As `python script` has it: the script's own folder first.
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
