"""Numbers and pixels of a data set that stay undecoded, and the decoding of everything else before it is looked at."""

from __future__ import annotations

import re

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from medvlm.data_recipes.deidentification.basic_profile import action_of

_BINARY = ("FD", "FL", "SS", "US", "SL", "UL", "SV", "UV", "AT", "OB", "OW", "OF", "OD", "OL", "OV")
_NUMBERS = re.compile(rb"[-+0-9.eE\\ \[\],'\0]*")


def parse(dataset: Dataset) -> None:
    """Decode what will be looked at, so that a damaged attribute shows here and not within our own steps."""
    for tag in list(dataset.keys()):
        if tag.group < 4:
            del dataset[tag]  # command and file meta elements have no place in a data set (PS3.10 7)
        elif is_number(dataset, tag):
            if dataset.get_item(tag).VR is None:
                dataset[tag]  # implicit VR: another transfer syntax may ask for it
        else:
            element = dataset[tag]
            for item in element.value or () if element.VR == "SQ" else ():
                parse(item)


def is_number(dataset: Dataset, tag: BaseTag) -> bool:
    """Whether an attribute is not in the table and holds numbers or pixels, told without decoding it."""
    if tag.is_private or action_of(tag) is not None or tag.group & 0xFF00 in (0x5000, 0x6000):
        return False
    raw = dataset.get_item(tag)
    vr = raw.VR if raw is not None and raw.VR else dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"
    if vr in ("DS", "IS"):
        value = raw.value if raw is not None else None
        text = value if isinstance(value, bytes) else str(value or "").encode()
        return _NUMBERS.fullmatch(text) is not None
    return vr in _BINARY or " or " in vr
