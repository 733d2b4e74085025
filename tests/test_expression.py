"""Expressions: values, names, errors. Modules beside this one show that they agree with Python, and what they may not do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from blobhub_server.blobtypes.expressions import (
    FORMS,
    FUNCTIONS,
    MAX_LENGTH,
    UNITS,
    Absent,
    ExpressionError,
    Fuel,
    InvalidSyntax,
    OutOfFuel,
    TooLarge,
    UnknownName,
    WrongType,
    evaluate,
    parse,
    source,
)

ORDER: dict[str, Any] = {
    "order": {"total": 120.5, "country": "at", "items": [{"price": 2, "count": 3}, {"price": 5, "count": 1}], "note": None},
    "unit": 9_007_199_254_740_993,
    "items": [3, 1, 2],
    "words": "a fine day",
}


def value(text: str, **names: Any) -> Any:
    return evaluate(parse(text), names or ORDER, Fuel())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("order.total * 2 > 100 and order.country in ['de', 'at']", True),
        ("sum([i.price * i.count for i in order.items])", 11),
        ("sum(i.price for i in order.items)", 7),
        ("order['items'][-1]['price']", 5),
        ("items(order)[1]", ["country", "at"]),
        ("[i for i in items if i > 1]", [3, 2]),
        ("{i.price: 1 for i in order.items}", WrongType),
        ("{str(i): i * 2 for i in items}", {"3": 6, "1": 2, "2": 4}),
        ("{**{'a': 1}, 'b': [*items, 4]}", {"a": 1, "b": [3, 1, 2, 4]}),
        ("[k + '=' + str(v) for k, v in items({'a': 1})]", ["a=1"]),
        ("f'{order.total:.2f} of {len(items)} {words!r}'", "120.50 of 3 'a fine day'"),
        ("unit + 1", 9_007_199_254_740_994),
        ("unit * 2 // 2 == unit", True),
        ("2 * 1.5", 3.0),
        ("5 / 2", 2.5),
        ("7 // 2", 3),
        ("-7 % 3", 2),
        ("len('é') + len('😀')", 2),
        ("order.note is None", True),
        ("1 < 2 < 3 != 4", True),
        ("'yes' if items else 'no'", "yes"),
        ("default(order.discount, 0)", 0),
        ("default(order.note, 'none')", None),
        ("default(order.note.text, 'none')", "none"),
        ("default(nobody, 0) + default(items[9], 1)", 1),
        ("has(order.total), has(order.discount), has(nobody.x), has(order.note)", [True, False, False, True]),
        ("has([nobody for items in items]) or items == [3, 1, 2]", True),
        ("sorted(items, reverse=True)[:2]", [3, 2]),
        ("max([], default=7) + min(3, 4)", 10),
        ("round(2.675, 2)", 2.67),
        ("upper(words[2:6]) + join('-', split(words))", "FINEa-fine-day"),
        ("replace(strip('  a b '), ' ', '')", "ab"),
        (
            "startswith(words, 'a'), endswith(words, 'x'), contains(words, 'fine'), 'total' in order",
            [True, False, True, True],
        ),
        ("any(1 / i > 0.5 for i in [1, 0])", True),
        ("all([])", True),
        ("range(2, 8, 3)", [2, 5]),
        ("keys({'a': 1}) + values({'a': 1})", ["a", 1]),
        ("abs(-3) + int('4') + int(2.9) + float('0.5')", 9.5),
        ("(\n  1 +\n  1\n)", 2),
        ("  1 + 1  # two", 2),
        ("0b11 & 6 | 8 ^ 1", 11),
        ("1 << 63", 1 << 63),
        ("-(1 << 63)", -(1 << 63)),
    ],
)
def test_an_expression_has_the_value_that_it_says(text: str, expected: Any) -> None:
    if isinstance(expected, type):
        with pytest.raises(expected):
            value(text)
    else:
        found = value(text)
        assert found == expected
        assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "error", "words", "line", "column"),
    [
        ("1 +", InvalidSyntax, "invalid syntax", 1, 4),
        ("\n\n 1 + )", InvalidSyntax, "unmatched ')'", 3, 6),
        ("'é' + nobody", UnknownName, "there is no name `nobody`; there are items, order, unit, words", 1, 7),
        ("\n  [1,\n  nobody]", UnknownName, "`nobody`", 3, 3),
        ("true", UnknownName, "Python writes `True`", 1, 1),
        ("a && b", InvalidSyntax, "`&&` is written `and`", 1, 4),
        ("words.upper()", InvalidSyntax, "write upper(…)", 1, 1),
        ("words.upper", WrongType, "str has no keys", 1, 1),
        ("order.__class__", Absent, "there is no key `__class__`; there are country, items, note, total", 1, 1),
        ("size(words)", InvalidSyntax, "there is no function `size`; there are abs, all, any", 1, 1),
        ("len(words, 1)", InvalidSyntax, "len takes 1 argument", 1, 1),
        ("round(1, 2, 3)", InvalidSyntax, "round takes 1 to 2 arguments", 1, 1),
        ("1; 2", InvalidSyntax, "invalid syntax", 1, 2),
        ("x = 1", InvalidSyntax, "invalid syntax", 1, 3),
        ("'%s' % unit", WrongType, "to format a text write f'…{name}…'", 1, 1),
        ("words + 1", WrongType, "`+` takes two of a kind, not str and int", 1, 1),
        ("1 + words", WrongType, "`+` takes numbers, not int and str", 1, 1),
        ("words < 1", WrongType, "not supported between instances of 'str' and 'int'", 1, 1),
        ("items[3]", Absent, "there is no item 3; there are 3", 1, 1),
        ("order.note.text", Absent, "None has no key `text`", 1, 1),
        ("1 + 2 ** 257", TooLarge, "256 bits", 1, 5),
        ("'x' * 2000000", TooLarge, "more than 1048576 characters", 1, 1),
        ("2 ** 64", TooLarge, "integers from -9223372036854775808 to 18446744073709551615 only", 0, 0),
        ("1e308 * 10", TooLarge, "finite", 0, 0),
        ("[i for i in range(10000)]", OutOfFuel, "takes more work than the 10000 units", 1, 1),
        ("items[0] // 0", ExpressionError, "divides by zero", 1, 1),
        ("'x' * 999 + '" + "y" * 999 + "'", InvalidSyntax, "longer than 1000 characters", 0, 0),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    text: str, error: type[ExpressionError], words: str, line: int, column: int
) -> None:
    with pytest.raises(error) as caught:
        value(text)
    assert words in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)
    assert caught.value.reason == error.reason


def test_the_names_that_an_expression_reads_are_known_beforehand() -> None:
    found = parse("[x + base for x in rows if x > low] + [default(maybe, x), has(other)]")
    assert [(use.name, use.column, use.optional) for use in found.names] == [
        ("rows", 20, False),
        ("low", 32, False),
        ("base", 6, False),
        ("maybe", 48, True),
        ("x", 55, False),
        ("other", 63, True),
    ]


def test_reading_costs_the_same_whether_the_text_was_read_before_or_not() -> None:
    text = "[x * 1234 for x in items]"
    spent = []
    for _ in range(2):
        fuel = Fuel()
        evaluate(parse(text), ORDER, fuel)
        spent.append(fuel.spent)
    assert spent[0] == spent[1] > 0


def test_the_cache_of_parsed_expressions_evicts_the_oldest_at_its_bound() -> None:
    cache = source._ParseCache(max_nodes=100)
    for number in range(50):
        cache.put(f"{number} + x", parse(f"{number} + x"))
    found = [number for number in range(50) if cache.get(f"{number} + x")]
    assert found == list(range(50 - 100 // 3, 50))


def test_a_value_that_is_passed_on_is_not_copied() -> None:
    large = {"a": ["x" * 1000] * 100}
    assert evaluate(parse("large"), {"large": large}, Fuel(), bounded=[large]) is large
    assert evaluate(parse("large"), {"large": large}, Fuel()) == large


def test_expressions_of_one_step_share_the_fuel() -> None:
    fuel = Fuel()
    with pytest.raises(OutOfFuel):
        for _ in range(1000):
            evaluate(parse("sum([x * x for x in items])"), ORDER, fuel)
    assert fuel.spent > 9_900


PAGE = (Path(__file__).resolve().parent.parent / "docs" / "expressions.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^\| `(.+)` \| `(.+)` \|$", PAGE.partition("## Functions")[0], re.M)


@pytest.mark.parametrize(("text", "expected"), SHOWN)
def test_what_the_page_shows_is_so(text: str, expected: str) -> None:
    names = {
        "order": {"total": 120.5, "items": [{"price": 2, "count": 3}, {"price": 5, "count": 1}], "note": None},
        "price": 2,
        "name": "Ada",
    }
    assert value(text.replace("\\|", "|"), **names) == json.loads(expected)


def test_the_page_has_every_function_and_every_reason() -> None:
    assert len(SHOWN) > 15
    assert set(re.findall(r"`(\w+)\(", PAGE.partition("## Functions")[2])) == {*FUNCTIONS, *FORMS}
    errors = (Absent, ExpressionError, InvalidSyntax, OutOfFuel, TooLarge, UnknownName, WrongType)
    assert set(re.findall(r"^\| `(EXPRESSION_\w+)`", PAGE, re.M)) == {error.reason for error in errors}
    assert f"{UNITS:,} units" in PAGE
    assert f"{MAX_LENGTH:,} characters" in PAGE
