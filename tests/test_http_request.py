"""`http.request` on a real server: what goes out, what comes back, and what fails by which name."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import acme
import pytest
from asking import answer, asked, started
from calling import ask
from fetching import credential, fetches
from marked import secret
from served import Api, Served, connected, served
from waiting import until, within_deadline
from web import Answer, Asked, Web, moved, said, web

NONE = said("hello")


@pytest.fixture(scope="module")
async def other() -> AsyncIterator[Web]:
    """The server that is asked."""
    async with web() as made:
        yield made


@pytest.fixture(scope="module")
async def hub(tmp_path_factory: pytest.TempPathFactory, other: Web) -> AsyncIterator[Served]:
    """A server whose workflows may ask the other one, with a blob."""
    folder = tmp_path_factory.mktemp("fetching")
    async with served(folder, http_allow=f"127.0.0.1:{other.port}") as server:
        async with connected(server.address, server.admin_key) as api:
            await acme.organization(api)
            await acme.blob(api)
        yield server


@pytest.fixture
async def api(hub: Served, other: Web) -> AsyncIterator[Api]:
    other.respond = lambda got: NONE
    other.asked.clear()
    async with connected(hub.address, hub.admin_key) as made:
        yield made


async def failed(api: Api, document: str, **given: Any) -> tuple[str, str]:
    """Reason and message of an execution that fails."""
    failure = (await asked(api, document, **given)).failure
    return failure.reason, failure.message


# What goes out


@pytest.mark.parametrize(
    ("settings", "body", "type_"),
    [
        ({"body": {"a": [1, "ä"]}}, '{"a":[1,"ä"]}'.encode(), "application/json"),
        ({"body": {"type": "json", "json": [1]}}, b"[1]", "application/json"),
        ({"body": "ä text"}, "ä text".encode(), "text/plain; charset=utf-8"),
        ({"body": "<a/>", "headers": {"Content-Type": "application/xml"}}, b"<a/>", "application/xml"),
        ({"body_base64": base64.b64encode(b"\x00\xff").decode()}, b"\x00\xff", "application/octet-stream"),
        ({}, b"", None),
    ],
)
async def test_a_body_goes_out_as_what_it_is(api: Api, other: Web, settings: Any, body: bytes, type_: str | None) -> None:
    answer(await asked(api, fetches(method="POST", url=other.url, **settings)))
    assert (other.asked[0].body, other.asked[0].headers.get("content-type")) == (body, type_)


async def test_headers_and_query_are_added(api: Api, other: Web) -> None:
    given = {"url": f"{other.url}/a b/ü?x=1#there", "query": {"y": [1, "a&b"], "z": True}, "headers": {"X-A": ["1", 2]}}
    answer(await asked(api, fetches("url", "query", "headers"), **given))
    (got,) = other.asked
    assert (got.method, got.path) == ("GET", "/a%20b/%C3%BC?x=1&y=1&y=a%26b&z=true")
    assert got.headers["x-a"] == "2"  # The later of two; both went out.


async def test_a_method_that_changes_something_carries_the_key_of_its_step(api: Api, other: Web) -> None:
    tries = iter([said("", 503), said("", 503), NONE])
    other.respond = lambda got: next(tries)
    policy = {"retry": {"maximum_attempts": 3, "initial_interval": "0.01s"}}
    execution = await asked(api, fetches(method="POST", url=other.url, policy=policy))
    assert answer(execution)["status"] == 200
    keys = {got.headers["idempotency-key"] for got in other.asked}
    assert len(other.asked) == 3
    assert keys == {f"{execution.id}/2"}
    other.respond = lambda got: NONE
    answer(await asked(api, fetches(method="DELETE", url=other.url, headers={"idempotency-key": "mine"})))
    answer(await asked(api, fetches(url=other.url)))
    assert [got.headers.get("idempotency-key") for got in other.asked[3:]] == ["mine", None]


# What comes back

JSON = {"a": [1.5, None, {"b": "ä"}], "n": 2**63}
COMES: list[tuple[str, Answer, Any, str]] = [
    ("JSON", said(json.dumps(JSON), type_="application/json; charset=utf-8"), JSON, "json"),
    ("JSON of a kind", said("[1]", type_="application/problem+json"), [1], "json"),
    ("compressed", said(gzip.compress(b"[1]"), type_="application/json", content_encoding="gzip"), [1], "json"),
    ("no JSON", said("{", type_="application/json"), "{", "text"),
    ("a number that is too long", said("9" * 30, type_="application/json"), "9" * 30, "text"),
    ("text", said("ä"), "ä", "text"),
    ("Latin 1", said("ä".encode("latin-1"), type_="text/plain; charset=ISO-8859-1"), "ä", "text"),
    ("bytes", said(b"\xff\x00", type_="image/png"), base64.b64encode(b"\xff\x00").decode(), "base64"),
    ("nothing", Answer(status=204), "", "text"),
]


@pytest.mark.parametrize(("sent", "body", "body_type"), [case[1:] for case in COMES], ids=[case[0] for case in COMES])
async def test_a_body_comes_back_as_what_it_is(api: Api, other: Web, sent: Answer, body: Any, body_type: str) -> None:
    other.respond = lambda got: sent
    result = answer(await asked(api, fetches(url=other.url)))
    assert (result["status"], result["body"], result["body_type"]) == (sent.status, body, body_type)


async def test_headers_come_back_by_name(api: Api, other: Web) -> None:
    other.respond = lambda got: Answer(headers=[("X-A", "1"), ("x-a", "2"), ("Y", "ä")], pieces=[b""])
    headers = answer(await asked(api, fetches(url=other.url)))["headers"]
    assert (headers["x-a"], headers["y"]) == ("1, 2", "ä")


async def test_a_large_answer_is_a_value_and_a_larger_one_has_a_name(api: Api, other: Web) -> None:
    other.respond = lambda got: said("x" * 1_000_000)
    assert len(answer(await asked(api, fetches(url=other.url, outputs=("body",))))) == 1_000_000
    for settings in ({"maximum_bytes": 999_999}, {}):
        assert (await failed(api, fetches(url=other.url, **settings)))[0] == "HTTP_TOO_LARGE"
        other.respond = lambda got: said("\n" * 1_000_000)  # Which takes two bytes each as JSON.


# What fails


@pytest.mark.parametrize(("status", "tried"), [(400, 1), (404, 1), (429, 2), (500, 2), (503, 2), (302, 1)])
async def test_a_status_fails_and_what_may_pass_is_tried_again(api: Api, other: Web, status: int, tried: int) -> None:
    other.respond = lambda got: said("because", status)
    policy = {"retry": {"maximum_attempts": 2, "initial_interval": "0.01s"}}
    reason, message = await failed(api, fetches(url=other.url, policy=policy))
    assert (reason, message) == ("HTTP_STATUS", f"component 'ask' failed: the answer has the status {status}: because")
    assert len(other.asked) == tried


async def test_a_refused_status_is_told_in_the_details_of_its_error(api: Api, other: Web) -> None:
    other.respond = lambda got: said('{"why": "no"}', 409, type_="application/json", x_why="no")
    document = json.loads(fetches(url=other.url, outputs=("error",)))
    for connection in document["connections"]:
        if connection["source_id"] == "ask" and connection["route"] == "success":
            connection["route"] = "failure"
    error = answer(await asked(api, json.dumps(document)))
    assert (error["reason"], error["component_id"]) == ("HTTP_STATUS", "ask")
    assert (error["details"]["status"], error["details"]["body"]) == (409, '{"why": "no"}')
    assert error["details"]["headers"]["x-why"] == "no"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after": "86400"}, 20),
        ({"retry_after": "Fri, 01 Jan 2027 00:00:09 GMT", "date": "Fri, 01 Jan 2027 00:00:00 GMT"}, 9),
        ({"retry_after": "Fri, 01 Jan 2027 00:00:09 GMT"}, 1),
        ({"retry_after": "soon"}, 1),
        ({}, 1),
    ],
)
async def test_the_next_try_waits_as_long_as_it_is_asked_to(
    api: Api, other: Web, headers: dict[str, str], seconds: int
) -> None:
    other.respond = lambda got: said("", 429, **headers)
    policy = {"retry": {"maximum_attempts": 2, "initial_interval": "1s", "maximum_interval": "20s"}}
    execution = await started(api, fetches(url=other.url, policy=policy))

    async def retried() -> Any:
        events = await ask(api, "ListEvents", session=execution.session_id, types=["processor.retrying"])
        return [*events.events]

    (event,) = await until(retried)
    waits = event.processor_retrying.retry_time.ToMilliseconds() - event.create_time.ToMilliseconds()
    assert abs(waits - seconds * 1000) < 900
    await ask(api, "StopExecution", execution=execution.id)


@pytest.mark.parametrize("accept", [["2xx", 404], ["4xx"], [404.0]])
async def test_a_status_that_is_accepted_is_no_failure(api: Api, other: Web, accept: list[Any]) -> None:
    other.respond = lambda got: said("gone", 404)
    result = answer(await asked(api, fetches(url=other.url, accept=accept)))
    assert (result["status"], result["body"]) == (404, "gone")


async def test_redirects_are_followed_or_are_a_status(api: Api, other: Web) -> None:
    other.respond = lambda got: moved("/b") if got.path == "/a" else said(got.path)
    url = f"{other.url}/a"
    assert answer(await asked(api, fetches(url=url)))["body"] == "/b"
    assert answer(await asked(api, fetches(url=url, redirects=0, accept=["3xx"])))["headers"]["location"] == "/b"
    other.respond = lambda got: moved("/a")
    assert (await failed(api, fetches(url=url, redirects=2)))[0] == "HTTP_TOO_MANY_REDIRECTS"


UNANSWERED: list[tuple[str, dict[str, Any], Answer, str]] = [
    ("silence", {"timeout": 0.1}, Answer(raw=b"", hang=True), "HTTP_TIMEOUT"),
    ("a broken answer", {}, Answer(raw=b"HTTP"), "HTTP_UNREACHABLE"),
    ("a broken encoding", {}, said(b"x", content_encoding="gzip"), "HTTP_BAD_RESPONSE"),
    ("a redirect inside", {}, moved("http://169.254.169.254/latest/meta-data"), "HTTP_REFUSED_TARGET"),
    ("a redirect to no URL", {}, moved("ftp://one.one.one.one/"), "HTTP_INVALID_URL"),
    ("a port that is not allowed", {"url": "http://127.0.0.1:1/"}, NONE, "HTTP_REFUSED_TARGET"),
    ("an address inside", {"url": "https://[fd00:ec2::254]/"}, NONE, "HTTP_REFUSED_TARGET"),
    ("a password in a URL", {"url": "http://a:b@127.0.0.1/"}, NONE, "HTTP_INVALID_URL"),
]


@pytest.mark.parametrize(
    ("settings", "sent", "reason"), [case[1:] for case in UNANSWERED], ids=[case[0] for case in UNANSWERED]
)
async def test_what_has_no_answer_has_a_reason(api: Api, other: Web, settings: Any, sent: Answer, reason: str) -> None:
    other.respond = lambda got: sent
    assert (await failed(api, fetches(**{"url": other.url} | settings)))[0] == reason


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"method": "BREW"}, "method", "must be one of GET"),
    ({"url": "ftp://x"}, "url", "must be a text that begins with https://"),
    ({"credential": "No Alias"}, "credential", "must be the alias of a credential"),
    ({"credential_as": "a b"}, "credential_as", "must be `bearer`, `basic` or the name of a header"),
    ({"credential_as": "Host"}, "credential_as", "must not be the header"),
    ({"timeout": 0}, "timeout", "must be a number of seconds above 0"),
    ({"headers": []}, "headers", "must be an object of texts"),
    ({"headers": {"a": {}}}, "headers", "must be an object of texts"),
    ({"headers": {"a\r\nb": "c"}}, "headers", "has characters that a header has not"),
    ({"headers": {"a": "b\r\nc: d"}}, "headers", "has characters that a header has not"),
    ({"headers": {"Transfer-Encoding": "chunked"}}, "headers", "is the server's to send"),
    ({"headers": {"a": "b" * 20_000}}, "headers", "must be at most 64"),
    ({"query": {"a": None}}, "query", "must be an object of texts"),
    ({"body_base64": "?"}, "body_base64", "must be bytes in base64"),
    ({"body": "a", "body_base64": ""}, "body_base64", "must not be set beside"),
    ({"maximum_bytes": 1 << 21}, "maximum_bytes", "must be an integer from 0 to 1048576"),
    ({"redirects": -1}, "redirects", "must be an integer from 0 to 10"),
    ({"accept": [700]}, "accept", "must be a list of statuses"),
    ({"accept": "2xx"}, "accept", "must be a list of statuses"),
]


@pytest.mark.parametrize(("settings", "name", "says"), WRONG, ids=[f"{name} {says[:20]}" for _, name, says in WRONG])
async def test_what_cannot_be_sent_is_told_by_check_and_when_it_comes(
    api: Api, other: Web, settings: dict[str, Any], name: str, says: str
) -> None:
    document = fetches(**{"url": other.url} | settings)
    problems = (await ask(api, "CheckDefinition", revision=acme.DRAFT, document=document)).problems
    found = [problem for problem in problems if says in problem.message]
    assert found, problems
    reason, message = await failed(api, fetches(*settings, **({} if "url" in settings else {"url": other.url})), **settings)
    assert reason == "INVALID_INPUT"
    assert f"{name!r} " in message
    assert other.asked == []


# Credentials


def echo(got: Asked) -> Answer:
    """Everything that was sent, as a header, a text and JSON with and without escapes."""
    sent = got.headers.get("authorization") or got.headers.get("x-api-key", "")
    escaped = "".join(f"\\u{ord(char):04x}" for char in sent)
    return said(f'{{"plain": {json.dumps(sent)}, "escaped": "{escaped}"}}', type_="application/json", x_echo=sent)


async def test_a_credential_goes_out_and_is_masked_in_what_comes_back(api: Api, other: Web) -> None:
    token = await credential(api, "token")
    other.respond = echo
    result = answer(await asked(api, fetches(url=other.url, credential="token")))
    assert other.asked[-1].headers["authorization"] == f"Bearer {token}"
    masked = "Bearer [credential]"
    assert (result["headers"]["x-echo"], result["body"]) == (masked, {"plain": masked, "escaped": masked})
    result = answer(await asked(api, fetches(url=other.url, credential="token", credential_as="X-Api-Key")))
    assert other.asked[-1].headers["x-api-key"] == token
    assert result["body"]["plain"] == "[credential]"
    other.respond = lambda got: said(f"no: {got.headers['authorization']}", 401)
    reason, message = await failed(api, fetches(url=other.url, credential="token"))
    assert (reason, message.endswith("401: no: Bearer [credential]")) == ("HTTP_STATUS", True)


async def test_a_user_and_a_password_go_out_as_basic_authentication(api: Api, other: Web) -> None:
    password = secret("a password")
    await credential(api, "basic", username="ada", password=password)
    other.respond = echo
    result = answer(await asked(api, fetches(url=other.url, credential="basic", credential_as="basic")))
    assert base64.b64decode(other.asked[-1].headers["authorization"].removeprefix("Basic ")).decode() == f"ada:{password}"
    assert result["body"]["plain"] == "Basic [credential]"


async def test_the_blobs_credential_comes_before_the_organizations(api: Api, other: Web) -> None:
    await credential(api, "both")
    ours = await credential(api, "both", "acme/pipeline")
    answer(await asked(api, fetches("credential", url=other.url), credential="both"))
    assert other.asked[-1].headers["authorization"] == f"Bearer {ours}"


@pytest.mark.parametrize(
    ("body", "form", "reason", "says"),
    [
        (None, "bearer", "NOT_FOUND", "no such credential"),
        ({"password": "x"}, "bearer", "INVALID_CREDENTIAL", "must have a text `token` or `api_key`"),
        ({"token": "x\ny"}, "bearer", "INVALID_CREDENTIAL", "of printable ASCII characters"),
        ({"token": "x"}, "basic", "INVALID_CREDENTIAL", "must have the texts `username`"),
        ({"token": "x", "hosts": "x"}, "bearer", "INVALID_CREDENTIAL", "list `hosts`"),
        ({"token": "x", "hosts": ["api.example"]}, "bearer", "HTTP_REFUSED_TARGET", "is not for 127.0.0.1"),
    ],
)
async def test_a_credential_that_cannot_go_out_has_a_reason(
    api: Api, other: Web, body: Any, form: str, reason: str, says: str
) -> None:
    alias = f"wrong-{len(says)}-{form}"
    if body is not None:
        await credential(api, alias, **body)
    told = await failed(api, fetches(url=other.url, credential=alias, credential_as=form))
    assert (told[0], says in told[1]) == (reason, True), told
    assert other.asked == []


@pytest.mark.parametrize("lost", ["the membership", "the key"])
async def test_rights_count_when_the_credential_is_used(hub: Served, api: Api, other: Web, lost: str) -> None:
    name = lost.replace(" ", "-")
    await credential(api, name)
    document = fetches(
        url=other.url, credential=name, policy={"retry": {"maximum_attempts": 100, "initial_interval": "0.01s"}}
    )
    other.respond = lambda got: said("", 503)
    async with acme.person(hub, api, name, ("acme/pipeline", acme.WRITE)) as person:
        execution = await started(person, document)
        await until(lambda: other.asked)
        if lost == "the key":
            await acme.update_user(api, f"@{name}", disabled=True)
        else:
            await ask(api, "DeleteMember", parent="acme/pipeline", user=f"@{name}")
        sent = len(other.asked)

        async def ended() -> Any:
            found = (await ask(api, "GetExecution", execution=execution.id)).execution
            return found if found.HasField("end_time") else None

        assert (await within_deadline(until(ended))).failure.reason == "PERMISSION_DENIED"
    assert len(other.asked) < 100, sent
