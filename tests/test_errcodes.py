"""The table of errcodes: every number that WeChat is known to answer a sender with, and what is decided for each."""

from __future__ import annotations

import pytest

from fanoutd.errcodes import TABLE, Row, Verdict, classify, describe, describe_zh, meaning
from fanoutd.outcome import Progress, State, answered, channel_number, next_channel, row_of

CUSTOM, TEMPLATE, SUBSCRIBE = (channel_number(each) for each in ("custom", "template", "subscribe"))

TOKEN = (40001, 40014, 41001, 42001)
ACCOUNT = (
    40002, 40013, 40125, 40164, 40243, 41002, 41004, 45035, 61004, 89501, 89502, 89503, 89504, 89505, 89506, 89507,
)  # fmt: skip
RETRY = (-1, -1000, 43108, 43117, 45066, 61450)
NEXT_CHANNEL = (45015, 45047, 45087, 48001)
FAILED = (
    40003, 43004, 43019, 43101, 45002, 45072, 45080, 45081, 46004, 47003, 48002, 49003, 50002, 50005,
)  # fmt: skip
STOP_ACCOUNT = (42007, 43106, 43107, 50001, 50004, 61003, 61007)
STOP_CAMPAIGN = (
    *range(40004, 40010), 40031, 40032, 40033, 40035, 40037, 40038, 40097, 40130, 40165, 40166, 40200, 41003,
    *range(41005, 41010), 41028, 41029, 41030, 43001, 43002, 43003, 43100, 43116, *range(44001, 44005),
    45003, 45004, 45005, 45007, 45008, 45012, 45013, 45014, 45040, 45050, 45051, 45065, 45067, 45083, 45084, 45102,
    45103, 45109, 45162, 45168, 47001, 47002, 48003, 48004, 48006, 48008, 48009, *range(61451, 61458),
)  # fmt: skip

EXPECTED = (
    {0: Verdict.SENT, 45011: Verdict.REST, 45009: Verdict.QUOTA, 45028: Verdict.QUOTA}
    | dict.fromkeys(TOKEN, Verdict.TOKEN)
    | dict.fromkeys(ACCOUNT, Verdict.ACCOUNT)
    | dict.fromkeys(RETRY, Verdict.RETRY)
    | dict.fromkeys(NEXT_CHANNEL, Verdict.NEXT_CHANNEL)
    | dict.fromkeys(FAILED, Verdict.FAILED)
    | dict.fromkeys(STOP_ACCOUNT, Verdict.STOP_ACCOUNT)
    | dict.fromkeys(STOP_CAMPAIGN, Verdict.STOP_CAMPAIGN)
)


def test_every_known_number_is_there_with_its_verdict_and_no_other() -> None:
    assert {code: each.verdict for code, each in TABLE.items()} == EXPECTED


@pytest.mark.parametrize("code", sorted(TABLE))
def test_each_has_a_text_in_both_languages(code: int) -> None:
    assert describe(code).isascii() and len(describe(code)) > 5
    assert any("\u4e00" <= character <= "\u9fff" for character in describe_zh(code))
    assert TABLE[code].about in ("", "T", "R", "M", "Q", "A", "W")


@pytest.mark.parametrize("code", [*ACCOUNT, *STOP_ACCOUNT, *STOP_CAMPAIGN, 45087, 48001])
def test_what_stops_a_campaign_says_what_to_do(code: int) -> None:
    assert len(TABLE[code].remedy) > 20


def test_words_for_what_is_no_errcode_of_wechat() -> None:
    assert describe("render") == describe(-2) == "the message could not be rendered for this person"
    assert describe(99999) == describe("nonsense") == "refused, errcode not listed"
    assert describe_zh("render") != describe_zh(99999) != ""


@pytest.mark.parametrize("code", [45015, 45047])
def test_a_window_is_a_matter_of_the_custom_channel_alone(code: int) -> None:
    assert classify(code, "custom") is Verdict.NEXT_CHANNEL
    assert classify(code, "template") is classify(code, "subscribe") is Verdict.FAILED
    after, verdict = answered(Progress(), CUSTOM, code, None, last_channel=True)
    assert (after.state, verdict) == (State.FAILED, Verdict.FAILED)


@pytest.mark.parametrize("code", [45087, 48001])
def test_a_channel_that_the_account_may_not_use_leads_on_or_stops_the_campaign(code: int) -> None:
    after, verdict = answered(Progress(), CUSTOM, code, None, last_channel=False)
    assert verdict is Verdict.NEXT_CHANNEL and next_channel(after, (CUSTOM, TEMPLATE)) == TEMPLATE
    for progress, channel in ((Progress(), CUSTOM), (after, TEMPLATE)):
        last, verdict = answered(progress, channel, code, None, last_channel=True)
        assert (last.state, verdict) == (State.PENDING, Verdict.STOP_CAMPAIGN)
    assert answered(Progress(), TEMPLATE, code, None, last_channel=False)[1] is Verdict.STOP_CAMPAIGN


@pytest.mark.parametrize("code", [*STOP_CAMPAIGN, *STOP_ACCOUNT])
def test_nobody_fails_by_what_is_wrong_for_everyone(code: int) -> None:
    progress = Progress()
    for _ in range(10):  # as often as an operator resumes it
        progress, verdict = answered(progress, TEMPLATE, code, None, last_channel=True)
        assert progress.state is State.PENDING and verdict in (Verdict.STOP_CAMPAIGN, Verdict.STOP_ACCOUNT)
    assert progress.attempts == 10 and progress.tries == 0
    assert answered(progress, TEMPLATE, -1, None, last_channel=True)[1] is Verdict.RETRY


def test_in_doubt_what_stops_the_campaign_leaves_the_person_to_be_sent_to_again() -> None:
    doubtful = Progress(state=State.RESEND, channel=TEMPLATE, attempts=1, since=7)
    after, verdict = answered(doubtful, TEMPLATE, 40037, None, last_channel=True)
    assert (after.state, after.since, verdict) == (State.RESEND, 7, Verdict.STOP_CAMPAIGN)


def test_what_may_be_one_persons_data_fails_that_person_when_messages_differ() -> None:
    after, verdict = answered(Progress(), CUSTOM, 44004, None, last_channel=False, personal=True)
    assert (after.state, verdict) == (State.FAILED, Verdict.FAILED)
    assert row_of(44004, verdict) is Row.CONTENT
    assert answered(Progress(), TEMPLATE, 40037, None, True, personal=True)[1] is Verdict.STOP_CAMPAIGN


def test_too_much_to_one_person_waits_long_and_one_refusal_is_no_verdict_on_a_person() -> None:
    assert meaning(43117).pause >= 60 > meaning(-1).pause == 0
    assert row_of(43101, Verdict.FAILED) is Row.NONE
    assert row_of(-1, Verdict.FAILED) is Row.NONE and row_of(99999, Verdict.FAILED) is Row.UNLISTED
