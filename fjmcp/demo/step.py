"""One step of setting up: a program that runs, with a word now and then while it works."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Final

_STEP_SECONDS: Final = 240.0
_WORD_SECONDS: Final = 10.0
"""A step that takes longer says so that often."""

Say = Callable[[str], None]


def run(command: list[str], environment: dict[str, str], doing: str, say: Say) -> str | None:
    """Run a step; None if it worked, else the last line of what it printed."""
    began = time.monotonic()
    step = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    printed = ""
    while True:
        try:
            printed, _ = step.communicate(timeout=_WORD_SECONDS)
            break
        except subprocess.TimeoutExpired:
            taken = time.monotonic() - began
            say(f"still {doing}, {taken:.0f} s")
            if taken > _STEP_SECONDS:
                step.kill()
                step.communicate()
                return f"it took longer than {_STEP_SECONDS:.0f} s"
    if step.returncode == 0:
        return None
    lines = [line for line in printed.splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit code {step.returncode}"
