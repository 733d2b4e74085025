"""`flow.each`: what is run at once, in which order the results are, and what comes of items that fail."""

from __future__ import annotations

import json
import random
from typing import Any

import flows
import pytest
from blobhub_server.workflow.components.contract import ComponentError, Outcome
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.reader import parse
from blobhub_server.workflow.interpreter import Completion, RunStep, StopRequested, TimedOut, Wait
from interpreting import REGISTRY
from port_values import expression
from scale import scaled
from scoping import Played, controls, datas, inside, script

LOST = ComponentError("no", reason="LOST")
RETRY = {"retry": {"maximum_attempts": 2, "initial_interval": "1s"}}


def over(items: Any, *, policy: Any = None, last: bool = False, result: str = "[index, steps.work.n]", **values: Any) -> str:
    """`each` has `work`, whose output is the result with the index; then the end, which gives the results or the error.

    With `last` each item has a scope around `work`, with `clean` as its `finally`.
    """
    parts = [
        flows.component("start", "flow.start"),
        flows.component("each", "flow.each", policy=policy, items=items, **values),
    ]
    parts += [flows.component("end", "flow.end"), flows.component("bad", "flow.end")]
    work, done = script("work", item=expression("item")), flows.component("done", "flow.end", value=expression(result))
    ways = ["start.next each", "work.success done", "each.success end", "each.failure bad"]
    if last:
        parts += inside("each", flows.component("try", "flow.try")) + inside("try", work, script("clean"), done)
        ways += ["each.body try", "try.body work", "try.finally clean"]
    else:
        parts += inside("each", work, done)
        ways.append("each.body work")
    return flows.document(parts, controls(*ways) + datas("each.results end.value", "each.error bad.value"))


class Items(Played):
    """A run whose items end in an order of one's own."""

    def works(self) -> dict[Any, RunStep]:
        """The scripts that are run, by their items."""
        return {c.inputs["item"]: c for c in self.pending() if isinstance(c, RunStep) and c.component_id == "work"}

    def finish_item(self, item: Any, result: Any = None) -> None:
        command = self.works()[item]
        made = Outcome(route="success", outputs={"n": item}) if result is None else result
        self.tell(Completion(step=command.step, attempt=command.attempt, result=made))


def test_results_are_in_the_order_of_the_items_whatever_order_they_end_in() -> None:
    run, chance = Items(over([5, 6, 7, 8, 9], concurrency=3)).start(), random.Random(7)
    assert list(run.works()) == [5, 6, 7]
    most = 0
    while works := run.works():
        most = max(most, len(works))
        run.finish_item(chance.choice(list(works)))
    assert (run.state.result, most) == ([[0, 5], [1, 6], [2, 7], [3, 8], [4, 9]], 3)
    run.check()
    (left,) = [r for r in run.records if r.type == "processor.exited" and r.component_id == "each"]
    assert (left.private["outputs"]["failed"], left.private["outputs"]["errors"]) == (0, [])
    assert all("item" not in str(record.private) for record in run.records if record.type == "scope.entered")


def test_ten_items_are_run_at_once_unless_told() -> None:
    assert len(Items(over(list(range(30)))).start().works()) == 10
    assert len(Items(over(list(range(30)), concurrency=1)).start().works()) == 1
    assert len(Items(over(list(range(3)), concurrency=256)).start().works()) == 3


def test_there_may_be_no_item_and_a_number_stands_for_as_many() -> None:
    assert Items(over([])).play().state.result == []
    run = Items(over(0, results="none")).play()
    assert (run.entered, run.state.result) == (["each", "end"], None)
    assert Items(over(3)).play(work=Outcome(route="success", outputs={"n": 1})).state.result == [[0, 1], [1, 1], [2, 1]]


def test_an_item_without_a_result_has_null() -> None:
    parts = [flows.component("start", "flow.start"), flows.component("each", "flow.each", items=["a", "b"])]
    parts += [*inside("each", script("work")), flows.component("end", "flow.end", value=expression("steps.each.results"))]
    run = Played(flows.document(parts, controls("start.next each", "each.body work", "each.success end"))).play()
    assert run.state.result == [None, None]


def test_the_first_failure_ends_all_and_cancels_what_runs() -> None:
    run = Items(over([1, 2, 3, 4, 5], concurrency=3)).start()
    run.finish_item(2)
    run.finish_item(3, LOST)
    assert (run.state.phase, run.state.result["reason"], run.state.result["component_id"]) == ("completed", "LOST", "work")
    ended = {r.public["round"]: r.public.get("error", {}).get("reason") for r in run.records if r.type == "scope.exited"}
    assert ended == {1: None, 2: "LOST", 0: "ITEM_CANCELLED", 3: "ITEM_CANCELLED"}
    assert run.entered.count("work") == 4
    run.check()


