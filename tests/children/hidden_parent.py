"""
A daemon that hides, and a child of it, as a user that is not root.

    python hidden_parent.py UID PROGRAM ARGUMENT...

Says a line of JSON: the numbers of both processes, what `exposure` says of the
program, and what a third process of that user can read of each environment,
the daemon's before and after it hid.  Then it waits to be killed with -9.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fjmcp.children.exposure import exposure, look
from fjmcp.children.launch import Launcher, confinement
from fjmcp.children.process import Child
from fjmcp.children.profiles import command_for, recipe_for
from fjmcp.daemon.hiding import hide
from tests.children.lonely_parent import Ear


def environ(pid: int) -> str:
    """What a stranger of our user reads there."""
    cat = subprocess.run(
        ["/bin/cat", f"/proc/{pid}/environ"], capture_output=True, text=True, check=False
    )
    return cat.stdout + cat.stderr


def main() -> None:
    # Everything is imported first: the other user may not be able to.
    from twisted.internet import reactor as installed

    reactor: Any = installed
    uid = int(sys.argv[1])
    if os.geteuid() != uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        # Who changes its user is hidden; a daemon that was started so is not.
        import ctypes

        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    before = environ(os.getpid())
    trouble = hide()
    command = command_for(
        recipe_for(sys.argv[2:], {"TOKEN": "{token}"}),
        url="",
        token="the-token",
        user_agent="",
        inherited=os.environ,
    )
    child = Child(Launcher(reactor, confinement()), command, Ear(), reactor)
    child.start()
    assert child.pid is not None
    name = Path(f"/proc/{child.pid}/comm")
    while name.read_text().strip() != Path(sys.argv[2]).name:
        pass
    said = {
        "pids": [os.getpid(), child.pid],
        "trouble": trouble,
        "before": before,
        "daemon": environ(os.getpid()),
        "child": environ(child.pid),
        "exposure": exposure(look(sys.argv[2]), os.geteuid()),
    }
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    reactor.run()


if __name__ == "__main__":
    main()
