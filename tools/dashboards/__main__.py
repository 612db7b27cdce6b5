"""Writes the dashboards to deploy/grafana, or with `--check` says which differ from what is there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tools.dashboards.gateway import gateway
from tools.dashboards.journey import journey
from tools.dashboards.overview import overview
from tools.dashboards.stages import audio_encoder, decoder, generator

FOLDER: Final = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"
DASHBOARDS: Final[dict[str, Callable[[], dashboards.Dashboard]]] = {
    "overview": overview,
    "gateway": gateway,
    "audio-encoder": audio_encoder,
    "generator": generator,
    "decoder": decoder,
    "session": journey,
}


def written_dashboards() -> dict[Path, str]:
    """The text of every dashboard's file."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return {FOLDER / f"{name}.json": encoder.encode(build().build()) + "\n" for name, build in DASHBOARDS.items()}


def main() -> int:
    """1 where `--check` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    texts = written_dashboards()
    stale = [path for path, text in texts.items() if not path.is_file() or path.read_text() != text]
    stale += sorted(set(FOLDER.glob("*.json")) - set(texts))
    if check:
        for path in stale:
            print(f"{path.relative_to(Path.cwd())} differs; run python -m tools.dashboards", file=sys.stderr)
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in stale:
        if path in texts:
            path.write_text(texts[path])
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
