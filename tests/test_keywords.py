"""Template values: what WeChat takes passes as it is, what it refuses is named or cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanoutd import keywords
from fanoutd.keywords import Empty, Misfit, fit

HAN = "供求信息平台"


@pytest.mark.parametrize(("key", "value"), [
    ("thing1", "求购香樟100棵, ok!"), ("thing12", "供" * 20), ("thing1", "😀" * 20), ("thing1", " "),
    ("number2", "9" * 32), ("number2", "-3.14"), ("number2", "1,000"), ("number2", "１２３"),
    ("letter3", "ABCdef"), ("letter3", "a" * 32), ("letter3", "Jean-Luc P."),
    ("symbol4", "+-*/%"), ("symbol4", "￥！"),
    ("character_string5", "SN-2026/01#a b"), ("character_string5", "x" * 32), ("character_string5", "“ok”…"),
    ("time6", "15:01"), ("time6", "2019年10月1日 15:01"), ("time6", "2019年10月1日15:01:59"),
    ("time6", "2022-12-08 16:13:16"), ("time6", "15:01~16:02"), ("time6", "2019年10月1日 ~ 2019年10月7日"),
    ("time6", "2026/1/2 下午3点"), ("time6", "2022-12-08T16:13:16+08:00"), ("date7", "2019年10月1日"),
    ("date7", "2019-10-01"), ("date7", "2019年10月"), ("date7", "2019年10月1日(星期二)"),
    ("amount8", "100"), ("amount8", "¥100.00"), ("amount8", "￥0.5元"), ("amount8", "$9999999999"),
    ("amount8", "999999999999.99元"), ("amount8", "-5.00"), ("amount8", "¥-5"), ("amount8", "1,000.00"),
    ("phone_number9", "+86-0766-66888866"), ("phone_number9", "110"), ("phone_number9", "(0571) 8888 8888"),
    ("car_number10", "粤A8Z888挂"), ("car_number10", "A12345"), ("car_number10", "粤B·12345"),
    ("name11", "王" * 10), ("name11", "x" * 20), ("name11", "Ann O'Neil"), ("name11", "王Ann"),
    ("phrase12", "已发货"), ("phrase12", "供" * 5), ("const13", ""), ("const13", "有货"), ("const13", "x" * 20),
    ("keyword1", ""), ("keyword1", "x" * 500), ("first", "您好\t"), ("short_thing3", "任意 any 1"), ("9", "x"),
])
@pytest.mark.parametrize("cut", [False, True])
def test_what_wechat_takes_is_left_as_it_is(key: str, value: str, cut: bool) -> None:
    assert fit(key, value, cut) == value.replace("\t", " ") if cut else "\t" in value or fit(key, value, cut) == value


@pytest.mark.parametrize(("key", "value", "words"), [
    ("number2", "12个", "a number of up to 32 digits"), ("number2", ".", "a number"), ("number2", "1e5", "a number"),
    ("number2", "9" * 33, "33 characters, WeChat takes 32"),
    ("letter3", "字", "letters, no Chinese"), ("letter3", "a1", "no digits"), ("letter3", "x" * 33, "33 characters"),
    ("symbol4", "a", "5 symbols"), ("symbol4", "供", "5 symbols"), ("symbol4", "......", "6 characters"),
    ("character_string5", "编号1", "no Chinese"), ("character_string5", "〇", "no Chinese"),
    ("time6", "tomorrow", "a time like 15:01"), ("time6", "今天下午", "a time like"), ("time6", "soon 15:01", "a time"),
    ("date7", "供应", "a date like"), ("date7", "年月日", "a date like"),
    ("amount8", "一百元", "an amount like"), ("amount8", "1234567890123", "of up to 12 digits"),
    ("amount8", "100 USD", "an amount"), ("amount8", "元", "an amount"), ("amount8", "¥¥5", "an amount"),
    ("phone_number9", "138转8", "17 digits and symbols"), ("phone_number9", "110x", "no letters"),
    ("car_number10", "粤香A888", "only as the first"), ("car_number10", "粤A12345678", "10 characters"),
    ("phrase12", "ok", "5 Chinese characters"), ("phrase12", "已发货!", "nothing else"),
    ("phrase12", HAN, "6 characters, WeChat takes 5"),
])
@pytest.mark.parametrize("cut", [False, True])
def test_what_no_cut_can_mend_is_refused_with_what_is_right(key: str, value: str, words: str, cut: bool) -> None:
    with pytest.raises(Misfit) as error:
        fit(key, value, cut)
    assert words in str(error.value)
    assert len(value) < 4 or value not in str(error.value)  # it may be somebody's number


@pytest.mark.parametrize("key", sorted(set(keywords.RULES) - {"const"}))
@pytest.mark.parametrize("cut", [False, True])
def test_nothing_is_a_value_of_no_type_but_const(key: str, cut: bool) -> None:
    with pytest.raises(Empty, match=f"is empty; WeChat takes {keywords.RULES[key].words[:10]}"):
        fit(f"{key}1", "", cut)


@pytest.mark.parametrize(("key", "value", "cut"), [
    ("thing1", "供" * 21, "供" * 19 + "…"), ("const2", "x" * 30, "x" * 19 + "…"), ("name3", "王" * 11, "王" * 9 + "…"),
    ("name3", "x" * 21, "x" * 19 + "…"), ("name3", "x" * 10 + "王", "x" * 9 + "…"),
    ("character_string4", "x" * 33, "x" * 29 + "..."),
    ("phone_number5", "13800000000/13900000000", "13800000000/13..."),
])
def test_what_is_too_long_is_cut_where_its_type_allows_an_ending(key: str, value: str, cut: str) -> None:
    assert fit(key, value, cut=True) == cut
    assert fit(key, cut, cut=False) == cut  # what is left is itself good
    with pytest.raises(Misfit, match=f"{len(value)} characters, WeChat takes {len(cut)}"):
        fit(key, value, cut=False)


@given(st.sampled_from([*keywords.RULES, "keyword"]), st.text(), st.booleans())
def test_what_passed_passes_again_unchanged_and_has_no_line_break(key: str, value: str, cut: bool) -> None:
    try:
        once = fit(key, value, cut)
    except Misfit:
        return
    assert fit(key, once, cut=False) == once
    assert not any(each in once for each in "\r\n\t\0\u2028")
    most = keywords.RULES[key].most(once) if key in keywords.RULES else None
    assert most is None or len(once) <= most


@pytest.mark.parametrize("key", sorted(keywords.RULES))
def test_a_value_of_any_length_is_judged_at_once(key: str) -> None:
    for value in ("1" * 100_000 + "x", ".," * 50_000, "供" * 100_000, "~" * 100_000 + "\0", " " * 100_000):
        began = time.process_time()
        try:
            fit(key, value, cut=True)
        except Misfit:
            pass
        assert time.process_time() - began < 0.5
