"""The pictures of a page: chosen while the warehouse is open, drawn when it is closed again."""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.errors import ConfigError
from engine.pages.html import Html, figure
from engine.pictures.picture import Picture
from engine.pictures.render import to_svg
from engine.verbs.drawing import How, Subject, draw
from engine.warehouse.rows import Connection

_PLACE = re.compile(r"<!--picture (\d+)-->")  # no name makes one, because names are escaped


class Gallery:
    """Keeps places on a page for pictures."""

    def __init__(self) -> None:
        self._pictures: list[Picture] = []

    @property
    def count(self) -> int:
        """How many pictures there are."""
        return len(self._pictures)

    def draw(self, connection: Connection, name: str, subjects: Sequence[Subject], how: How) -> Html:
        """Keep a place for a picture; nothing, where there is nothing to draw."""
        try:
            return self.hang(draw(connection, name, subjects, how))
        except ConfigError:
            return Html("")

    def hang(self, picture: Picture) -> Html:
        """Keep a place for a picture that is defined already."""
        self._pictures.append(picture)
        return Html(f"<!--picture {len(self._pictures) - 1}-->")

    def fill(self, body: Html) -> Html:
        """Draw all pictures, each in its place.

        Raises:
            TaskError: one cannot be drawn.
        """
        return Html(_PLACE.sub(lambda place: self._figure(int(place[1])), body))

    def _figure(self, number: int) -> str:
        picture = self._pictures[number]
        return figure(to_svg(picture), picture.title, number)
