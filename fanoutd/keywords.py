"""Rules for the values of a template's keywords: the letters of a key are its type, "thing1" is a thing.

From WeChat's pages on template and on subscription messages. They contradict each other and say less than WeChat
takes, so a rule here refuses only what no page and no report says to be accepted; types that are not in the table
(``keyword1`` of the old templates, ones to come) take any value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: Template values bear no line breaks or control characters: a break cuts the text off.
_BREAKS = re.compile("\r\n|[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ANY_HAN = re.compile(f"[{_HAN}]")
_PHRASE = re.compile(f"[{_HAN}]+")
_CAR = re.compile(f"[{_HAN}]?[^{_HAN}]*[{_HAN}]?")
_NUMBER = re.compile(r"(?=\D*\d)[+-]?[\d., ]+")
#: A currency sign (any one character that is neither letter nor digit), digits, 元. The sign may stand before or after.
_AMOUNT = re.compile(r"[+-]?[^\w\s.,+-]? ?[+-]?([\d,]+)(?:\.\d+)? ?元?")
#: Of the pages' two numbers, 10 and 12, the larger one.
_AMOUNT_DIGITS = 12
#: Documented are 2019年10月1日, 15:01, both, and two of them joined by ~. Users send dashes, slashes and weekdays too.
_MOMENT = re.compile(r"(?=.*\d)[\d年月日号时点分秒上下中午周星期一二三四五六天至到() （）:：/.~～—–+TZ-]+")


class Misfit(ValueError):
    """A value that WeChat would refuse; the words begin where the field's name ends."""


class Empty(Misfit):
    """There is no value, and WeChat wants one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a type takes, in words and as a test; ``ending`` is what a cut value ends in.

    Without an ending nothing is cut: what is left would be another value. ``limit`` counts characters.
    """

    words: str
    limit: int | None = None
    good: Callable[[str], object] = bool
    ending: str | None = None
    latin_limit: int | None = None
    """The limit of a value without Chinese, where that is another one."""
    may_be_empty: bool = False

    def most(self, text: str) -> int | None:
        """The limit for this text."""
        return self.latin_limit if self.latin_limit and not _ANY_HAN.search(text) else self.limit


def _no_han(text: str) -> bool:
    return not _ANY_HAN.search(text)


def _no_letter(text: str) -> bool:
    return not any(each.isalpha() for each in text)


def _letters(text: str) -> bool:
    return _no_han(text) and not any(each.isdigit() for each in text)


def _symbols(text: str) -> bool:
    return not any(each.isalnum() for each in text)


def _amount(text: str) -> bool:
    match = _AMOUNT.fullmatch(text.strip())
    return match is not None and 0 < sum(each.isdigit() for each in match[1]) <= _AMOUNT_DIGITS


#: In values of digits, letters and symbols "…" would be refused; three dots are symbols.
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "thing": Rule("up to 20 characters", 20, ending="…"),
        "number": Rule("a number of up to 32 digits", 32, _NUMBER.fullmatch),
        "letter": Rule("up to 32 letters, no Chinese and no digits", 32, _letters),
        "symbol": Rule("up to 5 symbols, no letters and no digits", 5, _symbols),
        "character_string": Rule("up to 32 digits, letters and symbols, no Chinese", 32, _no_han, "..."),
        "time": Rule("a time like 15:01 or 2019年10月1日 15:01, or two joined by ~", None, _MOMENT.fullmatch),
        "date": Rule("a date like 2019年10月1日, with or without a time", None, _MOMENT.fullmatch),
        "amount": Rule("an amount like ¥100.00 or 100元, of up to 12 digits", None, _amount),
        "phone_number": Rule("up to 17 digits and symbols, no letters", 17, _no_letter, "..."),
        "car_number": Rule("up to 8 characters, Chinese only as the first and the last", 8, _CAR.fullmatch),
        "name": Rule("up to 10 characters, or 20 without Chinese", 10, ending="…", latin_limit=20),
        "phrase": Rule("up to 5 Chinese characters and nothing else", 5, _PHRASE.fullmatch),
        "const": Rule("one of the template's own values, of up to 20 characters", 20, ending="…", may_be_empty=True),
    }
)


def rule(key: str) -> Rule | None:
    """The rule for a key such as ``thing1``; None for types that take anything."""
    return RULES.get(key.rstrip("0123456789"))


def fit(key: str, text: str, cut: bool) -> str:
    """The value as WeChat takes it. Raises Misfit.

    ``cut``: line breaks become blanks, and what is too long is cut where its type allows that. Otherwise both are
    misfits, as are wrong characters and a missing value always.
    """
    if cut:
        text = _BREAKS.sub(" ", text)
    elif _BREAKS.search(text):
        raise Misfit("has a line break or control character, which WeChat refuses")
    wanted = rule(key)
    return text if wanted is None else _fitted(wanted, text, cut)


def _fitted(wanted: Rule, text: str, cut: bool) -> str:
    if not text:
        if wanted.may_be_empty:
            return text
        raise Empty(f"is empty; WeChat takes {wanted.words}")
    if not wanted.good(text):
        raise Misfit(f"has what WeChat refuses there; it takes {wanted.words}")
    most = wanted.most(text)
    if most is None or len(text) <= most:
        return text
    if not cut or wanted.ending is None:
        raise Misfit(f"{len(text)} characters, WeChat takes {most}: {wanted.words}; shorten the text")
    return text[: most - len(wanted.ending)] + wanted.ending


def good(key: str, text: str) -> bool:
    """Whether the value could stand alone in this field, but for its length."""
    wanted = rule(key)
    return wanted is None or bool(wanted.good(_BREAKS.sub(" ", text)))
