"""What `talk` and `demo` share: the table, and a system of one's own when there is no server."""

import asyncio

from rich.console import Console

from visavis.bench.measured_session import SessionMeasurement
from visavis.bench.stage_table import StageFigures, stage_table
from visavis.cli.errors import CommandError
from visavis.cli.local_system import LocalSystem, default_settings, local_system
from visavis.cli.progress import talking_bar, warn_of_random_weights
from visavis.cli.render import RenderJob, render
from visavis.client import ClientError, Tls

_WATCH_SECONDS = 0.2


def render_on_server(address: str, tls: Tls | None, job: RenderJob) -> SessionMeasurement:
    """Renders on a running gateway and shows how it went."""
    return _finish(job, asyncio.run(_render(address, tls, job, Console())))


def render_with_own_system(preset: str, job: RenderJob) -> SessionMeasurement:
    """Starts everything, renders, shows how it went, and stops everything."""
    console = Console()
    # A line that vanishes: the first one that stays says whether the weights are random.
    status = console.status("starting")
    with status, local_system(default_settings(preset, job.sampling), status.update) as system:
        status.stop()
        measurement = asyncio.run(_render_watched(system, job, console))
        status.update("stopping")
        status.start()
    return _finish(job, measurement)


async def _render_watched(system: LocalSystem, job: RenderJob, console: Console) -> SessionMeasurement:
    """Renders until one of the system's processes dies; that is then the error, not what the client saw of it."""
    rendering = asyncio.create_task(_render(system.gateway_address, None, job, console))
    try:
        while not rendering.done():
            system.supervisor.check()
            await asyncio.wait([rendering], timeout=_WATCH_SECONDS)
        return rendering.result()
    except CommandError:
        await asyncio.sleep(_WATCH_SECONDS)  # a process that took the session with it may still be ending
        system.supervisor.check()
        raise
    finally:
        rendering.cancel()
        await asyncio.gather(rendering, return_exceptions=True)


async def _render(address: str, tls: Tls | None, job: RenderJob, console: Console) -> SessionMeasurement:
    with talking_bar(console, job.speech.seconds) as on_progress:

        def on_model(name: str, random_weights: bool) -> None:
            if random_weights:
                warn_of_random_weights(console, name)

        try:
            return await render(address, tls, job, on_model=on_model, on_progress=on_progress)
        except ClientError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"{job.output} cannot be written ({error.strerror or error})") from error


def _finish(job: RenderJob, measurement: SessionMeasurement) -> SessionMeasurement:
    console = Console()
    console.print(stage_table(StageFigures.of(measurement.chunks), "time per chunk of 0.96 s"))
    console.print(f"time to first frame  {measurement.time_to_first_frame_seconds * 1000:.0f} ms")
    factor = measurement.wall_seconds / measurement.video_seconds
    pace = "as fast as possible" if job.fast else "speech sent in real time, so at least about 1"
    console.print(f"real-time factor     {factor:.2f}  (wall time per second of video; {pace})")
    if not job.fast:
        console.print(f"late chunks          {measurement.late_chunks} of {len(measurement.chunks)}")
    console.print(f"wrote {job.output}  ({measurement.video_seconds:.2f} s, marked as synthetic)")
    return measurement
