"""The clients that are tested, and how each is called. `{…}` in a command is filled in by the run."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Language:
    """A client: what has to be installed for it, and the commands that run in its folder.

    `fetch` gets what it needs, which others would tell of as they go. `silent` are checks that print nothing when all is
    well. `suite` runs its tests, `golden` those of messages alone. `tour` runs its example, `program` the file that the
    `prelude` makes of its lines in the README, which come for `{lines}`.
    """

    name: str
    tool: str
    folder: Path
    silent: tuple[tuple[str, ...], ...]
    suite: tuple[str, ...]
    golden: tuple[str, ...]
    tour: tuple[str, ...]
    program: tuple[str, ...] = ()
    prelude: str = ""
    fetch: tuple[str, ...] = ()


PYTHON = Language(
    name="python",
    tool=sys.executable,
    folder=ROOT / "tests",
    silent=(),
    suite=(sys.executable, "-m", "conformance.python_suite"),
    golden=(),
    tour=(sys.executable, str(ROOT / "clients/python/examples/tour.py"), "{address}", "{definition}"),
)
"""Its stubs write and judge the golden messages, in the run itself."""

GO = Language(
    name="go",
    tool="go",
    folder=ROOT / "clients" / "go",
    fetch=("go", "mod", "download"),
    silent=(("gofmt", "-l", "."), ("go", "vet", "./...")),
    suite=("go", "test", "-count=1", "."),
    golden=("go", "test", "-count=1", "-run", "MessagesOfEveryType", "."),
    tour=("go", "run", "./examples/tour", "{address}", "{definition}"),
    program=("go", "run", "{program}.go"),
    prelude="""package main

import (
	"context"
	"fmt"
	"os"

	"github.com/blobhub/blobhub/clients/go"
	pb "github.com/blobhub/blobhub/clients/go/blobhub/v1"
)

func main() {{
	ctx := context.Background()
{lines}
}}
""",
)

MAVEN = ("mvn", "--batch-mode", "--quiet", "--no-transfer-progress", "-Dstyle.color=never", "test-compile", "exec:java")
JAVA = Language(
    name="java",
    tool="mvn",
    folder=ROOT / "clients" / "java",
    silent=(),
    suite=(*MAVEN, "-Dexec.mainClass=io.github.blobhub.client.Conformance"),
    golden=(*MAVEN, "-Dexec.mainClass=io.github.blobhub.client.Conformance", "-Dexec.args=golden"),
    tour=(*MAVEN, "-Dexec.mainClass=io.github.blobhub.client.Tour", "-Dexec.args={address} {definition}"),
    program=(*MAVEN[:-1], "exec:exec", "-Dexec.executable=java", "-Dexec.args=-classpath %classpath {program}.java"),
    prelude="""import io.github.blobhub.client.BlobHub;
import io.github.blobhub.v1.CreateSessionRequest;
import io.github.blobhub.v1.SessionServiceGrpc;
import java.util.Map;

public class Program {{
  public static void main(String[] arguments) {{
{lines}
  }}
}}
""",
)
"""It sends no models. Its first build takes most of its time."""

NPX = ("npx", "--no-install")
TYPESCRIPT = Language(
    name="typescript",
    tool="npm",
    folder=ROOT / "clients" / "typescript",
    fetch=("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"),
    silent=(
        (*NPX, "tsc"),
        (*NPX, "tsc", "--project", "tsconfig.web.json"),
        (*NPX, "eslint", "."),
        (*NPX, "prettier", "--check", "--log-level", "warn", "."),
    ),
    suite=("node", "--test", "dist/test/client.test.js", "dist/test/worker.test.js", "dist/test/conformance.test.js"),
    golden=("node", "--test", "--test-name-pattern=messages of every type", "dist/test/conformance.test.js"),
    tour=("node", "dist/examples/tour.js", "{address}", "{definition}"),
    program=("node", "{program}.mjs"),
    prelude=f"""import {{{{ connect }}}} from "{(ROOT / "clients/typescript/dist/src/index.js").as_uri()}";

{{lines}}
""",
)
"""Compiled by its checks, before it is run."""

LANGUAGES = (PYTHON, GO, JAVA, TYPESCRIPT)
IN_CI = os.environ.get("CI") == "true"
"""Whether a language that is not installed is an error."""
