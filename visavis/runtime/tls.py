"""TLS and mutual TLS of servers and channels, from PEM files."""

import grpc

from visavis.runtime.settings import TlsSettings


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials | None:
    """Credentials of the server; None means plain text. With a client authority, clients must show a certificate."""
    if settings.certificate is None or settings.key is None:
        return None
    authority = settings.client_authority
    return grpc.ssl_server_credentials(
        [(settings.key.read_bytes(), settings.certificate.read_bytes())],
        root_certificates=None if authority is None else authority.read_bytes(),
        require_client_auth=authority is not None,
    )


def channel_credentials(settings: TlsSettings) -> grpc.ChannelCredentials | None:
    """Credentials for calling other services; None means plain text. Shows the own certificate, where there is one."""
    if settings.server_authority is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=settings.server_authority.read_bytes(),
        private_key=None if settings.key is None else settings.key.read_bytes(),
        certificate_chain=None if settings.certificate is None else settings.certificate.read_bytes(),
    )
