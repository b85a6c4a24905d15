"""The conditions that are watched: what each is called, and what people are told when it breaks.

A text is for somebody with half a minute: what is wrong, what it does to campaigns, what to do. The figures of the day
come with the finding (``judge.Finding.words``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Condition:
    """``{of}`` in a text is the account, or the node, that it is about.

    ``threshold`` is its key under ``[health]``, None where there is nothing to measure against. ``shared``: it is the
    whole cluster's, and judged by the node that leads. ``after``: bad looks in a row until it is broken, and good ones
    until it is well; what cannot be an accident of one look needs one.
    """

    name: str
    broken: str
    well: str
    effect: str
    mend: str
    threshold: str | None = None
    shared: bool = False
    after: int = 2


#: The worst first: a mail of several is headed by it.
_ALL = (
    Condition(
        "store", "the store cannot be used", "the store can be used again",
        "Submissions are still taken and kept on disk, but nothing is planned and nothing new is sent: campaigns wait. "
        "Nobody is forgotten and nobody is sent to twice.",
        "See that the database runs and can be reached from this machine, that its user and password are right, and "
        "that its disk is not full. Everything goes on by itself when it is back; `fanoutd doctor` says more.",
    ),
    Condition(
        "api", "account {of}: WeChat's API cannot be reached", "account {of}: WeChat's API can be reached again",
        "Campaigns of this account stand still: people wait as pending, and a probe now and then finds out when the "
        "API is back. The few requests that were on the wire may be unknown.",
        "Look at this machine's network, DNS, firewall and proxy, and at [account.{of}] api_base. It goes on by itself "
        "when the API answers; people who are unknown are listed by `fanoutd campaign show`.",
    ),
    Condition(
        "token", "account {of}: no good access token", "account {of}: the access token is good again",
        "Without a token nothing of this account is sent: its campaigns pause or wait. Nobody has failed for it.",
        "What WeChat said stands above. Compare app_id and secret with WeChat's console, and this machine's address "
        "with its IP whitelist; then `fanoutd token refresh`. Campaigns that paused for it go on by themselves.",
        "token_left", shared=True,
    ),
    Condition(
        "shards", "campaigns run, but nobody is sent to", "campaigns get on again",
        "The campaigns named above get nowhere. Nobody is lost: they go on where they stopped.",
        "Where it waits for its audience, mend what its reason names: the database, or the query. Else "
        "`fanoutd status` shows whether workers are there and busy, the log why not. `fanoutd reload` replaces every "
        "worker without losing anybody; please report it as a bug with the log.",
        "stuck", shared=True,
    ),
    Condition(
        "workers", "processes of the daemon die again and again", "processes of the daemon live again",
        "Each one is replaced and its journal settles what it had in hand, so nobody is lost or doubled; but campaigns "
        "are slow, and what was on the wire may be unknown.",
        "The log says how they ended: killed for memory, a bug with a traceback, a file that cannot be read. After an "
        "upgrade: go back to the version before, and `fanoutd reload`.",
        "restarts",
    ),
    Condition(
        "disk", "the disk is nearly full", "the disk has room again",
        "When it is full no submission can be accepted, and workers that cannot write their journals send to nobody.",
        "Make room: old logs, backups, other programs' files. Leave state_dir alone: journals and spool hold what is "
        "not safe elsewhere yet. [schedule] retention says how long finished campaigns are kept.",
        "disk_left",
    ),
    Condition(
        "memory", "memory is short", "there is enough memory again",
        "The kernel may kill the daemon's processes or the database. Nobody is lost, but what is on the wire then may "
        "be unknown.",
        "See what uses it (`fanoutd status`, `top`); fewer [workers] count or concurrency need less. A worker above "
        "[workers] max_memory is replaced by itself after the work in hand.",
        "memory_left",
    ),
    Condition(
        "quota", "account {of}: today's calls run out", "account {of}: there are calls enough again",
        "When they are used up the account's campaigns wait until WeChat counts anew after midnight in China; other "
        "channels go on.",
        "Nothing, if it may wait until tomorrow. Else pause what is less urgent (`fanoutd campaign pause`), ask WeChat "
        "for more, or raise [account.{of}] daily_limit if that is what ends first.",
        "quota_left", shared=True,
    ),
    Condition(
        "node", "node {of} is gone", "node {of} is back",
        "The other nodes take over what it was sending; what it had claimed and not recorded is unknown until its "
        "journal is read. Lists that lie only there wait for it.",
        "Start it again, on the same state directory: its journal settles the unknowns. One that is never to come back "
        "is forgotten after 7 days.",
        shared=True, after=1,
    ),
    Condition(
        "api_errors", "account {of}: WeChat refuses many calls", "account {of}: WeChat refuses few calls again",
        "People who are refused end as failed or get the next channel; a campaign pauses by itself at [account.{of}] "
        "max_failures.",
        "The errcodes above say what it is about; docs/errors.md and `fanoutd campaign show` say what helps.",
        "api_errors",
    ),
    Condition(
        "store_slow", "the store is slow", "the store is fast again",
        "Campaigns are slower than they could be: nothing is sent that the store has not durably heard of.",
        "Look at the database's load, disk and locks (SHOW PROCESSLIST), and at the network in between.",
        "store_latency",
    ),
    Condition(
        "records_late", "outcomes reach the store late", "outcomes reach the store in time again",
        "What was sent is safe in the journals of this machine, but campaigns show it late, and workers wait: they "
        "claim nobody new until what they sent is recorded.",
        "The same as for a slow store: its load, disk, locks, the network. If the store is well, `fanoutd reload` "
        "replaces the workers without losing anybody.",
        "record_lag",
    ),
    Condition(
        "api_slow", "account {of}: WeChat's API is slow", "account {of}: WeChat's API is fast again",
        "Campaigns of this account take longer; above [account.{of}] timeout answers are missed, and the custom "
        "messages among them are unknown.",
        "Look at this machine's network and at WeChat's own notices. More [workers] concurrency makes up for "
        "slowness, as far as rate allows.",
        "api_latency",
    ),
    Condition(
        "spool", "submissions are not taken up", "submissions are taken up again",
        "They are safe on disk and were answered, but their campaigns have not begun.",
        "The log says why. A full disk, a store in trouble and a dispatcher that dies are the usual reasons.",
        "spool_age",
    ),
    Condition(
        "clock", "this machine's clock is wrong", "this machine's clock is right again",
        "Campaigns begin at a wrong time, and quiet hours, times in messages and the log are wrong by as much.",
        "Run an NTP client here (chrony, systemd-timesyncd), and on the database's machine.",
        "clock_off",
    ),
    Condition(
        "reload", "the last reload was refused", "a reload went well again",
        "The daemon goes on with the configuration and the code that it had; campaigns do not feel it.",
        "Mend what is named above, see that `fanoutd config check` is content, and `fanoutd reload`.",
        after=1,
    ),
)  # fmt: skip

CONDITIONS: Mapping[str, Condition] = {each.name: each for each in _ALL}


@dataclass(frozen=True, slots=True)
class Key:
    """A condition, and the account or the node that it is about; None for those that are about this daemon."""

    name: str
    of: str | None = None

    def __str__(self) -> str:
        return self.name if self.of is None else f"{self.name}:{self.of}"

    @property
    def condition(self) -> Condition:
        return CONDITIONS[self.name]

    @property
    def account(self) -> str | None:
        """For the status: whom it is about, if that is an account."""
        return None if self.name == "node" else self.of

    @property
    def rank(self) -> tuple[int, str]:
        """The worst first."""
        return list(CONDITIONS).index(self.name), self.of or ""

    def say(self, text: str) -> str:
        """One of the condition's texts, about this one."""
        return text.replace("{of}", self.of or "")


def key(text: str) -> Key:
    """The other way round. Raises ValueError for a condition that there is not."""
    name, _, of = text.partition(":")
    if name not in CONDITIONS:
        raise ValueError(f"{name!r} is no condition")
    return Key(name, of or None)
