"""What check says about joins: which can never fire, and which may keep or swallow tokens of other rounds."""

from __future__ import annotations

import flows
import grpc
import pytest
from acme import DRAFT
from blobhub.v1 import definition_pb2
from blobhub_server.blobtypes.conformance import expect_refusal
from blobhub_server.workflow.definitions.check import check
from blobhub_server.workflow.definitions.document import Problem, ProblemType, Severity
from blobhub_server.workflow.definitions.reader import parse
from calling import ask
from interpreting import REGISTRY
from runs import failing
from served import Api
from token_model import Connection, Plan

pytestmark = pytest.mark.either_database

BOTH_ROUTES = "it can never fire: it needs the routes 'success', 'failure' of 'a', which takes 1 of them at most"


def told(plan: Plan | str) -> list[Problem]:
    document = plan if isinstance(plan, str) else plan.document
    return [problem for problem in check(parse(document.encode()), REGISTRY) if problem.type is ProblemType.UNSOUND_JOIN]


def plan(kinds: str, *connections: str) -> Plan:
    """A plan of components, written `name:kind`, after `start`, and of connections, written `source.route target`."""
    named = dict(item.split(":") for item in kinds.split())
    ends = [(*source.split("."), target) for source, target in map(str.split, connections)]
    made = [Connection(id=f"{s}-{r}-{t}", source=s, route=r, target=t) for s, r, t in ends]
    return Plan(kinds={"start": "start"} | named, connections=tuple(made))


NEVER = {
    "both routes of one component": (
        plan("a:script j:all", "start.next a", "a.success j", "a.failure j"),
        BOTH_ROUTES,
    ),
    "both routes of one component that gets one token, with others that get more": (
        plan(
            "a:script b:script j:all",
            "start.next a",
            "start.next b",
            "b.failure b",
            "b.failure j",
            "a.success j",
            "a.failure j",
        ),
        BOTH_ROUTES,
    ),
    "branches of which a switch takes one": (
        plan("sw:switch a:script b:script j:all", "start.next sw", "sw.a a", "sw.default b", "a.success j", "b.success j"),
        "it can never fire: it has 2 connections, and 1 tokens come at most, as a component takes one route",
    ),
    "such branches behind another join": (
        plan(
            "x:script y:script k:all sw:switch a:script b:script j:all",
            *("start.next x", "start.next y", "x.success k", "y.success k", "k.next sw"),
            *("sw.a a", "sw.default b", "a.success j", "b.success j"),
        ),
        "it can never fire: it has 2 connections, and 1 tokens come at most, as a component takes one route",
    ),
    "itself": (
        plan("a:script j:all", "start.next j", "j.next a", "a.success j"),
        "it can never fire: before it has fired nothing comes by the connections 'a-success-j'",
    ),
    "another join that waits for it": (
        plan("j:all k:all", "start.next j", "k.next j", "j.next k"),
        "it can never fire: before it has fired nothing comes by the connections 'k-next-j'",
    ),
    "a component that nothing leads to": (
        plan("a:script b:script j:all", "start.next a", "a.success j", "b.success j"),
        "it can never fire: before it has fired nothing comes by the connections 'b-success-j'",
    ),
}


@pytest.mark.parametrize("what", NEVER)
def test_an_all_join_that_can_never_fire_is_an_error(what: str) -> None:
    made, message = NEVER[what]
    (problem,) = told(made)
    number = list(made.kinds).index("j")
    assert (problem.component_id, problem.path) == ("j", f"components[{number}]")
    assert (problem.message, problem.severity) == (message, Severity.ERROR)


SOUND = {
    "branches that are all taken": plan(
        "a:script b:script j:all", "start.next a", "start.next b", "a.success j", "b.success j"
    ),
    "both routes of a component with two tokens": plan(
        "a:script b:script j:all", "start.next a", "start.next b", "b.success a", "a.success j", "a.failure j"
    ),
    "a branch that is tried again": plan(
        "a:script b:script j:all", "start.next a", "start.next b", "a.success j", "b.success j", "a.failure a"
    ),
    "a loop through the join": plan(
        "f:good a:script b:script j:all again:script",
        *("start.next f", "f.success a", "f.success b", "a.success j", "b.success j", "j.next again", "again.other f"),
    ),
    "a loop through the join of mode first": plan(
        "f:good a:script b:script j:first again:script",
        *("start.next f", "f.success a", "f.success b", "a.success j", "b.success j", "j.next again", "again.other f"),
    ),
    "a loop with a join before another join": plan(
        "f:good a:script b:script k:all again:script g:good c:script d:script j:all",
        *("start.next f", "f.success a", "f.success b", "a.success k", "b.success k", "k.next again", "again.other f"),
        *("again.success g", "g.success c", "g.success d", "c.success j", "d.success j"),
    ),
    "a join that a switch may pass by": plan(
        "sw:switch a:good b:script c:script j:all e:end",
        *("start.next sw", "sw.a e", "sw.default a", "a.success b", "a.success c", "b.success j", "c.success j", "j.next e"),
    ),
}


