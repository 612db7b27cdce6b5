"""The overview: do people see what they should, and if not, since when and where?"""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import timeseries

from tools.dashboards.panels import HALF, THIRD, Limit, Query, dashboard, lines, number, row, spread
from visavis.contract import CHUNK_SECONDS

LATE_BUDGET: Final = 0.005
SLOW_START_BUDGET: Final = 0.05
FIRST_FRAME_LIMIT_SECONDS: Final = 1.0
_HERE: Final = 'namespace=~"$namespace"'


def overview() -> dashboards.Dashboard:
    """Service levels first, then load, latency and what went wrong."""
    board = dashboard("visavis-overview", "visavis / Overview", "The service levels, and what endangers them.")
    return _trouble(_latency(_levels(board)))


def _levels(board: dashboards.Dashboard) -> dashboards.Dashboard:
    used = f'sum(visavis_used_slots{{{_HERE},stage="gateway"}})'
    return (
        board.with_panel(number("Sessions", "That run now.", "short", Query(used)))
        .with_panel(
            number(
                "Fullest stage",
                "Used over all slots of the stage with the least room.",
                "percentunit",
                Query(f"max(visavis:used_slots:ratio{{{_HERE}}})"),
                Limit(0.9),
            )
        )
        .with_panel(
            number(
                "Chunks in time, 3 days",
                "99.5 % is the level: the player never waited for one whose audio was there.",
                "percentunit",
                Query(f"1 - max(visavis:late_chunks:ratio_rate3d{{{_HERE}}})"),
                Limit(1 - LATE_BUDGET, above=False),
            )
        )
        .with_panel(
            number(
                "First frames in time, 3 days",
                "95 % is the level: within 1 s of the audio that the first chunk needs.",
                "percentunit",
                Query(f"1 - max(visavis:slow_first_frames:ratio_rate3d{{{_HERE}}})"),
                Limit(1 - SLOW_START_BUDGET, above=False),
            )
        )
        .with_panel(
            number(
                "Alerts",
                "Of visavis that fire now; each has a page in docs/runbooks.",
                "short",
                Query('count(ALERTS{alertname=~"Visavis.*",alertstate="firing"}) or vector(0)'),
                Limit(1),
            )
        )
        .with_panel(
            number(
                "Redis",
                "Part of the instances that reach it.",
                "percentunit",
                Query(f"avg(visavis_redis_reachable{{{_HERE}}})"),
                Limit(1, above=False),
            )
        )
        .with_panel(_burn("Budget of late chunks", "late_chunks", LATE_BUDGET))
        .with_panel(_burn("Budget of slow first frames", "slow_first_frames", SLOW_START_BUDGET))
    )


def _burn(title: str, rule: str, budget: float) -> timeseries.Panel:
    windows = ("5m", "1h", "6h", "3d")
    queries = [Query(f"max(visavis:{rule}:ratio_rate{w}{{{_HERE}}}) / {budget}", f"over {w}") for w in windows]
    text = "How many times faster than planned the error budget goes: 14.4 over 1 h or 6 over 6 h pages somebody."
    return lines(title, text, "short", *queries, limit=Limit(14.4), width=HALF)


def _latency(board: dashboards.Dashboard) -> dashboards.Dashboard:
    stages = f"visavis:chunk_duration_seconds:p95_5m{{{_HERE}}}"
    return (
        board.with_row(row("Latency"))
        .with_panel(
            spread(
                "A chunk's whole way",
                "From its last audio to its last frame. Points are traces.",
                "visavis_chunk_duration_seconds",
                f'{_HERE},stage="gateway"',
            )
        )
        .with_panel(
            spread(
                "Time to first frame",
                "Of a session's first speech.",
                "visavis_time_to_first_frame_seconds",
                _HERE,
            )
        )
        .with_panel(
            lines(
                "Chunk time by stage, p95",
                "Above the line a stage is slower than its chunks play.",
                "s",
                Query(stages, "{{stage}}"),
                limit=Limit(CHUNK_SECONDS),
            )
        )
        .with_panel(
            lines(
                "Real-time factor by stage",
                "Computing time for a second of video.",
                "short",
                Query(f"visavis:stage_real_time_factor:ratio_rate5m{{{_HERE}}}", "{{stage}}"),
                limit=Limit(1),
            )
        )
        .with_panel(
            lines(
                "Interruption",
                "From an interrupt to the answer after which no old frame comes.",
                "s",
                *_quantiles("visavis_gateway_interruption_seconds"),
            )
        )
    )


def _quantiles(histogram: str) -> list[Query]:
    rate = f"sum by (le) (rate({histogram}_bucket{{{_HERE}}}[$__rate_interval]))"
    return [Query(f"histogram_quantile({q}, {rate})", f"p{round(q * 100)}") for q in (0.5, 0.95, 0.99)]


def _trouble(board: dashboards.Dashboard) -> dashboards.Dashboard:
    def per_second(metric: str, *labels: str) -> str:
        by = f" by ({', '.join(labels)})" if labels else ""
        return f"sum{by} (rate({metric}{{{_HERE}}}[$__rate_interval]))"

    return (
        board.with_row(row("Load and trouble"))
        .with_panel(
            lines(
                "Used slots",
                "By stage; draining instances do not count.",
                "percentunit",
                Query(f"visavis:used_slots:ratio{{{_HERE}}}", "{{stage}}"),
                limit=Limit(0.9),
            )
        )
        .with_panel(
            lines(
                "Late, starved, dropped chunks",
                "Late is our fault, starved the client's audio, dropped an interruption or a slow reader.",
                "cps",
                Query(per_second("visavis_gateway_late_chunks_total"), "late"),
                Query(per_second("visavis_gateway_starved_chunks_total"), "starved"),
                Query(per_second("visavis_gateway_dropped_chunks_total", "reason"), "dropped: {{reason}}"),
            )
        )
        .with_panel(
            lines(
                "Refused sessions",
                "By reason, at the gateways.",
                "cps",
                Query(
                    f"sum by (reason) (rate(visavis_rejected_sessions_total{{{_HERE},"
                    'stage="gateway"}[$__rate_interval]))',
                    "{{reason}}",
                ),
            )
        )
        .with_panel(
            lines(
                "Ended sessions",
                "By gRPC status, at the gateways.",
                "cps",
                Query(
                    f'sum by (code) (rate(visavis_sessions_total{{{_HERE},stage="gateway"}}[$__rate_interval]))',
                    "{{code}}",
                ),
            )
        )
        .with_panel(
            lines(
                "Moved sessions",
                "Handed over by draining instances, recovered from lost ones.",
                "cps",
                Query(per_second("visavis_gateway_hand_overs_total", "stage", "kind"), "hand-over {{stage}} {{kind}}"),
                Query(per_second("visavis_gateway_recoveries_total", "stage", "kind"), "recovery {{stage}} {{kind}}"),
                width=THIRD,
            )
        )
        .with_panel(
            lines(
                "Serving and draining instances",
                "By stage.",
                "short",
                Query(f"sum by (stage) (visavis_serving{{{_HERE}}})", "{{stage}}"),
                Query(f"sum by (stage) (visavis_draining{{{_HERE}}})", "{{stage}} drains"),
            )
        )
    )
