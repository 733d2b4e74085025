"""The page of the contract has every method, with what it is refused with. `make check` holds it to what is generated."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from methods import Method, served_methods

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "contract.md").read_text()
SECTIONS = {
    (service, name): text
    for service, methods in re.findall(r"^### (\w+)\n(.*?)(?=^###? |\Z)", PAGE, re.M | re.S)
    for name, text in re.findall(r"^#### (\w+)\n(.*?)(?=^#### |\Z)", methods, re.M | re.S)
}


def key(method: Method) -> tuple[str, str]:
    service, _, name = method.path.rpartition("/")
    return service.rpartition(".")[2], name


def test_the_page_has_the_methods_that_there_are() -> None:
    assert SECTIONS.keys() == {key(method) for method in served_methods()}


@pytest.mark.parametrize("method", served_methods(), ids=lambda method: method.path)
def test_a_method_is_there_with_purpose_kind_callers_and_refusals(method: Method) -> None:
    text = SECTIONS[key(method)]
    assert text.strip().splitlines()[0].endswith(".")
    assert ("changes something" in text) == method.changes
    assert ("takes a `request_id`" in text) == ("request_id" in method.input.fields_by_name)
    assert ("a stream of answers" in text) == method.server_streaming
    for rule in (method.access, *method.access.also):
        assert f"`{rule.field}`" in text.partition("Who may call: ")[2].partition("\n")[0] or not rule.field
    listed = re.findall(r"^ ?\* ([A-Z_]+): ", method.comment, re.M)
    assert re.findall(r"^  \* ([A-Z_]+): .", text, re.M) == listed
