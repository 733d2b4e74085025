"""Requests that are begun and never sent to their end take little memory, no place for ever, and nobody else's turn."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from pathlib import Path

import acme
import grpc
import psutil
import pytest
from blobhub.v1 import caller_pb2
from blobhub_server.config import Settings
from blobhub_server.errors import Overloaded
from blobhub_server.rpc import observed, room
from blobhub_server.rpc.room import Room, Sender, address_of
from blobhub_server.turnstile import IN_PLACE_BYTES, Party, off_loop
from calling import METHODS, ask
from figures import Figure
from hostile.wire import field
from hypothesis import given
from hypothesis import strategies as st
from kinds import GOOD, KINDS, answering, failing
from kinds import served as serving_kinds
from raw_http2 import RawConnection, details, raw_connection
from scale import scaled
from served import Api, ServerProcess, connected
from waiting import until, within_deadline

LENGTH = 4 << 20
CALLS = scaled(800, least=400)
ONE = "/test.v1.Kinds/One"
WHO = "/blobhub.v1.CallerService/GetCaller"
PUT = "/blobhub.v1.DefinitionService/PutDefinition"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


async def send_all_but_the_end(raw: RawConnection, calls: list[int]) -> None:
    """Send as much of each call's message as the server takes, up to its last byte."""
    left = dict.fromkeys(calls, LENGTH - 1)
    idle = 0
    while idle < 20:
        sent = 0
        for call in calls:
            while size := raw.send_more(call, left[call]):
                left[call] -= size
                sent += size
            await raw.drain()
        idle = 0 if sent else idle + 1
        await asyncio.sleep(0.02)


async def scoped_key(api: Api) -> str:
    """A key that may write to an organization."""
    await ask(api, "CreateOrganization", alias="acme")
    return (await acme.key(api, "acme", acme.WRITE)).key


@pytest.mark.parametrize(("path", "with_key"), [(WHO, False), (REFLECTION, False), (PUT, True)])
async def test_unfinished_requests_take_little_memory_and_others_are_served(
    path: str, with_key: bool, tmp_path: Path, figure: Figure
) -> None:
    """Each is of 4 MiB but for its last byte, and they come over one connection. Who has a key may hold somewhat more."""
    server = ServerProcess(tmp_path / "data", log=tmp_path / "log", log_level="info")
    async with server.running(), connected(server.address, server.admin_key) as api:
        before = psutil.Process(server.pid).memory_info().rss
        most = 0
        async with raw_connection(server.address) as raw:
            key = await scoped_key(api) if with_key else None
            if key is not None:
                await raw.read(raw.begin(WHO, b"", key=key))
            calls = [raw.begin(path, b"", key=key, length=LENGTH) for _ in range(CALLS)]
            sending = asyncio.create_task(send_all_but_the_end(raw, calls))
            while not sending.done():
                answer = await within_deadline(api.callers.GetCaller(caller_pb2.GetCallerRequest()))
                assert answer.caller.administrator
                most = max(most, psutil.Process(server.pid).memory_info().rss)
                await asyncio.sleep(0.1)
            await sending
    figure(f"{CALLS} unfinished calls of {path}: {most >> 20} MiB, {most - before >> 20} more than before")
    assert most - before < 200 << 20
    assert most < 512 << 20


async def test_a_request_that_does_not_arrive_ends_with_the_reason() -> None:
    async with (
        serving_kinds(settings=Settings(request_seconds=0.5)) as there,
        raw_connection(there.address) as raw,
    ):
        for kind in ("One", "Many", "Up", "Both"):
            call = raw.calls[raw.begin(f"/test.v1.Kinds/{kind}", b"abc", length=LENGTH)]
            await until(lambda call=call: call.ended)
            assert (call.code, details(call)[0].reason) == (grpc.StatusCode.DEADLINE_EXCEEDED.value[0], "REQUEST_UNFINISHED")
        assert await there.call("One", GOOD) == [answering("acme")]


async def test_a_sender_that_begins_too_much_is_told_to_come_again() -> None:
    async with serving_kinds() as there, raw_connection(there.address) as raw:
        calls = [raw.calls[raw.begin(ONE, b"", length=LENGTH)] for _ in range(room.MAX_WAITING)]
        refused = await until(lambda: [call for call in calls if call.ended])
        info, retry = details(refused[0])
        assert (refused[0].code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "OVERLOADED")
        assert retry.HasField("retry_delay")


