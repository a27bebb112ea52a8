"""How much report.html shows: the defaults, and the options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable

PICTURED = 200
"""Cases that show their picture, unless told otherwise."""

MEDIA_MEGABYTES = 40.0
"""That these pictures, scans and clips may take in the page."""


def whole(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least ``least``: a negative limit would cut questions off the end."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
        return number

    return read


def add_page_options(parser: argparse.ArgumentParser) -> None:
    """--gallery and --media-megabytes."""
    parser.add_argument(
        "--gallery", type=whole(0), default=PICTURED, help="cases that show their picture in the report"
    )
    parser.add_argument(
        "--media-megabytes", type=float, default=MEDIA_MEGABYTES, help="that pictures may take in the report"
    )
