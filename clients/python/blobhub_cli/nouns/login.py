"""`blobhub login` and `blobhub whoami`."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

from blobhub.v1 import caller_pb2
from typer import Argument, Option

from blobhub_cli.command import Noun, Shared
from blobhub_cli.hub import Hub, open_hub
from blobhub_cli.nouns.asking import ask_secret
from blobhub_cli.output import Output
from blobhub_cli.plain import readable, readable_fields
from blobhub_cli.profiles import DEFAULT, DEFAULT_ADDRESS, Profile, Profiles, file_path

noun = Noun(None, "")
LOOPBACK = ("127.", "localhost", "[::1]", "unix:")


@noun.local(
    "login",
    "blobhub login 127.0.0.1:7443",
    "blobhub login https://hub.example.org:443 --profile production < key.txt",
)
def login(
    shared: Shared,
    address: Annotated[str, Argument(help="HOST:PORT, or https://HOST:PORT for TLS.")] = DEFAULT_ADDRESS,
    ca_file: Annotated[str, Option("--ca-file", help="The authority of the server's certificate, in PEM.")] = "",
) -> None:
    """Try a key, and keep it in a profile that is used from now on.

    The key comes from BLOBHUB_API_KEY, from standard input, or is asked for; it never stands on a command line.
    """
    stored, name = Profiles.load(), shared.profile or DEFAULT
    key = os.environ.get("BLOBHUB_API_KEY") or ask_secret("Key")
    profile = Profile(address=address, key=key, ca_file=ca_file)
    if not profile.is_secure and not profile.host.startswith(LOOPBACK):
        shared.out.note("The key goes over the network in clear; with TLS the address is https://HOST:PORT.")
    asyncio.run(_see_who(profile, shared.out))
    stored.profiles[name] = profile
    stored.current = name
    stored.save()
    shared.out.note(f"kept in profile {name}, in {file_path()}")


async def _see_who(profile: Profile, out: Output) -> None:
    async with open_hub(profile, out) as hub:
        await whoami(hub)


@noun.command("whoami", "blobhub whoami", "blobhub whoami --parent acme/pipeline")
async def whoami(
    hub: Hub, parent: Annotated[str, Option("--parent", help="Ask about an organization or blob.")] = ""
) -> None:
    """Show who you are to the server, and which roles you have."""
    answer = await hub.call(hub.client.callers.GetCaller, caller_pb2.GetCallerRequest(parent=parent))
    if hub.out.as_json:
        hub.out.record(answer)
        return
    hub.out.pairs({"server": hub.profile.address} | readable_fields(answer.caller))
    if answer.roles:
        hub.out.rows(["REFERENCE", "ROLE"], [[role.reference, readable(role, "role")] for role in answer.roles])


@noun.local("logout", "blobhub logout")
def logout(shared: Shared) -> None:
    """Forget the key of the profile that is used. It goes on working: revoke it with `blobhub key revoke`."""
    stored = Profiles.load()
    name = shared.profile or stored.current
    profile = stored.get(name)
    stored.profiles[name] = Profile(address=profile.address, ca_file=profile.ca_file)
    stored.save()
    shared.out.line(f"forgot the key of {name}")
