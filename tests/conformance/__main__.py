"""`make clients`: one server, and the client of every language against it over the network. README.md says what each does.

`python -m conformance [LANGUAGE …]`; all that are installed unless told otherwise. With `CI=true` all have to be.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from blobhub.v1.caller_pb2 import GetCallerRequest
from conformance import goldens
from conformance.languages import IN_CI, LANGUAGES, PYTHON, ROOT, Language
from conformance.network import LosingTwice, cutting
from conformance.stage import BLOB, ITEMS, SHARED, Stage, staged
from dropping import Fate, dropping
from google.protobuf.message import Message

TOUR = (ROOT / "tests" / "conformance" / "tour.txt").read_text()
DEFINITION = ROOT / "demo" / "document_summary.json"
IMAGE = ROOT / ".build" / "languages.binpb"
DYING = ROOT / "tests" / "conformance" / "dying_worker.py"
CUTS = 50
BESIDE = {("tritonclient[grpc]>=2.60", "protobuf==6.33.*"): "6.33.", ("protobuf>=7",): "7."}
"""What the Python client is installed beside, and the protobuf that it has there."""
RESET = "\x1b[0m"
"""Maven prints it, whatever it is told about colours."""
DEADLINE_SECONDS = 600


class Failed(Exception):
    """A client did not do what it should."""


async def run(language: Language, command: tuple[str, ...], **settings: str) -> str:
    """What a command of a language prints. Raises Failed."""
    environment = os.environ | {f"CONFORMANCE_{name.upper()}": value for name, value in settings.items()} | {
        "KEY": settings.get("key", ""),
        "ORGANIZATION": settings.get("organization", ""),
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *(part.format(**settings) for part in command),
        cwd=language.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise Failed(f"{' '.join(command)} has not ended after {DEADLINE_SECONDS} s") from None
    if process.returncode:
        raise Failed(f"{' '.join(command)} ended with {process.returncode}:\n{output.decode()}")
    return output.decode().replace(RESET, "")


def told(what: str, since: float) -> None:
    """Print that something was done, and how long it took."""
    print(f"  {what:<62} {time.monotonic() - since:5.1f} s", flush=True)


async def conforms(language: Language, stage: Stage, golden: Path) -> None:
    """Run everything of a language. Raises Failed."""
    print(language.name)
    since = time.monotonic()
    if language.fetch:
        await run(language, language.fetch)
        told("what it needs", since)
        since = time.monotonic()
    for command in language.silent:
        if said := await run(language, command):
            raise Failed(f"{' '.join(command)} says:\n{said}")
    if language.silent:
        told("format and lint", since)
    await suite(language, stage, golden)
    await tour(language, stage)


async def suite(language: Language, stage: Stage, golden: Path) -> None:
    """Run the tests of a language. Raises Failed."""
    if not language.suite:
        return
    since, seed = time.monotonic(), sum(language.name.encode())
    async with (
        dropping(stage.address, seed, LosingTwice) as (losing, lost),
        cutting(stage.address, CUTS, seed) as (cut, cuts),
    ):
        await run(
            language,
            language.suite,
            address=stage.address,
            losing=losing,
            cutting=cut,
            key=stage.key,
            organization=language.name,
            shared=SHARED,
            blob=BLOB,
            items=str(ITEMS),
            model=str(stage.model),
            golden=str(golden),
            dying=f"{sys.executable} {DYING}",
        )
    told(f"tests: {cuts.cuts} connections cut, {lost.fates[Fate.ANSWER_LOST]} answers lost", since)
    if cuts.cuts != CUTS:
        raise Failed(f"the watch was cut {cuts.cuts} times in place of {CUTS}")
    if not lost.fates[Fate.ANSWER_LOST]:
        raise Failed("no call was made where answers are lost")


async def tour(language: Language, stage: Stage) -> None:
    """Run the example of a language, and its lines of the README. Raises Failed."""
    since, organization = time.monotonic(), f"{language.name}-tour"
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "address": stage.address,
            "key": stage.key,
            "organization": organization,
            "definition": str(DEFINITION),
            "program": f"{folder}/program",
        }
        said = await run(language, language.tour, **settings)
        if said != TOUR:
            raise Failed(f"the tour prints other lines than tour.txt:\n{said}")
        told("the tour", since)
        if not language.program:
            return
        since = time.monotonic()
        found = re.search(rf"<!-- {language.name} -->\n```\w+\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
        assert found is not None
        lines = found[1].replace("127.0.0.1:7443", stage.address).replace("acme/", f"{organization}/")
        suffix = Path(language.program[-1]).suffix
        Path(f"{folder}/program{suffix}").write_text(language.prelude.format(lines=lines))
        if "Some words." not in await run(language, language.program, **settings):
            raise Failed("the lines in the README do not print the summary")
        told("the lines in the README", since)


def compare(golden: Path, messages: list[Message]) -> None:
    """See that what all languages have written is the same messages. Raises Failed."""
    for path in sorted(golden.glob("*.jsonl")):
        if wrong := goldens.differences(path, messages):
            raise Failed("\n".join(wrong[:20]))


async def protoset(stage: Stage) -> None:
    """Call the server with the protoset of a release in place of reflection. Raises Failed."""
    since = time.monotonic()
    tool = Language(name="grpcurl", tool="grpcurl", folder=ROOT, silent=(), suite=(), golden=(), tour=())
    path = (await run(tool, (sys.executable, "tools/generate.py", "--protoset"))).strip()
    method = f"{GetCallerRequest.DESCRIPTOR.file.package}.CallerService/GetCaller"
    grpcurl = str(Path(sys.executable).parent / "grpcurl")
    command = (grpcurl, "-plaintext", "-protoset", path, "-H", "authorization: Bearer {key}", "{address}", method)
    await run(tool, command, key=stage.key, address=stage.address)
    told("grpcurl with the protoset", since)


async def installs(stage: Stage) -> None:
    """Install the Python client from a copy of its folder beside others' packages, and use it there. Raises Failed."""
    for packages, protobuf in BESIDE.items():
        since = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            tool = Language(name="pip", tool=sys.executable, folder=Path(folder), silent=(), suite=(), golden=(), tour=())
            ignored = shutil.ignore_patterns("*.egg-info", "build", "__pycache__")
            shutil.copytree(ROOT / "clients" / "python", f"{folder}/client", ignore=ignored)
            python = f"{folder}/venv/bin/python"
            await run(tool, (sys.executable, "-m", "venv", f"{folder}/venv"))
            await run(tool, (python, "-m", "pip", "install", "--quiet", "--no-compile", f"{folder}/client", *packages))
            await run(tool, (python, "-m", "pip", "check"))
            program = str(ROOT / "tests" / "conformance" / "beside.py")
            said = await run(tool, (python, "-I", program, "{address}"), address=stage.address, key=stage.key)
            if not said.startswith(protobuf):
                raise Failed(f"beside {packages} there is protobuf {said} in place of {protobuf}")
        told(f"installed and used beside {', '.join(packages)}", since)


