"""`blobhub profile`: the servers that one works with, and the keys for them."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from blobhub_cli.command import Noun, Shared
from blobhub_cli.profiles import Profiles

noun = Noun("profile", "Profiles: servers and the keys for them. `blobhub login` makes them.")
Name = Annotated[str, Argument(help="The profile's name.")]


@noun.local("list", "blobhub profile list")
def list_all(shared: Shared) -> None:
    """List the profiles; keys are not shown."""
    stored = Profiles.load()
    if shared.out.as_json:
        for name, profile in stored.profiles.items():
            has_key = bool(profile.key)
            shared.out.json(
                {"name": name, "address": profile.address, "has_key": has_key, "current": name == stored.current}
            )
        return
    rows = [
        ["*" if name == stored.current else "", name, profile.address, "yes" if profile.key else "no"]
        for name, profile in stored.profiles.items()
    ]
    shared.out.rows(["", "NAME", "ADDRESS", "KEY"], rows)


@noun.local("use", "blobhub profile use production")
def use(shared: Shared, name: Name) -> None:
    """Make a profile the one that holds unless a command says otherwise."""
    stored = Profiles.load()
    profile = stored.get(name)
    stored.current = name
    stored.save()
    shared.out.line(f"{name} is used now: {profile.address}")


@noun.local("remove", "blobhub profile remove production")
def remove(shared: Shared, name: Name) -> None:
    """Forget a profile and its key. The key goes on working: revoke it with `blobhub key revoke`."""
    stored = Profiles.load()
    stored.get(name)
    del stored.profiles[name]
    stored.save()
    shared.out.line(f"removed {name}")
