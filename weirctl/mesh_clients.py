"""Clients of the running mesh, for the commands that ask it something."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gen.rpc import Transport
from meshkit.certificates import CertificateUnusable
from meshkit.channel import ChannelTransport, open_channel
from meshkit.codec import mesh_codec
from meshkit.settings import ServiceName, SettingsError
from weirctl import home_lock, state_file
from weirctl.config import running


class NotUp(Exception):
    """No mesh runs for this home; the text says what to do."""

    def __init__(self, home: Path) -> None:
        super().__init__(f"Weir is not up for {home} (start it with `weir up`, or set WEIR_HOME)")


class Unproven(NotUp):
    """This user has no usable certificate of the operator; the text names the file."""

    def __init__(self, fault: CertificateUnusable) -> None:
        Exception.__init__(self, f"The services know nobody without a certificate: {fault}")


def state_of(home: Path) -> state_file.MeshState:
    """What the running `weir up` says of its mesh. Raises NotUp."""
    state = state_file.read(home)
    if state is None or home_lock.holder(home) is None:
        raise NotUp(home)
    return state


@asynccontextmanager
async def transport_to(service: ServiceName, home: Path) -> AsyncIterator[Transport]:
    """Carries calls to a service of the mesh that runs for `home`. Raises NotUp, Unproven."""
    state_of(home)
    try:
        settings = running(home)
        channel = open_channel(settings.address(service), settings.towards(service, "operator"))
    except SettingsError as error:
        raise NotUp(home) from error
    except CertificateUnusable as error:
        raise Unproven(error) from error
    async with channel:
        yield ChannelTransport(channel, mesh_codec())
