"""Grafana's dashboards as a program: `python -m tools.dashboards` writes deploy/grafana, `--check` compares."""
