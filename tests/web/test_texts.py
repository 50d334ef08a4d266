"""The words of the pages, and how they look."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from string import Formatter
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from fjmcp.web import pages, texts

SENTENCES = {name: text for name, text in vars(texts).items() if name.isupper()}
FOLDER = resources.files("fjmcp.web") / "templates"
TEMPLATES = {
    each.name: each.read_text("utf-8") for each in FOLDER.iterdir() if each.name.endswith(".xml")
}
TEMPLATE = "{http://twistedmatrix.com/ns/twisted.web.template/0.1}"


def words_of(element: ElementTree.Element) -> Iterator[str]:
    """What an element says by itself; what it makes its attributes of says nothing."""
    if element.tag != f"{TEMPLATE}attr":
        yield element.text or ""
        for each in element:
            yield from words_of(each)
            yield each.tail or ""
    yield from (element.get(name, "") for name in ("alt", "title", "placeholder", "aria-label"))


def slots() -> set[str]:
    """Every slot of every template."""
    return {name for text in TEMPLATES.values() for name in re.findall(r'slot name="(\w+)"', text)}


class WordsTests(SynchronousTestCase):
    """Every sentence is in one place."""

    def test_templates_have_none(self) -> None:
        """No template says anything but by its slots."""
        self.assertGreater(len(TEMPLATES), 5)
        for name, text in TEMPLATES.items():
            said = "".join(words_of(ElementTree.fromstring(text)))
            self.assertEqual([each for each in said if each.isalpha()], [], name)

    def test_each_is_used(self) -> None:
        """Each text stands in a template, and each slot in capitals is a text."""
        used = {name for name in slots() if name.isupper()}
        self.assertEqual(used - SENTENCES.keys(), set())
        # What is said in place of a name that is not there is the page's to put in.
        self.assertEqual(SENTENCES.keys() - used, {"NAMELESS"})

    def test_values(self) -> None:
        """What a text has in braces is one of the values that pages know; titles, which have
        no elements, have none."""
        known = {"client", "forge", "host", "uri", "document", "owner", "maker", "posed"}
        known |= {"known", "came", "error", "login"}
        seen: set[str] = set()
        for name, text in SENTENCES.items():
            values = {value for _, value, _, _ in Formatter().parse(text) if value is not None}
            self.assertLessEqual(values, known, name)
            if name.endswith("_TITLE"):
                self.assertEqual(values, set(), name)
            seen |= values
        self.assertEqual(seen, known)

    def test_whole(self) -> None:
        """A text is free of markup, of doubled spaces and of space at its ends."""
        for name, text in SENTENCES.items():
            self.assertIsNone(re.search(r"[<>&]|  |^ | $", text), name)


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, two: str) -> float:
    """The contrast ratio of two colours (WCAG 2.2)."""
    darker, lighter = sorted(map(luminance, (one, two)))
    return (lighter + 0.05) / (darker + 0.05)


class LooksTests(SynchronousTestCase):
    """The style, as far as it can be judged without a browser."""

    STYLE = pages.STYLE.decode()

    def palettes(self) -> tuple[dict[str, str], dict[str, str]]:
        """The colours by day and by night."""
        light, dark = re.findall(r":root \{(.*?)\}", self.STYLE, re.DOTALL)
        day, night = (dict(re.findall(r"--([\w-]+): (#\w{6});", each)) for each in (light, dark))
        return day, night

    def test_contrast(self) -> None:
        """Every text can be read in light and dark: 4.5 to 1 (WCAG 2.2, 1.4.3)."""
        day, night = self.palettes()
        self.assertEqual(day.keys(), night.keys())
        for palette in (day, night):
            for ink, ground in (
                ("ink", "sheet"),
                ("ink", "ground"),
                ("ink", "said"),
                ("soft", "sheet"),
                ("mark", "sheet"),
                ("mark-ink", "mark"),
                ("warn-ink", "warn"),
                ("good-ink", "good"),
                ("alarm-ink", "alarm"),
                ("alarm-ink", "said"),
            ):
                ratio = contrast(palette[ink], palette[ground])
                self.assertGreaterEqual(ratio, 4.5, (ink, ground))

    def test_every_class(self) -> None:
        """Each class that a template names has a style, and each colour is one of the palette."""
        named = {name for text in TEMPLATES.values() for name in re.findall(r'class="(\w+)"', text)}
        self.assertEqual({name for name in named if f".{name}" not in self.STYLE}, set())
        rules = self.STYLE.partition("* { box-sizing")[2]
        self.assertEqual(re.findall(r"#[0-9a-f]{3,6}\b", rules), [])
        used = set(re.findall(r"var\(--([\w-]+)\)", rules))
        self.assertEqual(used, set(self.palettes()[0]))

    def test_buttons(self) -> None:
        """A button is 40 pixels high at least, and shows when the keyboard is on it."""
        rule = self.STYLE.partition("\nbutton {")[2].partition("}")[0]
        (height,) = re.findall(r"min-height: ([\d.]+)rem", rule)
        self.assertGreaterEqual(float(height) * 16, 40)
        self.assertIn("button:focus-visible", self.STYLE)
        self.assertNotIn("outline: none", self.STYLE)

    def test_nothing_from_elsewhere(self) -> None:
        """The style loads nothing."""
        self.assertNotIn("url(", self.STYLE)
        self.assertNotIn("@import", self.STYLE)