async def test_places_of_those_whom_nothing_identifies_are_not_those_of_others() -> None:
    """All of theirs are taken for as long as the test runs."""
    async with serving_kinds() as there, raw_connection(there.address) as raw:
        for _ in range(room.UNKNOWN_PLACES * 2):
            raw.begin(ONE, b"", length=LENGTH)
        make = there.channel.unary_unary(ONE)
        for _ in range(room.MAX_AT_ONCE * 2):
            await within_deadline(make(GOOD.SerializeToString(), metadata=(("known", "yes"),)))


async def test_calls_that_stall_where_few_are_let_in_at_once_keep_nobody_waiting() -> None:
    async with serving_kinds() as there, raw_connection(there.address) as raw:
        for _ in range(room.MAX_AT_ONCE):
            raw.begin(ONE, b"", length=LENGTH, known="one")
        for _ in range(room.MAX_AT_ONCE_PER_CALLER):
            raw.begin(ONE, b"", length=LENGTH, known="another")
        make = there.channel.unary_unary(ONE)
        for _ in range(room.MAX_AT_ONCE * 2):
            await within_deadline(make(GOOD.SerializeToString(), metadata=(("known", "yes"),)))


@pytest.mark.parametrize("known", ["yes", ""])
@pytest.mark.parametrize("kind", ["One", "Many"])
async def test_a_large_request_has_no_place_while_its_handler_runs(kind: str, known: str) -> None:
    """Many more handlers run at once than there are places for one sender."""
    began = 0

    async def begin(_call: object) -> None:
        nonlocal began
        began += 1
        await asyncio.Event().wait()

    large = GOOD.SerializeToString() + field(99, bytes(room.LARGE_BYTES))
    count = room.MAX_AT_ONCE + room.KNOWN_PLACES if known else room.UNKNOWN_PLACES
    async with serving_kinds(**{kind: failing(kind, begin)}) as there:
        make = getattr(there.channel, KINDS[kind][1])(f"/test.v1.Kinds/{kind}")
        calls = [make(large, metadata=(("known", known),) if known else ()) for _ in range(count)]
        await until(lambda: began == count)
        for call in calls:
            call.cancel()


async def test_health_is_answered_while_others_whom_nothing_identifies_stall() -> None:
    async with serving_kinds() as there, raw_connection(there.address) as raw:
        for _ in range(room.UNKNOWN_PLACES * 2):
            raw.begin(ONE, b"", length=LENGTH)
        await within_deadline(there.channel.unary_unary("/grpc.health.v1.Health/Check")(b""))


async def test_streams_of_reflection_take_no_place_of_others() -> None:
    made = Room()

    async def keep(sender: Sender) -> None:
        async with made.place(sender, REFLECTION):
            await asyncio.Event().wait()

    senders = [Sender(name=name, known=False) for name in "aabb"]
    calls = [asyncio.create_task(keep(sender)) for sender in senders]
    await asyncio.sleep(0)
    for sender in senders:
        async with made.place(sender):
            pass
    for call in calls:
        call.cancel()


async def test_large_requests_are_gone_over_one_after_the_other() -> None:
    """So however many come, the event loop shares the interpreter with one thread."""
    running, most = 0, 0

    def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.02)
        running -= 1

    await asyncio.gather(*(off_loop(IN_PLACE_BYTES + 1, ("", ""), work) for _ in range(8)))
    assert most == 1


async def test_one_caller_is_not_let_in_at_once_as_often_as_all_are() -> None:
    made = Room()

    async def enter(name: str, stay: asyncio.Event) -> bool:
        entered = made.enter_at_once(Sender(name=name, known=True))
        await stay.wait()
        return entered

    stay = asyncio.Event()
    names = ["a"] * room.MAX_AT_ONCE + ["b"] * room.MAX_AT_ONCE + ["c"]
    calls = [asyncio.create_task(enter(name, stay)) for name in names]
    await asyncio.sleep(0)
    stay.set()
    entered = [name for name, call in zip(names, calls, strict=True) if await call]
    assert entered == ["a"] * room.MAX_AT_ONCE_PER_CALLER + ["b"] * room.MAX_AT_ONCE_PER_CALLER
    assert made.enter_at_once(Sender(name="c", known=True))


