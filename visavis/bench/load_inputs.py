"""Reads what `visavis load` is given: speech, encryption, and whom to talk with."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from visavis.bench.bundled import CONSENT, bundled_portrait, bundled_speech
from visavis.cli.errors import CommandError
from visavis.client import BlockingClient, ClientError, MediaError, Speech, Tls
from visavis.client.audio_file import read_speech
from visavis.client.records import ServerInfo

_REACH_SECONDS: Final = 5.0
_SOUND_SUFFIXES: Final = (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a")


def read_clips(paths: Sequence[Path]) -> tuple[list[str], list[Speech]]:
    """The clips of files and folders, in the order of their names; the bundled sentence when there are none.

    Raises CommandError.
    """
    try:
        if not paths:
            return ["(the bundled sentence)"], [bundled_speech()]
        files = [file for path in paths for file in _sound_files(path)]
        return [file.name for file in files], [read_speech(file) for file in files]
    except MediaError as error:
        raise CommandError(str(error)) from error


def _sound_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SOUND_SUFFIXES)
    if not found:
        raise CommandError(f"{path} has no sound file in it ({', '.join(_SOUND_SUFFIXES)})")
    return found


def read_tls(options: argparse.Namespace) -> Tls | None:
    """What the options say about encryption; None for none. CommandError for files that do not fit."""
    if not (options.tls or options.tls_authority or options.tls_certificate or options.tls_key):
        return None
    tls = Tls(options.tls_authority, options.tls_certificate, options.tls_key)
    try:
        tls.credentials()
    except (OSError, ValueError) as error:
        raise CommandError(f"TLS: {error}") from error
    return tls


@contextmanager
def talked_to_avatar(address: str, tls: Tls | None, avatar_id: str | None) -> Iterator[tuple[ServerInfo, str]]:
    """What the server is, and the avatar to talk with: a given one, or the bundled portrait for the time of the run.

    Raises CommandError when the server cannot be reached or refuses.
    """
    try:
        with BlockingClient(address, tls=tls) as client:
            client.wait_until_reachable(_REACH_SECONDS)
            server = client.server_info()
            if avatar_id:
                client.get_avatar(avatar_id)
                yield server, avatar_id
                return
            avatar = client.register_avatar(bundled_portrait(), CONSENT, display_name="load")
            try:
                yield server, avatar.avatar_id
            finally:
                with suppress(ClientError):  # a server that died under load must not take the report with it
                    client.delete_avatar(avatar.avatar_id)
    except (ClientError, MediaError) as error:
        raise CommandError(str(error)) from error