def test_all_may_fail_where_failures_are_collected() -> None:
    run = Items(over([1, 2, 3, 4], failures="collect")).start()
    run.finish_item(4, LOST)
    run.finish_item(2, ComponentError("x" * 1000, reason="OTHER"))
    run.finish_item(1)
    run.finish_item(3)
    assert run.state.result == [[0, 1], None, [2, 3], None]
    (left,) = [r for r in run.records if r.type == "processor.exited" and r.component_id == "each"]
    assert left.private["outputs"]["failed"] == 2
    assert left.private["outputs"]["errors"] == [
        {"index": 1, "reason": "OTHER", "message": "x" * 200, "component_id": "work"},
        {"index": 3, "reason": "LOST", "message": "no", "component_id": "work"},
    ]
    run.check()


def test_so_many_may_fail_as_are_tolerated_and_one_more_fails_all() -> None:
    run = Items(over([1, 2, 3, 4], failures=2)).start()
    run.finish_item(1, LOST)
    run.finish_item(3, LOST)
    assert run.state.phase == "running"
    run.finish_item(2, ComponentError("too many", reason="LAST"))
    assert (run.state.phase, run.state.result["reason"]) == ("completed", "LAST")
    assert Items(over(3, failures=3)).play(work=LOST).state.result == [None, None, None]


def test_only_the_first_errors_are_told() -> None:
    run = Items(over(150, failures="collect", concurrency=150)).play(work=LOST)
    (left,) = [r for r in run.records if r.type == "processor.exited" and r.component_id == "each"]
    assert (left.private["outputs"]["failed"], len(left.private["outputs"]["errors"])) == (150, 100)


def test_all_items_are_tried_again_and_nothing_of_the_first_attempt_counts() -> None:
    run = Items(over(["a", "b"], policy=RETRY)).start()
    run.finish_item("a")
    run.finish_item("b", LOST)
    assert run.types[-1] == "processor.retrying"
    (wait,) = run.pending()
    run.now = wait.until
    run.tell(Completion(step=wait.step, attempt=wait.attempt))
    assert list(run.works()) == ["a", "b"]
    run.finish_item("b")
    run.finish_item("a", Outcome(route="success", outputs={"n": "again"}))
    assert run.state.result == [[0, "again"], [1, "b"]]
    run.check()


@pytest.mark.parametrize("last", [False, True])
def test_what_is_last_of_each_item_runs_before_all_of_it_fails(last: bool) -> None:
    run = Items(over([1, 2, 3, 4], concurrency=3, last=last)).start()
    run.finish_item(2, LOST)
    if last:  # The failure goes out of the item's own scope once its `clean` has run.
        assert sorted(run.works()) == [1, 3]
    run.play()
    assert run.state.result["reason"] == "LOST"
    assert run.entered.count("clean") == (3 if last else 0)
    assert run.entered.count("work") == 3


@pytest.mark.parametrize("last", [False, True])
def test_a_timeout_is_for_all_items(last: bool) -> None:
    run = Items(over([1, 2, 3], concurrency=2, last=last, policy={"timeout": "10s"})).start()
    run.now = 8.0
    run.finish_item(1)
    if last:
        (clean,) = [c for c in run.pending() if isinstance(c, RunStep) and c.component_id == "clean"]
        run.tell(Completion(step=clean.step, attempt=1, result=Outcome(route="success")))
    (wait,) = [c for c in run.pending() if isinstance(c, Wait) and c.until is not None]
    assert wait.until == 10.0
    run.now = 10.0
    run.tell(Completion(step=wait.step, attempt=1))
    run.play()
    assert (run.state.result["reason"], run.state.result["message"]) == ("TIMEOUT", "took longer than 10 s")
    assert run.entered.count("clean") == (3 if last else 0)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("how", [StopRequested, TimedOut, lambda: Outcome(route="success", terminal=True)])
def test_an_end_of_all_cancels_the_items_and_runs_what_is_last(how: Any, last: bool) -> None:
    run = Items(over([1, 2, 3, 4, 5], concurrency=3, last=last)).start()
    made = how()
    if isinstance(made, Outcome):
        run.finish_item(2, made)
    else:
        run.tell(made)
    run.play()
    assert run.types[-1] in ("flow.stopped", "flow.error", "flow.exited")
    assert run.entered.count("work") == 3
    assert run.entered.count("clean") == (3 if last else 0)
    assert "bad" not in run.entered


def test_items_see_nothing_of_each_other_and_their_own_joins() -> None:
    parts = [flows.component("start", "flow.start"), flows.component("each", "flow.each", items=["a", "b", "c"])]
    parts += [flows.component("end", "flow.end", value=expression("steps.each.results"))]
    one = flows.component("one", "logic.expression", expression="item + default(steps.two.result, '')")
    two = flows.component("two", "logic.expression", expression="item + 'x'")
    seen = flows.component("seen", "flow.end", value=expression("steps.one.result + steps.two.result"))
    parts += inside("each", one, two, flows.component("both", "flow.join"), seen)
    ways = ("each.body one", "each.body two", "one.success both", "two.success both", "both.next seen", "each.success end")
    run = Played(flows.document(parts, controls("start.next each", *ways))).play()
    assert run.state.result == ["aax", "bbx", "ccx"]


