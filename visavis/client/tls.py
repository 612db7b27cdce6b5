"""TLS settings of a client."""

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class Tls:
    """Files (PEM) for an encrypted connection.

    authority: certificates that the server's one must come from; None trusts the system's.
    certificate, key: the client's own, for mTLS; both or none.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. ValueError when only one of certificate and key is given, OSError for unreadable files."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("mTLS needs the certificate and the key; only one of them is given")
        return grpc.ssl_channel_credentials(
            root_certificates=self.authority.read_bytes() if self.authority else None,
            private_key=self.key.read_bytes() if self.key else None,
            certificate_chain=self.certificate.read_bytes() if self.certificate else None,
        )
