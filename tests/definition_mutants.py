"""Documents that are nearly definitions, for tests of what reads them."""

from __future__ import annotations

import json
from typing import Any

import flows
from hypothesis import strategies as st

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(st.characters(), max_size=5),
    st.sampled_from(["flow.start", "start", "end", "flow_output", "data_input", "x" * 300, "1s", "1 +", "n"]),
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)
WHOLE = [json.loads(flows.steps(2)), json.loads(flows.MIXED), json.loads(flows.code("set_data_output('result', 1)"))]


def places_in(content: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place, *(found for key, item in inside for found in places_in(item, (*place, key)))]


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """A whole definition in which a few things are replaced, removed, renamed or doubled."""
    content = json.loads(json.dumps(draw(st.sampled_from(WHOLE))))
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from([place for place in places_in(content) if place] or [("type",)]))
        holder = content
        for step in way:
            holder = holder[step]
        if not isinstance(holder, dict | list) or not holder:
            break
        match draw(st.sampled_from(["replace", "remove", "rename", "double"])):
            case "replace":
                holder[last] = draw(JSON)
            case "remove":
                del holder[last]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.sampled_from(["policy", "value", "sourceId", "note"]))] = holder.pop(last)
            case _ if isinstance(holder, list):
                holder.append(holder[last])
    return json.dumps(content)
