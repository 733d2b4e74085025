"""Components of others plug in by their entry points, and pass the public suite; so do those that come with BlobHub."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import EntryPoint, entry_points
from types import SimpleNamespace
from typing import Any

import pytest
import word_components
from blobhub_server.workflow.components import registry
from blobhub_server.workflow.components.contract import ComponentKind, Outcome, PureComponent, Services
from blobhub_server.workflow.components.registry import BrokenComponent, ComponentRegistry, DuplicateComponent
from blobhub_server.workflow.conformance import ComponentConformance, Example
from served import Served, served

pytestmark = pytest.mark.either_database

INSTALLED = {
    "METADATA": "Metadata-Version: 2.4\nName: word-components\nVersion: 1.0\n",
    "entry_points.txt": "[blobhub.components]\nwords.count = word_components:Count\nwords.send = word_components:Send\n",
}
"""What an installer leaves of a distribution beside its module."""


@pytest.fixture(scope="module", autouse=True)
def word_components_installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The distribution of a stranger is installed. The rest of the run looks up once what is installed."""
    folder = tmp_path_factory.mktemp("site-packages")
    info = folder / "word_components-1.0.dist-info"
    info.mkdir()
    for name, text in INSTALLED.items():
        (info / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        patch.setattr(registry, "entry_points", entry_points)
        yield


@pytest.fixture(scope="module")
async def conformance_server(
    word_components_installed: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """One server for all of the suite."""
    folder = tmp_path_factory.mktemp("kit")
    async with served(folder, f"sqlite:///{folder / 'blobhub.db'}") as made:
        yield made


@pytest.fixture
def blobhub_address(conformance_server: Served) -> str:
    return conformance_server.address


@pytest.fixture
def blobhub_admin_key(conformance_server: Served) -> str:
    return conformance_server.admin_key


class TestCount(ComponentConformance):
    """A stranger's that is evaluated in place."""

    component = "words.count"
    examples = (
        Example(inputs={"text": "one three"}, outputs={"count": 2, "longest": "three"}),
        Example(inputs={"text": {"type": "text", "text": " "}}, route="empty", outputs={"count": 0}),
        Example(inputs={"text": [1]}, reason="INVALID_INPUT"),
    )


class TestSend(ComponentConformance):
    """A stranger's with an effect."""

    component = "words.send"
    examples = (Example(inputs={"text": "hi"}, outputs={"sent": "hi"}), Example(inputs={"text": 1}, reason="INVALID_INPUT"))

    @property
    def services(self) -> Services:
        """It asks for none."""
        return Services(scripts=None, outside=None, secrets=None)  # type: ignore[arg-type]

    async def count_effects(self, idempotency_key: str) -> int:
        return word_components.Send.sent[idempotency_key]


class TestExpression(ComponentConformance):
    """Any inputs, and expressions."""

    component = "logic.expression"
    examples = (
        Example(inputs={"expression": "a + 1", "a": 1}, outputs={"result": 2}),
        Example(inputs={"expression": "1 // 0"}, reason="EXPRESSION_ERROR"),
    )


class TestSwitch(ComponentConformance):
    """Routes that its values name."""

    component = "flow.switch"
    examples = (Example(inputs={"cases": [{"route": "big", "when": "n > 1"}], "n": 2}, route="big"),)


class TestDelay(ComponentConformance):
    """What is waited for, in one of two ways."""

    component = "flow.delay"
    examples = (Example(inputs={"seconds": 0.01}, route="next"),)


class TestCode(ComponentConformance):
    """An effect with scripts, routes and outputs of any name."""

    component = "logic.code"
    examples = (
        Example(inputs={"code": "set_data_output('n', inputs.a)\nset_result('odd')", "a": 1}, route="odd", outputs={"n": 1}),
        Example(inputs={"code": "raise ValueError()"}, reason="SCRIPT_ERROR"),
    )


class Wrong(PureComponent):
    """Breaks a promise."""

    type = "words.wrong"
    title = "Wrong"
    ports = word_components.Count.ports
    routes = word_components.Count.routes

    def run(self, inputs: Any) -> Outcome:
        """Count how often it was asked."""
        inputs["text"] = "changed"
        return Outcome(route="success")


def promises(**wrong: Any) -> set[str]:
    """The tests of the suite that a component fails which differs in something, of those that need no server."""
    subject = type("Other", (Wrong,), {"__doc__": "Breaks a promise."} | wrong)()
    suite = type("Suite", (TestCount,), {"subject": subject})()
    failed = set()
    for name in dir(suite):
        if name.startswith("test_it") or name.startswith("test_in_place"):
            if name == "test_its_examples_run_in_workflows":
                continue
            try:
                getattr(suite, name)()
            except Exception:
                failed.add(name.removeprefix("test_"))
    return failed


def right(_self: Any, inputs: Any) -> Outcome:
    return word_components.Count().run(inputs)


@pytest.mark.parametrize(
    ("wrong", "failed"),
    [
        ({"type": "Words"}, {"it_says_what_it_is"}),
        ({"title": ""}, {"it_says_what_it_is"}),
        ({"ports": (*Wrong.ports, Wrong.ports[0])}, {"it_says_what_it_is"}),
        ({"kind": ComponentKind.JOIN}, {"it_is_run_in_place_or_after_a_commit"}),
        ({"ports": Wrong.ports[1:]}, {"it_is_run_in_place_or_after_a_commit"}),
        ({"constants": ("other",)}, {"its_ports_and_routes_belong_together"}),
        ({"problems": lambda self, settings: [("text", settings["text"])]}, {"its_checks_take_whatever_is_set_on_it"}),
        ({"problems": lambda self, settings: [("text", "no")]}, {"its_examples_are_right_by_its_own_checks"}),
        ({"outputs_set": lambda self, settings: frozenset()}, {"its_examples_are_right_by_its_own_checks"}),
        ({"run": Wrong.run}, {"in_place_it_is_a_function_of_its_inputs"}),
        ({"run": lambda self, inputs: Outcome(route="elsewhere")}, {"in_place_it_is_a_function_of_its_inputs"}),
        ({}, set()),
    ],
)
def test_the_suite_tells_what_a_component_breaks(wrong: dict[str, Any], failed: set[str]) -> None:
    found = promises(**{"run": right} | wrong)
    assert failed <= found
    assert failed or not found


def point(value: str, name: str = "words.count", owner: str = "a") -> EntryPoint:
    made = EntryPoint(name, value, registry.GROUP)
    vars(made)["dist"] = SimpleNamespace(name=owner, version="1.0")
    return made


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no_such_module:Count", "words.count, no_such_module:Count of a 1.0, does not load: No module named"),
        ("word_components:PureComponent", "does not load: Can't instantiate abstract class"),
        ("word_components:PortSpec", "does not load"),
        ("collections:Counter", "is no component"),
        ("word_components:Send", "says that its type is words.send"),
    ],
)
def test_what_is_wrong_with_a_component_stops_the_start_and_names_it(value: str, said: str) -> None:
    with pytest.raises(BrokenComponent, match=said):
        ComponentRegistry.load([point(value)])


def test_a_component_of_the_wrong_kind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_components.Count, "kind", ComponentKind.EFFECT)
    with pytest.raises(BrokenComponent, match="is of the kind 'effect', and no EffectComponent"):
        ComponentRegistry.load([point("word_components:Count")])


def test_two_components_of_one_type_name_their_distributions() -> None:
    with pytest.raises(DuplicateComponent, match=r"word_components:Count of a 1.0 and other:Count of b 1.0"):
        ComponentRegistry.load([point("word_components:Count"), point("other:Count", owner="b")])
