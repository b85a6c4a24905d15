"""How nodes divide a rate: nothing that nodes, stores and clocks do lets them use more than there is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fanoutd.division import CALL, LAST_TERM, MARGIN, TERM, Deed, Holder, Share, divide, thousandths, wanted

ALL = 120 * CALL


def total(parts: dict[str, int]) -> int:
    return sum(parts.values())


@pytest.mark.parametrize("rate", [1, 500, 1000, 5500, 10_000, 119_900, ALL])
def test_a_single_node_has_everything_whatever_it_wants(rate: int) -> None:
    assert divide(rate, {"a": 0}) == divide(rate, {"a": 7 * CALL}) == {"a": rate}


def test_a_busy_node_has_nearly_everything_and_the_idle_ones_enough_to_begin_with() -> None:
    assert divide(ALL, {"a": ALL, "b": 0, "c": 0}) == {"a": 114 * CALL, "b": 3 * CALL, "c": 3 * CALL}
    assert divide(10 * CALL, {"a": 10 * CALL, "b": 0}) == {"a": 10 * CALL, "b": 0}


def test_nodes_that_all_want_more_have_even_parts_and_so_have_those_that_want_nothing() -> None:
    assert divide(ALL, {"a": ALL, "b": ALL, "c": ALL}) == divide(ALL, {"a": 0, "b": 0, "c": 0})
    assert divide(ALL, {"a": ALL, "b": ALL, "c": ALL}) == dict.fromkeys("abc", 40 * CALL)
    assert sorted(divide(10 * CALL, {"a": ALL, "b": ALL, "c": ALL}).values()) == [3 * CALL, 3 * CALL, 4 * CALL]


def test_who_wants_little_leaves_the_rest_to_the_others() -> None:
    assert divide(ALL, {"a": 20 * CALL, "b": ALL}) == {"a": 20 * CALL, "b": 100 * CALL}
    assert divide(ALL, {"a": 20 * CALL, "b": 40 * CALL}) == {"a": 50 * CALL, "b": 70 * CALL}


@pytest.mark.parametrize("rate", [500, 2000])
def test_of_fewer_calls_a_second_than_nodes_each_has_its_turn(rate: int) -> None:
    turns = [divide(rate, {"a": rate, "b": rate, "c": rate}, turn) for turn in range(3)]
    assert all(total(parts) == rate for parts in turns)
    assert all(any(parts[node] for parts in turns) for node in "abc")


def test_what_a_node_wants_follows_what_it_uses_in_steps() -> None:
    assert wanted(ALL, 40 * CALL, 39 * CALL, hungry=False) == ALL
    assert wanted(ALL, 40 * CALL, 0.0, hungry=True) == ALL
    assert wanted(ALL, 40 * CALL, 11 * CALL, hungry=False) == wanted(ALL, 40 * CALL, 13 * CALL, hungry=False)
    assert wanted(ALL, 40 * CALL, 0.0, hungry=False) == 6 * CALL
    assert (thousandths(0.001), thousandths(5.5), thousandths(120)) == (1, 5500, ALL)


#: It is told what is lost while it is done, and gives the next one.
Step = Callable[[str], Any]


@dataclass
class Node:
    """``used``: what its workers may call, good until ``until``; a clock that began anywhere."""

    holder: Holder
    clock: float
    used: int = 0
    until: float = 0.0
    alive: bool = True
    work: Step | None = None
    """The next step of the beat that it is in."""


class Division(RuleBasedStateMachine):
    """Nodes beat in steps, with anything between two of them: other nodes' steps, time, deaths, lost answers."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0
        self.rows: dict[str, Share] = {}
        self.nodes: dict[str, Node] = {}
        self.rates: list[tuple[float, str, int]] = []
        self.lock: str | None = None
        self.late: dict[str, Callable[[], None]] = {}
        self.serial = itertools.count(1000)
        for name in "abc":
            self.start(name, ALL)
            self._beat(name)

    def now(self, node: Node) -> float:
        return self.at + node.clock

    # ---- what happens

    @rule(name=st.sampled_from("abc"), rate=st.sampled_from([500, 5000, ALL, ALL, ALL]))
    def start(self, name: str, rate: int) -> None:
        """Or start anew, under the name and with the bucket that it had: a new process, another configuration."""
        had = self.nodes.get(name)
        new = Node(Holder(name, rate), had.clock if had else 1e6 * ord(name))
        if had:
            new.used, new.until = had.used, had.until
        if self.lock == name and name not in self.late:  # the process died: its transaction is undone
            self.lock = None
        self.nodes[name] = new
        self.rates.append((self.at, name, rate))

    @rule(seconds=st.sampled_from([0.1, 1.0, LAST_TERM, TERM + MARGIN]))
    def time_passes(self, seconds: float) -> None:
        self.at += seconds

    @rule(name=st.sampled_from("abc"))
    def dies(self, name: str) -> None:
        """Its workers may go on for as long as they know that they may."""
        self.nodes[name].alive, self.nodes[name].work = False, None
        if self.lock == name and name not in self.late:
            self.lock = None

    @rule(name=st.sampled_from("abc"))
    def ends_in_order(self, name: str) -> None:
        node, mine = self.nodes[name], self.rows.get(name)
        if node.alive and node.work is None and mine:
            node.until = min(node.until, self.now(node) + LAST_TERM)
            self.rows[name] = replace(mine, term=LAST_TERM, beat=mine.beat + 1)
            node.alive = False

    @precondition(lambda self: self.late)
    @rule(data=st.data(), done=st.booleans())
    def a_commit_is_heard_of_late(self, data: st.DataObject, done: bool) -> None:
        """Its node was told that the connection is gone. Until now the transaction had its locks."""
        name = data.draw(st.sampled_from(sorted(self.late)))
        commit = self.late.pop(name)
        if done:
            commit()
        self.lock = None

    @rule(
        name=st.sampled_from("abc"), wants=st.sampled_from([0, ALL]), steps=st.sampled_from([6, 6, 6, 1, 2, 3]),
        lost=st.sampled_from(["", "", "", "commit", "late", "before"]),
    )  # fmt: skip
    def beats(self, name: str, wants: int, steps: int, lost: str) -> None:
        """Some steps of the beat that it is in, or of a new one."""
        node = self.nodes[name]
        node.holder.wants = min(wants, node.holder.rate)
        for _ in range(steps if node.alive else 0):
            node.work = node.work(lost) if node.work else self._confirm(node)
            if node.work is None:
                return

    @rule()
    def all_is_well_for_a_while(self) -> None:
        """Then what there is is used, and the dead hold nothing of it."""
        for commit in self.late.values():
            commit()
        self.late, self.lock = {}, None
        living = {name: node for name, node in self.nodes.items() if node.alive}
        for _ in range(int(TERM + MARGIN) + 4):
            for node in living.values():
                node.work = None
                self._beat(node.holder.node)
            self.at += 1.0
        if living:
            lowest = min(node.holder.rate for node in living.values())
            used = sum(node.used for node in living.values())
            assert self.rows.keys() == living.keys()
            assert lowest - CALL < used <= lowest or lowest < CALL

    # ---- a beat's steps, as dispatcher/parts.py does them

    def _confirm(self, node: Node) -> Step:
        name, at = node.holder.node, self.now(node)
        return lambda _lost: self._tell(node, name, at)

    def _tell(self, node: Node, name: str, at: float) -> Step:
        if name in self.rows:
            mine = self.rows[name]
            self.rows[name] = replace(mine, wants=node.holder.wants, term=TERM, beat=mine.beat + 1)
        return lambda _lost: self._read(node, at, tuple(self.rows.values()))

    def _read(self, node: Node, at: float, shares: tuple[Share, ...]) -> Step:
        node.holder.saw(shares, self.now(node))
        return lambda _lost: self._go_slower(node, at, shares)

    def _go_slower(self, node: Node, at: float, shares: tuple[Share, ...]) -> Step | None:
        turn = int(self.at // 10)
        known = any(each.node == node.holder.node for each in shares)
        node.used = min(node.used, node.holder.keeps(shares, turn)) if known else 0
        node.until = at + TERM if known else 0.0
        began = self.now(node)
        if not node.holder.due(shares, node.used, began, turn):
            return None
        return lambda lost: self._lock(node, began, at if known else began, lost)

    def _lock(self, node: Node, began: float, since: float, lost: str) -> Step | None:
        if lost == "before" or self.lock is not None:
            return None
        name = self.lock = node.holder.node
        deed = node.holder.step(self.rows.values(), node.used, began, int(self.at // 10))
        return lambda lost: self._commit(node, name, deed, since, lost)

    def _commit(self, node: Node, name: str, deed: Deed, since: float, lost: str) -> Step | None:
        if lost == "late":
            self.late[name] = lambda: self._write(node, name, deed)
            return None
        self.lock = None
        if lost == "before" or not self._write(node, name, deed) or lost == "commit":
            return None
        return lambda _lost: self._go_faster(node, deed, since)

    def _write(self, node: Node, name: str, deed: Deed) -> bool:
        if any(self.rows[each.node].beat != each.beat for each in deed.gone):
            return False
        for each in deed.gone:
            del self.rows[each.node]
        mine = self.rows.get(name) or Share(name, 0, 0, 0, TERM, next(self.serial) * 1000)
        self.rows[name] = replace(mine, part=deed.part, rate=node.holder.rate, wants=node.holder.wants)
        return True

    def _go_faster(self, node: Node, deed: Deed, since: float) -> None:
        node.used, node.until = deed.part, since + TERM

    # ---- what holds

    @invariant()
    def together_they_use_no_more_than_any_of_them_was_configured_to(self) -> None:
        """A rate that is changed on one node after the other may be the old one for as long as any has it."""
        allowed = max((node.holder.rate for node in self.nodes.values()), default=0)
        recent = max((rate for at, _, rate in self.rates if at > self.at - 2 * (TERM + MARGIN)), default=0)
        held = max((each.rate for each in self.rows.values()), default=0)
        used = sum(node.used for node in self.nodes.values() if self.now(node) < node.until)
        assert used <= max(allowed, recent, held)

    @invariant()
    def what_is_used_is_held(self) -> None:
        for name, node in self.nodes.items():
            if node.used and self.now(node) < node.until:
                assert name in self.rows and node.used <= self.rows[name].part

    def _beat(self, name: str, lost: str = "", wants: int | None = None) -> Node:
        node, step = self.nodes[name], self._confirm(self.nodes[name])
        node.holder.wants = node.holder.wants if wants is None else wants
        while step is not None:
            step = step(lost)
        return node


def test_a_row_that_a_lost_transaction_may_still_change_permits_nothing() -> None:
    division = Division()
    for name in "abcabc":
        division._beat(name)
    division._beat("b", wants=ALL)
    a = division._beat("a", lost="late", wants=0)
    assert (a.used, division.rows["a"].part) == (3 * CALL, 40 * CALL)
    division._beat("a", wants=ALL)
    assert a.used == 3 * CALL  # 40 stand there, but 3 may be about to
    division.late.pop("a")()
    division.lock = None
    division.what_is_used_is_held()


def test_what_was_granted_without_our_hearing_of_it_is_used_at_the_next_beat() -> None:
    division = Division()
    division._beat("a")
    b = division._beat("b", lost="commit")
    assert (b.used, division.rows["b"].part) == (0, 40 * CALL)
    assert division._beat("b").used == 40 * CALL


Division.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestDivision = Division.TestCase
