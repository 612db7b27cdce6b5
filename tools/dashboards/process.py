"""What every service process shows of itself."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as dashboards

from tools.dashboards.panels import Query, lines, row


def process_panels(board: dashboards.Dashboard, stage: str) -> dashboards.Dashboard:
    """Slots, refusals, memory, processor and builds of the instances of one service."""
    here = f'namespace=~"$namespace",stage="{stage}"'
    # Process metrics know no stage; their instances do.
    of_stage = f"and on (instance) visavis_build_info{{{here}}}"
    return (
        board.with_row(row("Instances"))
        .with_panel(
            lines(
                "Slots",
                "Used and all, of every instance.",
                "short",
                Query(f"visavis_used_slots{{{here}}}", "{{instance}} used"),
                Query(f"visavis_slots{{{here}}}", "{{instance}}"),
            )
        )
        .with_panel(
            lines(
                "Refused sessions",
                "By reason.",
                "cps",
                Query(
                    f"sum by (reason) (rate(visavis_rejected_sessions_total{{{here}}}[$__rate_interval]))", "{{reason}}"
                ),
            )
        )
        .with_panel(
            lines(
                "Serving, draining, Redis",
                "1 is yes.",
                "short",
                Query(f"visavis_serving{{{here}}}", "{{instance}} serves"),
                Query(f"visavis_draining{{{here}}}", "{{instance}} drains"),
                Query(f"visavis_redis_reachable{{{here}}}", "{{instance}} reaches Redis"),
            )
        )
        .with_panel(
            lines(
                "Processor",
                "Of the process that speaks gRPC; its worker is apart.",
                "percentunit",
                Query(f"rate(process_cpu_seconds_total[$__rate_interval]) {of_stage}", "{{instance}}"),
            )
        )
        .with_panel(
            lines(
                "Memory",
                "Of the process that speaks gRPC; its worker is apart.",
                "bytes",
                Query(f"process_resident_memory_bytes {of_stage}", "{{instance}}"),
            )
        )
        .with_panel(
            lines(
                "Tasks and open files",
                "Of the process that speaks gRPC. With the same load they stay the same; what climbs leaks.",
                "short",
                Query(f"visavis_event_loop_tasks{{{here}}}", "{{instance}} tasks"),
                Query(f"process_open_fds {of_stage}", "{{instance}} files"),
            )
        )
        .with_panel(
            lines(
                "Builds",
                "Instances of each version.",
                "short",
                Query(f"sum by (version) (visavis_build_info{{{here}}})", "{{version}}"),
            )
        )
    )
