"""Tests for `fjmcp.children.profiles`."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp.children.profiles import (
    FORGEJO_MCP,
    GITEA_MCP,
    OTHER,
    Command,
    Recipe,
    command_for,
    recipe_for,
)


def filled(recipe: Recipe, inherited: dict[str, str] | None = None) -> Command:
    """The recipe's command for one forge and token."""
    return command_for(
        recipe,
        url="https://forge.example",
        token="secret-token",
        user_agent="fjmcp/1.2",
        inherited=inherited or {},
    )


class RecipeTests(SynchronousTestCase):
    """What the operator configured."""

    def test_name_tells_the_kind(self) -> None:
        """The base name of the program says which child it is."""
        self.assertIs(recipe_for(["/opt/bin/forgejo-mcp"]).kind, FORGEJO_MCP)
        self.assertIs(recipe_for(["gitea-mcp", "serve"]).kind, GITEA_MCP)
        self.assertIs(recipe_for(["uvx", "gitea-mcp"]).kind, OTHER)

    def test_relative_path_is_taken_from_here(self) -> None:
        """Children run elsewhere, so a relative path is made absolute; a bare name stays."""
        self.assertEqual(
            recipe_for(["bin/forgejo-mcp"]).program, os.path.abspath("bin/forgejo-mcp")
        )
        self.assertEqual(recipe_for(["forgejo-mcp"]).program, "forgejo-mcp")

    def test_good_recipes_have_no_problems(self) -> None:
        """A known child needs nothing; another one needs to be told where the token goes."""
        self.assertEqual(recipe_for(["forgejo-mcp"]).problems(), [])
        self.assertEqual(recipe_for(["other", "--url={url}"], {"T": "{token}"}).problems(), [])

    def test_problems_are_told_together(self) -> None:
        """All that is wrong is said at once, each naming its place."""
        found = recipe_for(
            ["other", "{tokn}"], {"1X": "a", "FORGEJO_MCP_ALLOW_FILE_PATH_UPLOAD": "1"}
        ).problems()
        self.assertEqual(len(found), 4, found)
        self.assertIn("{tokn}", found[0])
        self.assertIn("1X", found[1])
        self.assertIn("upload files", found[2])
        self.assertIn("no token", found[3])

    def test_empty_command(self) -> None:
        """An empty command is a problem, not a crash."""
        self.assertEqual(len(recipe_for([]).problems()), 1)

    def test_token_in_argv_is_known(self) -> None:
        """A recipe knows when it would show the token to every user of the machine."""
        self.assertTrue(recipe_for(["x", "--token={token}"]).token_in_argv)
        self.assertFalse(recipe_for(["x"], {"T": "{token}"}).token_in_argv)


class CommandTests(SynchronousTestCase):
    """A recipe filled in."""

    def test_environment_is_built_from_nothing(self) -> None:
        """Of our own environment a child sees five variables and nothing else."""
        command = filled(
            recipe_for(["forgejo-mcp"]),
            {
                "PATH": "/bin",
                "SSL_CERT_FILE": "/c.pem",
                "FJMCP_KEYS": "k",
                "HOME": "/root",
                "TZ": "",
                "FORGEJO_MCP_ALLOW_FILE_PATH_UPLOAD": "1",
            },
        )
        self.assertEqual(
            command.env,
            {
                "PATH": "/bin",
                "HOME": "/nonexistent",
                "SSL_CERT_FILE": "/c.pem",
                "FORGEJO_URL": "https://forge.example",
                "FORGEJO_ACCESS_TOKEN": "secret-token",
                "FORGEJO_USER_AGENT": "fjmcp/1.2",
            },
        )

    def test_path_is_never_missing(self) -> None:
        """A daemon without PATH still gives its children one."""
        self.assertIn("/usr/bin", filled(recipe_for(["gitea-mcp"])).env["PATH"])

    def test_templates_are_filled(self) -> None:
        """Arguments and variables of the operator get URL, token and user agent."""
        command = filled(
            recipe_for(
                ["x", "--at={url}", "{unknown}"], {"T": "Bearer {token}", "UA": "{user_agent}"}
            )
        )
        self.assertEqual(command.argv, ("x", "--at=https://forge.example", "{unknown}"))
        self.assertEqual(command.env["T"], "Bearer secret-token")
        self.assertEqual(command.env["UA"], "fjmcp/1.2")

    def test_operator_overrides_the_kind(self) -> None:
        """A variable that the operator names wins over the kind's."""
        command = filled(recipe_for(["forgejo-mcp"], {"FORGEJO_USER_AGENT": "mine"}))
        self.assertEqual(command.env["FORGEJO_USER_AGENT"], "mine")

    def test_repr_has_no_secret(self) -> None:
        """Neither token, environment nor arguments are in a command's repr."""
        command = filled(recipe_for(["x", "--token={token}"], {"T": "{token}"}))
        self.assertNotIn("secret-token", repr(command))

    @given(st.text(alphabet="{}urltoken_ag", max_size=40))
    def test_values_are_not_filled_again(self, token: str) -> None:
        """A token that looks like a placeholder stays as it is."""
        command = command_for(
            recipe_for(["x"], {"T": "<{token}>"}),
            url="u",
            token=token,
            user_agent="a",
            inherited={},
        )
        self.assertEqual(command.env["T"], f"<{token}>")
