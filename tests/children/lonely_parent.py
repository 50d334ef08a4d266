"""
A process that starts one child as the daemon does, says its number and waits.

To be killed with -9: the child must die with it.
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
        recipe_for(sys.argv[1:], {"TOKEN": "{token}"}),
        url="",
        token="t",
        user_agent="",
        inherited=os.environ,
    )
    child = Child(Launcher(reactor, confinement()), command, Ear(), reactor)
    child.start()
    sys.stdout.write(f"{child.pid}\n")
    sys.stdout.flush()
    reactor.run()


main()
