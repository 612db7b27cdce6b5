"""One session's journey, from traces and logs: no metric knows a session."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as dashboards

from tools.dashboards.panels import HALF, dashboard, log_lines, spans


def journey() -> dashboards.Dashboard:
    """What happened to the session whose id is typed in."""
    board = dashboard(
        "visavis-session",
        "visavis / Session",
        "One session's chunks through all services, slow ones first, and what the services said about it.",
    )
    whole = '{ name = "gateway session" && span.visavis.session_id = "$session" }'
    return (
        board.with_variable(dashboards.TextBoxVariable("session").label("Session"))
        .with_variable(dashboards.DatasourceVariable("traces").label("Traces").type("tempo"))
        .with_variable(dashboards.DatasourceVariable("logs").label("Logs").type("loki"))
        .with_panel(spans("The session", "Its trace has every chunk in every service.", whole))
        .with_panel(spans("Its chunks", "A chunk's whole way.", f'{whole} >> {{ name = "gateway chunk" }}', width=HALF))
        .with_panel(
            spans(
                "Late chunks",
                "Those that the player waited for.",
                f'{whole} >> {{ name = "gateway chunk" && span.visavis.late = true }}',
                width=HALF,
            )
        )
        .with_panel(
            spans(
                "Its chunks in the stages",
                "Queued and computed time are attributes.",
                f'{whole} >> {{ name =~ "(audio_encoder|generator|decoder) chunk" }}',
            )
        )
        .with_panel(
            log_lines(
                "What the services said",
                "Every line that names the session.",
                '{namespace=~"$namespace"} | json | session_id = "$session"',
            )
        )
    )