@pytest.mark.parametrize("what", SOUND)
def test_check_says_nothing_of_a_join_that_works(what: str) -> None:
    assert told(SOUND[what]) == []


def test_an_all_join_that_a_cycle_sends_tokens_to_is_warned_of() -> None:
    made = plan(
        "f:good a:script b:script j:all again:script e:end",
        *("start.next f", "f.success a", "f.success b", "a.success j", "b.success j", "j.next e"),
        *("a.failure again", "b.failure again", "again.success f"),
    )
    (problem,) = told(made)
    assert (problem.component_id, problem.severity) == ("j", Severity.WARNING)
    assert problem.message.endswith("sends it tokens in each round; those of a round that is given up stay")
    assert "'f'" in problem.message


def test_both_routes_of_a_component_in_a_cycle_are_a_warning() -> None:
    made = plan("a:script j:all", "start.next a", "a.success a", "a.success j", "a.failure j")
    (problem,) = told(made)
    assert problem.severity is Severity.WARNING


def test_a_first_join_that_a_cycle_leads_to_and_not_through_is_warned_of() -> None:
    made = plan("a:script b:script j:first", "start.next a", "start.next b", "a.success j", "a.failure a", "b.success j")
    (problem,) = told(made)
    assert (problem.component_id, problem.severity) == ("j", Severity.WARNING)
    assert problem.message == "the cycle of 'a' leads to it and not through it: what comes round is swallowed"


def test_a_join_of_a_definition_with_other_problems_is_looked_at() -> None:
    broken = plan(
        "a:script j:all", "start.next a", "a.success j", "a.failure j", "nobody.next j", "a.success nowhere"
    ).document
    assert [problem.message for problem in told(broken)] == [BOTH_ROUTES]
    assert told(flows.document([flows.component("j", "flow.join")], [flows.control("j", "j")])) == []
    assert told(flows.document([flows.component("j", "no.type")], [])) == []


def test_the_largest_definitions_are_looked_at_in_bounded_work() -> None:
    kinds, connections, before = {"start": "start"}, [], ("start", "next")
    for number in range(480):
        fork, one, other, join = (f"{name}-{number}" for name in ("fork", "one", "other", "join"))
        kinds |= {fork: "good", one: "script", other: "script", join: "all"}
        ways = [(*before, fork), (fork, "success", one), (fork, "success", other)]
        ways += [(one, "success", join), (other, "success", join)]
        connections += [Connection(id=f"{s}-{r}-{t}", source=s, route=r, target=t) for s, r, t in ways]
        before = (join, "next")
    assert told(Plan(kinds=kinds, connections=tuple(connections))) == []


async def test_an_input_whose_join_can_never_fire_is_stored_and_refused_before_it_runs(api: Api) -> None:
    document = failing("join-all-on-both-routes-of-one-component.json")
    session = await api.session(document)
    checked = await ask(api, "CheckDefinition", revision=DRAFT, definition="workflow")
    assert not checked.runnable
    (problem,) = [p for p in checked.problems if p.type == definition_pb2.DEFINITION_PROBLEM_TYPE_UNSOUND_JOIN]
    assert problem.severity == definition_pb2.DEFINITION_PROBLEM_SEVERITY_ERROR
    assert (problem.component_id, problem.message) == ("j", BOTH_ROUTES)
    start = ask(api, "StartExecution", session=session, spec={"definition": "workflow"})
    await expect_refusal(start, grpc.StatusCode.FAILED_PRECONDITION, "DEFINITION_NOT_RUNNABLE")


async def test_an_input_whose_join_keeps_tokens_of_rounds_that_were_given_up_is_warned_of(api: Api) -> None:
    await api.session(failing("join-all-in-a-loop-keeps-old-tokens.json"))
    checked = await ask(api, "CheckDefinition", revision=DRAFT, definition="workflow")
    assert checked.runnable
    warned = [p for p in checked.problems if p.type == definition_pb2.DEFINITION_PROBLEM_TYPE_UNSOUND_JOIN]
    assert [(p.component_id, p.severity) for p in warned] == [("all", definition_pb2.DEFINITION_PROBLEM_SEVERITY_WARNING)]