def test_each_within_each_has_its_own_item() -> None:
    parts = [
        flows.component("start", "flow.start"),
        flows.component("end", "flow.end", value=expression("steps.outer.results")),
    ]
    parts += [flows.component("outer", "flow.each", items=[[1, 2], [], [3]])]
    parts += inside("outer", flows.component("inner", "flow.each", items=expression("item")))
    parts += inside("outer", flows.component("row", "flow.end", value=expression("steps.inner.results")))
    parts += inside("inner", flows.component("cell", "flow.end", value=expression("[steps.outer.index, index, item * 10]")))
    ways = ("start.next outer", "outer.body inner", "inner.body cell", "inner.success row", "outer.success end")
    document = flows.document(parts, controls(*ways))
    assert check(parse(document.encode()), REGISTRY) == []
    assert Played(document).play().state.result == [[[0, 0, 10], [0, 1, 20]], [], [[2, 0, 30]]]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ("x" * 300_000, "more than 1048576 bytes as JSON together"),
        ([0] * 4_000, "more than 10000 items in lists and objects together"),
        (None, "nests as deep as a value may"),
    ],
)
def test_results_beyond_a_value_fail_it_when_they_come(made: Any, why: str) -> None:
    for _ in range(24 if made is None else 0):
        made = [made]
    run = Items(over(10, concurrency=1, result="steps.work.n")).play(work=Outcome(route="success", outputs={"n": made}))
    assert run.state.result["reason"] == "RESULT_LIMIT"
    assert why in run.state.result["message"]
    assert run.entered.count("work") < 10
    run = Items(over(10, result="steps.work.n", results="none"))
    assert run.play(work=Outcome(route="success", outputs={"n": made})).state.phase == "completed"


def test_memory_is_that_of_items_under_way_and_results() -> None:
    count = scaled(2_000, least=100)
    run, sizes = Items(over([str(n) * 20 for n in range(count)], concurrency=5, results="none")).start(), []
    while works := list(run.works()):
        sizes.append(run.state.holdings.bytes)
        run.finish_item(works[0])
        assert len(run.state.activations) <= 6
    assert max(sizes) < sizes[0] * 1.2
    run = Items(over([1, 2, 3], concurrency=1, result="'y' * 1000")).start()
    before = run.state.holdings.bytes
    run.finish_item(1)
    assert run.state.holdings.bytes - before > 900
    run.finish_item(2, LOST)
    assert run.state.ended


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"items": "many"}, "'items' must be a list, or a number of items from 0 to 100000"),
        ({"items": 100_001}, "'items' must be a list, or a number of items from 0 to 100000"),
        ({"items": True}, "'items' must be a list, or a number of items from 0 to 100000"),
        ({"items": 10_001}, "'items' are more than a list of results has, which is 10000: set `results` to `none`"),
        ({"items": [], "concurrency": 0}, "'concurrency' must be an integer from 1 to 256"),
        ({"items": [], "concurrency": 257}, "'concurrency' must be an integer from 1 to 256"),
        ({"items": [], "failures": "some"}, "'failures' must be `fail_fast`, `collect` or a number from 0 to 100000"),
        ({"items": [], "failures": -1}, "'failures' must be `fail_fast`, `collect` or a number from 0 to 100000"),
        ({"items": [], "results": "all"}, "'results' must be `list` or `none`"),
    ],
)
def test_check_tells_what_is_wrong_at_the_value(values: dict[str, Any], message: str) -> None:
    problem = next(p for p in check(parse(over(**values).encode()), REGISTRY) if p.component_id == "each")
    place = list(values).index(message.split("'")[1])
    assert (problem.message, problem.path) == (message, f"components[1].ports[{place}].value")


@pytest.mark.parametrize("given", [{"items": "x"}, {"items": 20_000}, {"concurrency": 0}, {"failures": "x"}])
def test_what_comes_at_run_time_is_looked_at_as_well(given: dict[str, Any]) -> None:
    values = {"items": [1]} | {name: expression(repr(value)) for name, value in given.items()}
    run = Items(over(**values)).play()
    assert run.state.result["reason"] == "INVALID_INPUT"
    assert f"`{next(iter(given))}`" in run.state.result["message"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item", "there is `item` inside of a `flow.each` alone"),
        ("index", "there is `index` inside of a `flow.each` or a `flow.loop` alone"),
        ("steps.each.item", "`each` gives the output `item` inside alone"),
    ],
)
def test_what_an_item_is_given_is_not_seen_outside_of_it(text: str, message: str) -> None:
    whole = json.loads(over([1]))
    for told, of in ((message, text), (None, "steps.each.results"), (None, "steps.each.failed")):
        parts = [*whole["components"], flows.component("more", "logic.expression", expression=of)]
        found = check(parse(flows.document(parts, whole["connections"]).encode()), REGISTRY)
        assert [p.message for p in found if p.type.value == "UNKNOWN_NAME"] == ([told] if told else [])