async def main(languages: list[Language]) -> None:
    """Run all. Raises Failed."""
    since = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        golden = Path(folder) / "golden"
        golden.mkdir()
        messages = list(goldens.examples(IMAGE))
        goldens.write(golden / "python.jsonl", messages)
        async with staged(Path(folder)) as stage:
            told(f"a server with {ITEMS} blobs, {len(messages)} messages of every type", since)
            await protoset(stage)
            for language in languages:
                await conforms(language, stage, golden)
            if PYTHON in languages:
                await installs(stage)
        since = time.monotonic()
        for language in languages[:-1]:  # The last one has read what all others have written.
            if language.golden:
                await run(language, language.golden, golden=str(golden))
        compare(golden, messages)
        told("what each language has written, the others read", since)


def chosen(names: list[str]) -> list[Language]:
    """The languages to test. Exits where one is unknown, or missing in CI; says which others are left out."""
    if unknown := set(names) - {language.name for language in LANGUAGES}:
        sys.exit(f"no such language: {', '.join(sorted(unknown))}")
    found = []
    for language in LANGUAGES:
        if names and language.name not in names:
            continue
        if shutil.which(language.tool) is not None:
            found.append(language)
        elif IN_CI or names:
            sys.exit(f"{language.tool} is not installed, which the client for {language.name} needs")
        else:
            print(f"{language.tool} is not installed: the client for {language.name} is left out")
    return found


if __name__ == "__main__":
    started = time.monotonic()
    try:
        asyncio.run(main(chosen(sys.argv[1:])))
    except Failed as failed:
        sys.exit(f"FAILED: {failed}")
    told("all", started)
