"""
A process that starts children as the daemon does, says their numbers and waits.

    python lonely_parent.py COUNT PROGRAM ARGUMENT...

To be killed with -9: the children must die with it.
"""

import os
import sys
from typing import Any

from fjmcp.children.launch import Launcher, confinement
from fjmcp.children.process import Child, End
from fjmcp.children.profiles import command_for, recipe_for


class Ear:
    def heard(self, line: bytes) -> None:
        pass

    def missed(self) -> None:
        pass

    def ended(self, end: End) -> None:
        pass


def main() -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed
    command = command_for(
        recipe_for(sys.argv[2:], {"TOKEN": "{token}"}),
        url="",
        token="t",
        user_agent="",
        inherited=os.environ,
    )
    launcher = Launcher(reactor, confinement())
    children = [Child(launcher, command, Ear(), reactor) for _ in range(int(sys.argv[1]))]
    for child in children:
        child.start()
    sys.stdout.write(" ".join(str(child.pid) for child in children) + "\n")
    sys.stdout.flush()
    reactor.run()


if __name__ == "__main__":
    main()
