"""The command `fjmcp` with everything below it."""

from __future__ import annotations

import click

from fjmcp.cli.keys import keys
from fjmcp.cli.tokens import tokens
from fjmcp.daemon import version


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
    epilog="The daemon itself is started by twistd: twistd fjmcp --help",
)
@click.version_option(version.VERSION, prog_name="fjmcp")
def main() -> None:
    """Look after an fjmcp daemon: its keys, its store, tokens for programs."""


main.add_command(keys)
main.add_command(tokens)
