"""Certificates for tests, made by the openssl command: an authority, a server, a client, and a stranger."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Identity:
    certificate: Path
    key: Path


def make_authority(folder: Path, name: str) -> Identity:
    identity = Identity(folder / f"{name}.pem", folder / f"{name}.key")
    openssl("req", "-x509", *_new_key(identity.key), "-subj", f"/CN={name}", "-days", "1", "-out", identity.certificate)
    return identity


def make_identity(folder: Path, name: str, authority: Identity) -> Identity:
    """Signed by the authority; valid for the host name `name`.test and for 127.0.0.1."""
    identity = Identity(folder / f"{name}.pem", folder / f"{name}.key")
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName=DNS:{name}.test,IP:127.0.0.1\n")
    openssl("req", *_new_key(identity.key), "-subj", f"/CN={name}.test", "-out", request)
    signer = ("-CA", authority.certificate, "-CAkey", authority.key, "-CAcreateserial")
    openssl("x509", "-req", "-in", request, *signer, "-days", "1", "-extfile", extensions, "-out", identity.certificate)
    return identity


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def _new_key(path: Path) -> tuple[str | Path, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path)
