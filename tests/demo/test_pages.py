"""What is held against our pages in a real browser: each fault is noticed."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fjmcp.demo.pages import judge, judge_again
from fjmcp.demo.walk import NotAsSaid

LIGHT = {"ground": "rgb(246, 247, 249)", "ink": "rgb(28, 33, 40)"}
DARK = {"ground": "rgb(15, 19, 24)", "ink": "rgb(230, 237, 243)"}


def _seen(page: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    sound = {"wide": 0, "scripts": 0, "buttons": [48.0], **LIGHT}
    return {"console": [], "elsewhere": [], "pages": {"consent": sound | (page or {})}, **more}


class Judgement(SynchronousTestCase):
    """`judge` lets sound pages pass, and nothing else."""

    def test_sound(self) -> None:
        """Sound pages pass in light and dark, on a desktop and a phone."""
        judge(_seen(), "phone-light")
        judge(_seen(DARK), "desktop-dark")

    def test_faults(self) -> None:
        """A console that speaks, a request elsewhere, a script and a bad look are each refused."""
        faults = {
            "console": _seen(console=["error: Refused to load a style"]),
            "asked for": _seen(elsewhere=["https://example.org/font"]),
            "script": _seen({"scripts": 1}),
            "wider": _seen({"wide": 12}),
            "light": _seen(DARK),
            "buttons": _seen({"buttons": [20.0]}),
            "the browser": _seen(failed="still at the sign-in"),
        }
        for words, seen in faults.items():
            with self.assertRaises(NotAsSaid) as refused:
                judge(seen, "phone-light")
            self.assertIn(words, str(refused.exception))

    def test_light_in_the_dark(self) -> None:
        """A page that stays light for a person who wants it dark is refused."""
        with self.assertRaises(NotAsSaid):
            judge(_seen(), "desktop-dark")

    def test_again(self) -> None:
        """A browser that is asked where it need not be, or not where it must, is refused."""
        sound = {
            "loopback": ["consent"],
            "hosted": ["consent"],
            "hosted, again": [],
            "another": ["another"],
        }
        judge_again(_seen(again=sound))
        faults: list[dict[str, list[str]] | None] = [
            None,
            sound | {"loopback": []},
            sound | {"hosted": []},
            sound | {"hosted, again": ["consent"]},
            sound | {"another": []},
            sound | {"another": ["consent"]},
        ]
        for met in faults:
            with self.assertRaises(NotAsSaid):
                judge_again(_seen(again=met))
