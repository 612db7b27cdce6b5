"""What is counted in Redis, and what is reckoned from it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from rich.console import Console

from tests.bench.histories import good_run
from tests.bench.test_figures import QUIET
from visavis.bench.capacity import sent_bytes
from visavis.bench.capacity_plan import Assumptions, CapacityPlan, Measured, lookup_seconds, plan_capacity
from visavis.bench.capacity_report import SCHEMA, CapacityFindings, print_findings, write_findings
from visavis.bench.chunk_messages import BASE, MINI
from visavis.bench.gateway_cost import GatewayCost
from visavis.bench.load_figures import load_figures
from visavis.bench.placement_cost import PlacementCost
from visavis.bench.redis_monitor import RedisMonitor, SentCommand, parse_monitor_line
from visavis.bench.redis_replay import ReplayFigures, replay, replayable
from visavis.bench.redis_traffic import RedisTraffic, Stretch, split_traffic
from visavis.bench.redis_use import RedisUse
from visavis.bench.surroundings import surroundings
from visavis.runtime.embedded_redis import EmbeddedRedis

PLACEMENT = (PlacementCost(1, 0.001, 0.0005, 0.0001), PlacementCost(1001, 0.3, 0.1005, 0.0041))
MEASURED = Measured(
    instance_commands_per_second=1.0,
    session_commands_per_second=0.5,
    session_commands_once=10.0,
    redis_cpu_seconds=10e-6,
    redis=RedisUse(cpu_seconds=0.0002, received_bytes=100_000.0, memory_bytes=1e6),
    gateway_cpu_seconds=0.01,
    placement=PLACEMENT,
    out_bytes=960_000.0,
)
ASSUMED = Assumptions(
    gpus=1000, sessions_per_gpu=10, session_seconds=100, nic_bits_per_second=8e9, redis_memory_bytes=1e9
)


def units(plan: CapacityPlan) -> dict[str, float]:
    return {each.name: each.needed for each in plan.resources}


def test_a_plan_adds_up_what_was_measured() -> None:
    plan = plan_capacity(MEASURED, ASSUMED)
    assert (plan.sessions, plan.starts_per_second, plan.instances) == (10_000, 100, 3000)
    found = units(plan)
    assert found["Redis: commands, values as of tiny"] == pytest.approx((5000 + 1000 + 3000) * 10e-6)
    assert found["Redis: checkpoints and records"] == pytest.approx(2)
    assert found["Redis: network"] == pytest.approx(1)
    assert found["Redis: memory"] == pytest.approx(10)
    assert found["gateways: relaying"] == pytest.approx(100)
    assert found["gateways: network"] == pytest.approx(10_000 * 8e6 / 8e9)
    # 100 gateways keep each list for 2 s, so half of the starts find one.
    assert found["gateways: looking up instances"] == pytest.approx(50 * 3 * 0.1004)
    assert found["Redis: looking up instances"] == pytest.approx(50 * 3 * 0.004096)
    rare = units(plan_capacity(MEASURED, replace(ASSUMED, session_seconds=1000)))
    assert rare["gateways: looking up instances"] == pytest.approx(10 * 3 * 0.1004)
    assert found["gateways: one lookup holds the event loop"] == pytest.approx(0.1004 / 0.04)


def test_the_first_to_break_comes_first_and_breaks_where_it_says() -> None:
    plan = plan_capacity(MEASURED, ASSUMED)
    breaks = [each.breaks_at_gpus for each in plan.resources]
    assert breaks == sorted(breaks)
    for each in plan.resources:
        at = replace(ASSUMED, gpus=each.breaks_at_gpus)
        before = replace(ASSUMED, gpus=each.breaks_at_gpus - 1)
        assert units(plan_capacity(MEASURED, at))[each.name] >= 1
        assert units(plan_capacity(MEASURED, before))[each.name] < 1


def test_lookups_between_measured_numbers_lie_on_a_line() -> None:
    assert lookup_seconds(PLACEMENT, 501, lambda each: each.redis_cpu_seconds) == pytest.approx(0.0021)
    assert lookup_seconds(PLACEMENT, 2001, lambda each: each.redis_cpu_seconds) == pytest.approx(0.0081)


def test_a_gateway_sends_pictures_once_and_latents_to_the_next_stage() -> None:
    assert sent_bytes(MINI, "raw") == pytest.approx(24 * 256 * 256 * 3 + 30_720 + 66_560 + 12_288 + 98_304, rel=0.001)
    assert sent_bytes(BASE, "jpeg") < sent_bytes(BASE, "raw") / 10


def test_three_rates_are_told_apart() -> None:
    idle = Stretch(Counter(PING=20, EVAL=10), 10, 0)
    plateau = Stretch(Counter(PING=20, EVAL=10 + 8, SET=4), 10, 40)
    whole = Stretch(Counter(PING=40, EVAL=20 + 16 + 12, SET=8 + 4, DEL=4), 20, 80)
    alone, running, once = split_traffic(idle, plateau, whole, sessions=4)
    assert alone == {"PING": 2.0, "EVAL": 1.0}
    assert running == pytest.approx({"EVAL": 0.2, "SET": 0.1})
    assert once == pytest.approx({"EVAL": 3.0, "SET": 1.0, "DEL": 1.0})


def test_lines_of_monitor_are_read_with_their_escapes() -> None:
    line = rb'1700000000.250000 [0 unix:/tmp/a] "SET" "a key" "\x00\xff \"q\" \\ \n"'
    assert parse_monitor_line(line, 1.0) == SentCommand(1700000001.25, (b"SET", b"a key", b'\x00\xff "q" \\ \n'))
    assert parse_monitor_line(b'1700000000.25 [0 lua] "GET" "a"') is None
    assert parse_monitor_line(b"OK") is None


def test_what_clients_sent_is_seen_and_can_be_sent_again() -> None:
    script = "redis.call('SET', KEYS[1], ARGV[1])\nreturn 1"
    value = bytes(range(256))
    with EmbeddedRedis() as server:
        with RedisMonitor(server.url) as monitor:
            client = redis.Redis.from_url(server.url)
            client.eval(script, 1, "visavis:{a}:b", value)
            client.set("visavis:token", "1700000000123456")
            client.close()
        assert client.get("visavis:{a}:b") == value
    seen = [command.words for command in monitor.commands if command.name in ("EVAL", "SET")]
    assert seen == [
        (b"EVAL", script.encode(), b"1", b"visavis:{a}:b", value),
        (b"SET", b"visavis:token", b"1700000000123456"),
    ]
    again = replayable(monitor.commands)
    assert (b"SET", b"visavis:token", b"9007199254740990") in again
    figures = replay([words for words in again if words[0] in (b"EVAL", b"SET")], 0.3, 1)
    assert figures.errors == 0
    assert figures.operations > 0
    assert figures.operations_per_second > 0


def test_the_page_shows_measured_and_reckoned(tmp_path: Path) -> None:
    traffic = RedisTraffic(8, 30.0, 240.0, {"PING": 2.0}, {"EVAL": 0.2}, {"SET": 1.0}, load_figures(good_run()))
    found = CapacityFindings(
        schema=SCHEMA,
        surroundings=surroundings(),
        machine=QUIET,
        traffic=traffic,
        replay=ReplayFigures(1000, 0, 1.0, 1000.0, 0.01, 10e-6),
        placement=PLACEMENT,
        gateways=(GatewayCost(20, "base", "jpeg", 0.01, 2.0**20, MEASURED.redis, load_figures(good_run())),),
        measured=MEASURED,
        assumed=ASSUMED,
        plan=plan_capacity(MEASURED, ASSUMED),
    )
    page, figures = write_findings(found, tmp_path)
    text = page.read_text()
    for expected in ("| PING | 2.00 |", "| base jpeg | 20 | 10.00 ms | 1.0 MiB |", "10000 sessions x 10.00 ms CPU"):
        assert expected in text
    assert '"schema": "visavis.capacity/1"' in figures.read_text()
    console = Console(record=True, width=160)
    print_findings(found, console)
    assert "what breaks first" in console.export_text()
