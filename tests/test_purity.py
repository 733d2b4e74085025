"""Rules decide by themselves: what is loaded when they are imported."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import blobhub_server
import pytest

GROUND = {"sqlalchemy", "google.protobuf", "structlog", "grpc", "blobhub"}
PURE = {
    "blobhub_server.blobtypes.json_text",
    "blobhub_server.blobtypes.values",
    "blobhub_server.errors",
    "blobhub_server.scheduler.timetable",
    "blobhub_server.workflow.definitions.check",
    "blobhub_server.workflow.definitions.document",
    "blobhub_server.workflow.definitions.graph",
    "blobhub_server.workflow.errors",
    "blobhub_server.workflow.interpreter",
    "blobhub_server.workflow.runtime.decision",
}
IMPORT = "import importlib, json, sys; importlib.import_module(sys.argv[1]); print(json.dumps(sorted(sys.modules)))"


def modules() -> set[str]:
    walked = (module.name for module in pkgutil.walk_packages(blobhub_server.__path__, "blobhub_server."))
    return {name for name in walked if "rules" in name.split(".")} | PURE


def test_every_slice_and_the_platform_have_rules() -> None:
    packages = {name.partition(".rules")[0] for name in modules() - PURE}
    assert {"blobhub_server.platform", "blobhub_server.workflow"} <= packages


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_pure_module_loads_no_sql_no_protobuf_no_grpc_and_no_log(name: str) -> None:
    ran = subprocess.run([sys.executable, "-c", IMPORT, name], capture_output=True, text=True, check=True)
    assert GROUND & set(json.loads(ran.stdout)) == set()