async def test_calls_of_unknown_senders_that_wait_refuse_no_known_caller() -> None:
    made = Room()
    calls = [
        asyncio.create_task(hold(made, Sender(name=f"10.0.0.{number % 10}", known=False)))
        for number in range(room.MAX_WAITING * 2)
    ]
    await asyncio.sleep(0)
    async with made.place(Sender(name="somebody", known=True)):
        pass
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def hold(made: Room, sender: Sender) -> None:
    """Take a place and keep it."""
    async with made.place(sender):
        await asyncio.Event().wait()


async def test_senders_that_are_refused_leave_nothing_behind() -> None:
    made = Room()
    senders = [Sender(name=f"10.0.0.{number}", known=False) for number in range(room.MAX_WAITING_UNKNOWN)]
    calls = [asyncio.create_task(hold(made, sender)) for sender in senders]
    await asyncio.sleep(0)
    kept = len(made._unknown.shares)
    for number in range(100):
        with pytest.raises(Overloaded):
            await hold(made, Sender(name=f"10.0.1.{number}", known=False))
    assert len(made._unknown.shares) == kept
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert made._unknown.shares == {}


class SkippingLoop(asyncio.SelectorEventLoop):
    """Does not wait: its clock goes on to when something is due."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__()
        select = self._selector.select

        def skip(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            self._now += timeout or 0
            return select(0)

        self._selector.select = skip

    def time(self) -> float:
        return self._now


def test_a_call_waits_for_its_turn_and_its_place_no_longer_than_for_one() -> None:
    """The turn is free after a part of the time; by then another sender has been given the place."""
    made = Room()
    mine, others = Sender(name="mine", known=False), Sender(name="others", known=False)

    async def stay(sender: Sender, seconds: float) -> None:
        async with made.place(sender):
            await asyncio.sleep(seconds)

    async def wait_for_both() -> float:
        loop = asyncio.get_running_loop()
        first = [asyncio.create_task(stay(mine, room.MAX_WAIT_SECONDS / 2)), asyncio.create_task(stay(mine, 1_000))]
        rest = [asyncio.create_task(stay(others, 1_000)) for _ in range(room.UNKNOWN_PLACES // 2)]
        await asyncio.sleep(0.1)
        third = asyncio.create_task(stay(Sender(name="third", known=False), 1_000))
        await asyncio.sleep(0.1)
        start = loop.time()
        with pytest.raises(Overloaded):
            await stay(mine, 1)
        waited = loop.time() - start
        for call in (*first, *rest, third):
            call.cancel()
        return waited

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        assert runner.run(wait_for_both()) == pytest.approx(room.MAX_WAIT_SECONDS)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_no_sender_has_more_than_a_part_of_the_places(calls: list[tuple[str, bool]]) -> None:
    made = Room()
    here: list[Sender] = []

    async def call(sender: Sender) -> None:
        async with made.place(sender):
            here.append(sender)
            for known, places in ((True, room.KNOWN_PLACES), (False, room.UNKNOWN_PLACES)):
                inside = [other for other in here if other.known is known]
                assert len(inside) <= places
                assert all(inside.count(other) <= places // 2 for other in inside)
            await asyncio.sleep(0)
            here.remove(sender)

    async def all_calls() -> None:
        await asyncio.gather(*(call(Sender(name=name, known=known)) for name, known in calls))

    asyncio.run(all_calls())
    assert here == []


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:50000", "127.0.0.1"),
        ("ipv6:%5B::1%5D:50000", "::/64"),
        ("ipv6:[2001:db8:1:2:3::4]:50000", "2001:db8:1:2::/64"),
        ("unix:", "unix"),
    ],
)
def test_a_peer_is_known_by_its_address(peer: str, address: str) -> None:
    assert address_of(peer) == address


@pytest.mark.parametrize("known", [True, False], ids=["received at once", "by turns"])
async def test_a_request_counts_by_the_bytes_it_came_in_which_nobody_has_to_encode_again(
    api: Api, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    sizes: list[int] = []

    async def noted(size: int, _party: Party, work: Callable[[], object]) -> object:
        sizes.append(size)
        return work()

    monkeypatch.setattr(observed, "off_loop", noted)
    monkeypatch.setattr(room, "MAX_AT_ONCE", 16 if known else 0)
    await ask(api, "GetCaller")
    sizes.clear()
    twice = field(1, b"acme/absent") * 2  # of a field that is there twice the last counts, and a message has one
    with pytest.raises(grpc.aio.AioRpcError):
        await api.channel.unary_unary(METHODS["GetBlob"].path)(twice)
    assert sizes == [len(twice)]
