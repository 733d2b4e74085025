"""The hostile corpus is large, of all kinds, and no two members are alike."""

from __future__ import annotations

from collections import Counter

from figures import Figure
from hostile.attacker import Member
from hostile.corpus import KINDS, members


def test_the_corpus_has_hundreds_of_members_of_all_kinds_and_no_two_alike(figure: Figure) -> None:
    kinds = Counter(member.kind for member in members())
    assert set(kinds) == set(KINDS)
    assert kinds.total() >= 500
    assert min(kinds.values()) >= 50
    assert len(set(map(str, members()))) == kinds.total()
    alike: dict[str, Member] = {}
    for member in members():
        assert alike.setdefault(member.digest(), member) is member
    figure(f"{kinds.total()} hostile members: {dict(kinds)}; `python -m hostile` lists them")
