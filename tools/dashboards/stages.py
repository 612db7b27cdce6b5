"""The dashboards of the three stages: one shape, and what each has of its own."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as dashboards

from tools.dashboards.panels import Limit, Query, dashboard, lines, spread
from tools.dashboards.process import process_panels
from visavis.contract import CHUNK_SECONDS


def audio_encoder() -> dashboards.Dashboard:
    """Speech to speech latents."""
    return process_panels(_stage("audio_encoder", "Audio encoder", "Speech to speech latents."), "audio_encoder")


def generator() -> dashboards.Dashboard:
    """Speech latents to video latents; holds the sessions' caches under leases."""
    here = 'namespace=~"$namespace",stage="generator"'
    board = _stage("generator", "Generator", "Speech latents to video latents: the diffusion transformer.")
    own = (
        board.with_panel(
            lines(
                "Cache",
                "Keys and values on the device: context of running sessions, sinks of avatars.",
                "bytes",
                Query(f"sum by (kind) (visavis_cache_bytes{{{here}}})", "{{kind}}"),
            )
        )
        .with_panel(
            lines(
                "Sessions in real time",
                "How many the device was measured to keep when it started; at 0 it serves one all the same, for files.",
                "short",
                Query(f"visavis_real_time_sessions{{{here}}}", "{{instance}}"),
            )
        )
        .with_panel(
            lines(
                "Lease conflicts",
                "Sessions refused or ended because another generator has the lease.",
                "cps",
                Query(
                    f"sum by (reason) (rate(visavis_lease_conflicts_total{{{here}}}[$__rate_interval]))", "{{reason}}"
                ),
            )
        )
    )
    return process_panels(own, "generator")


def decoder() -> dashboards.Dashboard:
    """Video latents to encoded pictures."""
    frames = Query('sum by (instance) (rate(visavis_decoder_frames_total{namespace=~"$namespace"}[$__rate_interval]))')
    board = _stage("decoder", "Decoder", "Video latents to encoded pictures.")
    return process_panels(board.with_panel(lines("Frames", "Encoded, by instance.", "cps", frames)), "decoder")


def _stage(stage: str, title: str, text: str) -> dashboards.Dashboard:
    here = f'namespace=~"$namespace",stage="{stage}"'
    board = dashboard(f"visavis-{stage.replace('_', '-')}", f"visavis / {title}", text)
    return (
        board.with_panel(
            spread("Chunks", "From arrival to last answer. Points are traces.", "visavis_chunk_duration_seconds", here)
        )
        .with_panel(spread("Computing", "Without the wait before it.", "visavis_chunk_computed_seconds", here))
        .with_panel(
            lines(
                "Queued and computed, p95",
                "Queued grows with the sessions, computed with a slow device.",
                "s",
                *(
                    Query(
                        f"histogram_quantile(0.95, sum by (le) "
                        f"(rate(visavis_chunk_{part}_seconds_bucket{{{here}}}[$__rate_interval])))",
                        part,
                    )
                    for part in ("queued", "computed", "duration")
                ),
                limit=Limit(CHUNK_SECONDS),
            )
        )
        .with_panel(
            lines(
                "Worker at work",
                "Part of the time, by instance.",
                "percentunit",
                Query(f"visavis_worker_busy_fraction{{{here}}}", "{{instance}}"),
            )
        )
        .with_panel(
            lines(
                "Waiting",
                "Chunks in the stage, and commands that the worker has not taken.",
                "short",
                Query(f"sum(visavis_chunks_in_flight{{{here}}})", "chunks"),
                Query(f"sum(visavis_worker_queue_depth{{{here}}})", "commands"),
            )
        )
        .with_panel(
            lines(
                "Blocked sessions",
                "Seconds a second: read is our own limit, write is a gateway that does not take its answers.",
                "short",
                Query(f"sum by (side) (rate(visavis_blocked_seconds_total{{{here}}}[$__rate_interval]))", "{{side}}"),
            )
        )
        .with_panel(
            lines(
                "Borders",
                "Sessions that went back or were moved, by their state there; after an approximate one faces may jump.",
                "cps",
                Query(f"sum by (way) (rate(visavis_borders_total{{{here}}}[$__rate_interval]))", "{{way}}"),
            )
        )
        .with_panel(
            lines(
                "Worker's memory",
                "Resident, by instance.",
                "bytes",
                Query(f"visavis_worker_resident_memory_bytes{{{here}}}", "{{instance}}"),
            )
        )
        .with_panel(
            lines(
                "Models",
                "Instances of each; more than one during a rollout only.",
                "short",
                Query(f"sum by (model, fingerprint) (visavis_model_info{{{here}}})", "{{model}} {{fingerprint}}"),
            )
        )
    )
