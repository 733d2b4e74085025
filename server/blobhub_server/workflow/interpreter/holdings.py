"""What an execution's state takes in memory.

A value that many steps are given is there once. So values are counted by the record that they came with: one counts from
then on until no output, no value of the execution and no open step has it any more. Small ones are counted wherever they
are, which is cheaper than to remember who has them. Nothing depends on which objects Python shares, so replaying a log
counts the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_STATE_BYTES = 64 << 20
"""What an execution's state may take in memory; an execution that goes on beyond fails with `STATE_LIMIT`."""

_STEP_BYTES, _INPUT_BYTES = 500, 100
"""What an open step takes, and each of its inputs, beside the values."""
_SMALL = 256
"""Up to how many bytes a value is counted wherever it is."""

Slot = str | tuple[int, str, str]
"""Where a value is: a component's output, by activation, component and name, or a value of the execution, by alias."""

Version = tuple[int, int, str]
"""A value as a record brought it: its bytes in memory, the number of the record's step, and its name there.

It is a plain tuple, because every output makes one.
"""


@dataclass(slots=True)
class Holdings:
    """How many `bytes` a state takes. `current` has what is in each slot, `holders` how many slots and steps have it."""

    bytes: int = 0
    current: dict[Slot, Version] = field(default_factory=dict)
    holders: dict[Version, int] = field(default_factory=dict)

    def copy(self) -> Holdings:
        """An independent copy."""
        return Holdings(bytes=self.bytes, current=dict(self.current), holders=dict(self.holders))

    def clear(self) -> None:
        """Count nothing any more."""
        self.bytes = 0
        self.current.clear()
        self.holders.clear()

    def size(self, slot: Slot) -> int:
        """How many bytes the value in a slot has; 0 where there is none, or one of the definition's."""
        found = self.current.get(slot)
        return found[0] if found is not None else 0

    def put(self, slot: Slot, version: Version) -> None:
        """Place a value, which takes the place of what was in the slot."""
        before = self.current.get(slot)
        self._hold(version)
        if before is not None:
            self._release(before)
        self.current[slot] = version

    def drop(self, slot: Slot) -> None:
        """Take the value out of a slot, if it has one."""
        before = self.current.pop(slot, None)
        if before is not None:
            self._release(before)

    def enter(self, slots: list[Slot], inputs: int, read: int) -> tuple[Version, ...]:
        """Count a step that has entered with so many inputs, with `read` bytes of session objects; return what it holds."""
        own, large = _STEP_BYTES + inputs * _INPUT_BYTES + read, list[Version]()
        for slot in slots:
            version = self.current.get(slot)
            if version is None:
                continue
            if version[0] <= _SMALL:
                own += version[0]
            else:
                self._hold(version)
                large.append(version)
        self.bytes += own
        return ((own, 0, ""), *large)

    def leave(self, held: tuple[Version, ...]) -> None:
        """Count a step that has ended no more."""
        own, *large = held
        self.bytes -= own[0]
        for version in large:
            self._release(version)

    def _hold(self, version: Version) -> None:
        if version[0] <= _SMALL:
            self.bytes += version[0]
            return
        holders = self.holders.get(version, 0)
        if not holders:
            self.bytes += version[0]
        self.holders[version] = holders + 1

    def _release(self, version: Version) -> None:
        if version[0] <= _SMALL:
            self.bytes -= version[0]
            return
        holders = self.holders[version] - 1
        if holders:
            self.holders[version] = holders
        else:
            del self.holders[version]
            self.bytes -= version[0]
