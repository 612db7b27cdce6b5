"""The gateway's dashboard."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard as dashboards

from tools.dashboards.panels import Limit, Query, dashboard, lines, row, spread
from tools.dashboards.process import process_panels
from visavis.contract import CHUNK_SECONDS

_HERE: Final = 'namespace=~"$namespace"'
_GATEWAY: Final = f'{_HERE},stage="gateway"'


def gateway() -> dashboards.Dashboard:
    """Chunks and frames, the hops between client and stages, and what sessions survive."""
    board = dashboard("visavis-gateway", "visavis / Gateway", "The public service: sessions, hops, moves, checkpoints.")
    return process_panels(_survival(_hops(_chunks(board))), "gateway")


def _chunks(board: dashboards.Dashboard) -> dashboards.Dashboard:
    stage_seconds = f"sum by (stage, le) (rate(visavis_gateway_stage_seconds_bucket{{{_HERE}}}[$__rate_interval]))"
    return (
        board.with_panel(
            spread("A chunk's whole way", "Points are traces.", "visavis_chunk_duration_seconds", _GATEWAY)
        )
        .with_panel(
            spread(
                "Time to first frame", "Of a session's first speech.", "visavis_time_to_first_frame_seconds", _GATEWAY
            )
        )
        .with_panel(
            lines(
                "Time in each stage, p95",
                "Queued and computed, as the stages report it.",
                "s",
                Query(f"histogram_quantile(0.95, {stage_seconds})", "{{stage}}"),
                limit=Limit(CHUNK_SECONDS),
            )
        )
        .with_panel(
            lines(
                "Real-time factor of a chunk, p95",
                "The slowest stage's time over the chunk's playout.",
                "short",
                Query(f"histogram_quantile(0.95, {_by_le('visavis_gateway_real_time_factor_ratio')})", "p95"),
                limit=Limit(1),
            )
        )
        .with_panel(
            lines(
                "Drift, p99",
                "Between sound and pictures sent; half a frame is the limit.",
                "s",
                Query(f"histogram_quantile(0.99, {_by_le('visavis_gateway_drift_seconds')})", "p99"),
                limit=Limit(0.02),
            )
        )
        .with_panel(
            lines(
                "Chunks",
                "Written, by kind.",
                "cps",
                Query(_rate("visavis_gateway_chunks_total", "kind"), "{{kind}}"),
            )
        )
        .with_panel(lines("Frames", "Written to clients.", "cps", Query(_rate("visavis_gateway_frames_total"))))
        .with_panel(
            lines("Bytes of frames", "Written to clients.", "Bps", Query(_rate("visavis_gateway_frame_bytes_total")))
        )
    )


def _hops(board: dashboards.Dashboard) -> dashboards.Dashboard:
    return (
        board.with_row(row("Hops"))
        .with_panel(
            lines(
                "Depth",
                "Chunks that a stage owes; responses that wait for their client.",
                "short",
                Query(f"sum by (hop) (visavis_gateway_hop_depth{{{_HERE}}})", "{{hop}}"),
            )
        )
        .with_panel(
            lines(
                "Blocked time",
                "Seconds that senders waited, a second: 1 is one session that only waits.",
                "short",
                Query(_rate("visavis_gateway_hop_blocked_seconds_total", "hop"), "{{hop}}"),
            )
        )
        .with_panel(
            lines(
                "Clients not read",
                "Because their speech buffer was full, seconds a second: they send faster than real time.",
                "short",
                Query(_rate("visavis_gateway_speech_blocked_seconds_total")),
            )
        )
    )


def _survival(board: dashboards.Dashboard) -> dashboards.Dashboard:
    seconds = f"sum by (stage, cause, le) (rate(visavis_gateway_move_seconds_bucket{{{_HERE}}}[$__rate_interval]))"
    return (
        board.with_row(row("Sessions that survive"))
        .with_panel(
            lines(
                "Moves",
                "Handed over by draining instances, recovered from lost ones.",
                "cps",
                Query(_rate("visavis_gateway_hand_overs_total", "stage", "kind"), "hand-over {{stage}} {{kind}}"),
                Query(_rate("visavis_gateway_recoveries_total", "stage", "kind"), "recovery {{stage}} {{kind}}"),
            )
        )
        .with_panel(
            lines(
                "Time of a move, p95",
                "Up to a chunk's playout nobody notices it.",
                "s",
                Query(f"histogram_quantile(0.95, {seconds})", "{{cause}} {{stage}}"),
                limit=Limit(CHUNK_SECONDS),
            )
        )
        .with_panel(
            lines(
                "Resumed sessions",
                "Streams that asked to go on with a session.",
                "cps",
                Query(_rate("visavis_gateway_resumed_sessions_total", "result"), "{{result}}"),
            )
        )
        .with_panel(
            lines(
                "Checkpoints",
                "What Redis is asked to keep.",
                "cps",
                Query(_rate("visavis_gateway_checkpoints_total", "result"), "{{result}}"),
            )
        )
        .with_panel(
            lines(
                "Bytes of checkpoints",
                "Written to Redis.",
                "Bps",
                Query(_rate("visavis_gateway_checkpoint_bytes_total")),
            )
        )
    )


def _rate(metric: str, *labels: str) -> str:
    by = f" by ({', '.join(labels)})" if labels else ""
    return f"sum{by} (rate({metric}{{{_HERE}}}[$__rate_interval]))"


def _by_le(histogram: str) -> str:
    return f"sum by (le) (rate({histogram}_bucket{{{_HERE}}}[$__rate_interval]))"
