"""Encrypted connections: the server's certificate is checked, and the client's own is shown."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.client.fake_server import FakeService
from tests.runtime.certificates import Identity, make_authority, make_identity
from visavis.client import ServerUnavailable, Tls, VisavisClient
from visavis.v1 import talking_head_pb2_grpc


@pytest.fixture
def authority(tmp_path: Path) -> Identity:
    """Signs the server and the client."""
    return make_authority(tmp_path, "authority")


@pytest.fixture
async def mtls_address(tmp_path: Path, authority: Identity) -> AsyncIterator[str]:
    """A fake server that asks for a certificate."""
    identity = make_identity(tmp_path, "server", authority)
    credentials = grpc.ssl_server_credentials(
        [(identity.key.read_bytes(), identity.certificate.read_bytes())],
        root_certificates=authority.certificate.read_bytes(),
        require_client_auth=True,
    )
    server = grpc.aio.server()
    talking_head_pb2_grpc.add_TalkingHeadServiceServicer_to_server(FakeService(), server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_mtls(tmp_path: Path, authority: Identity, mtls_address: str) -> None:
    identity = make_identity(tmp_path, "client", authority)
    tls = Tls(authority.certificate, identity.certificate, identity.key)
    async with VisavisClient(mtls_address, tls=tls) as client:
        assert (await client.server_info()).version == "1"


async def test_a_stranger_is_not_trusted(tmp_path: Path, authority: Identity, mtls_address: str) -> None:
    stranger = make_authority(tmp_path, "stranger")
    for tls in (Tls(stranger.certificate), Tls(authority.certificate), None):
        async with VisavisClient(mtls_address, tls=tls) as client:
            with pytest.raises(ServerUnavailable):
                await client.server_info()


def test_half_an_identity_is_refused(authority: Identity) -> None:
    with pytest.raises(ValueError, match="only one"):
        VisavisClient("127.0.0.1:1", tls=Tls(authority.certificate, certificate=authority.certificate))
