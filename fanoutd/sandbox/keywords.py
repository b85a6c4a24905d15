"""Rules for the values of a template's keywords: the letters of a key are its type.

From WeChat's page on sending template messages. It counts the sign of an amount apart and
allows 10 or 12 digits, depending on the page; the sandbox takes 12.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_SYMBOLS = r"!-/:-@\[-`{-~"
_ANY = r"[^\x00-\x1f\x7f]"
_DATE = r"[0-9]{4}(?:年[0-9]{1,2}月[0-9]{1,2}日|-[0-9]{1,2}-[0-9]{1,2})"
_CLOCK = r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?"
_MOMENT = rf"(?:{_DATE}(?: ?{_CLOCK})?|{_CLOCK})"

RULES: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        name: re.compile(rule)
        for name, rule in {
            "thing": rf"{_ANY}{{1,20}}",
            "number": r"-?[0-9]{1,32}(?:\.[0-9]{1,32})?",
            "letter": r"[A-Za-z]{1,32}",
            "symbol": rf"[{_SYMBOLS}]{{1,5}}",
            "character_string": r"[ -~]{1,32}",
            "time": rf"{_MOMENT}(?: ?~ ?{_MOMENT})?",
            "date": rf"{_MOMENT}(?: ?~ ?{_MOMENT})?",
            "amount": r"[¥￥$€£]?[0-9]{1,12}(?:\.[0-9]{1,2})?元?",
            "phone_number": rf"[0-9 {_SYMBOLS}]{{1,17}}",
            "car_number": rf"[{_HAN}A-Za-z0-9](?:[A-Za-z0-9]{{0,6}}[{_HAN}A-Za-z0-9])?",
            "name": rf"[^{_HAN}\x00-\x1f\x7f]{{1,20}}|{_ANY}{{1,10}}",
            "phrase": rf"[{_HAN}]{{1,5}}",
            "const": rf"{_ANY}{{0,20}}",
        }.items()
    }
)

_KEY = re.compile(r"([a-z_]+?)[0-9]*")


def fits(key: str, value: str) -> bool:
    """Whether the value keeps the rule of its key, such as ``thing3``. Other keys want any value."""
    match = _KEY.fullmatch(key)
    rule = RULES.get(match[1]) if match else None
    return rule.fullmatch(value) is not None if rule else bool(value)
