"""The example of README.md runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import av

from tests.client.test_media_files import write_audio
from tests.system.parts import portrait_jpeg
from visavis.cli.local_system import LocalSystem
from visavis.cli.service_programs import REPOSITORY


def test_the_example_runs(system: LocalSystem, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    example = blocks[0].replace("127.0.0.1:50050", system.gateway_address)
    assert example != blocks[0]
    (tmp_path / "example.py").write_text(example)
    (tmp_path / "me.jpg").write_bytes(portrait_jpeg())
    write_audio(tmp_path / "hello.wav", "pcm_s16le", 22_050, "mono", seconds=1.5)
    finished = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stderr
    with av.open(str(tmp_path / "hello.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 48
