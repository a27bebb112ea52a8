"""How a picture is turned so that a person sees the patient upright, and a box with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medvlm.model.geometry import OPPOSITE


@dataclass(frozen=True, kw_only=True)
class Turning:
    """First the axes are exchanged, then each is reversed.

    Attributes:
        exchange: rows become columns.
        flip_rows, flip_columns: of what ``exchange`` left.
        orientation: of the turned picture, where its rows and its columns run to; None when it is unknown.
    """

    exchange: bool = False
    flip_rows: bool = False
    flip_columns: bool = False
    orientation: str | None = None

    def pixels(self, array: np.ndarray) -> np.ndarray:
        """(H, W, C), turned."""
        array = array.transpose(1, 0, 2) if self.exchange else array
        return array[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def spacing(self, spacing: tuple[float, float]) -> tuple[float, float]:
        """(row, column) millimetres of the turned picture."""
        return (spacing[1], spacing[0]) if self.exchange else spacing

    def box(self, low: tuple[float, ...], high: tuple[float, ...]) -> tuple[tuple[float, float], tuple[float, float]]:
        """First and last corner, (x, y) in fractions of the turned picture, of a box in fractions of the stored one."""
        (x1, y1), (x2, y2) = (low[:2], high[:2]) if not self.exchange else (low[1::-1], high[1::-1])
        if self.flip_columns:
            x1, x2 = 1 - x2, 1 - x1
        if self.flip_rows:
            y1, y2 = 1 - y2, 1 - y1
        return (x1, y1), (x2, y2)


def upright(orientation: str | None) -> Turning:
    """The turning after which rows run to I or P, and columns to L, or to P in a lateral view.

    Args:
        orientation: two letters, where rows and columns run to; None (or another number of letters) turns nothing.
    """
    if orientation is None or len(orientation) != 2:
        return Turning()
    rows, columns = orientation[0], orientation[1]
    # The head is up, and in an axial picture the front is: whichever axis says so runs down.
    exchange = columns in "SI" or (columns in "AP" and rows in "RL")
    if exchange:
        rows, columns = columns, rows
    flip_rows, flip_columns = rows in "SA", columns in "RA"
    rows = OPPOSITE[rows] if flip_rows else rows
    columns = OPPOSITE[columns] if flip_columns else columns
    return Turning(exchange=exchange, flip_rows=flip_rows, flip_columns=flip_columns, orientation=rows + columns)
