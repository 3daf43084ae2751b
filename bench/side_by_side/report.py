"""Figures as tables: what docs/benchmarks.md says."""

import importlib
import os
import pathlib
import re

from . import site


def _table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _number(value, digits=1):
    return "" if value is None else f"{value:,.{digits}f}"


def _ratio(each, reference, field):
    """The median of the rounds' ratios with its quartiles; what spans 1.0 is equal, as far as this machine can tell."""
    if each is reference:
        return "1.00"
    found = site.ratios(each, reference, field)
    if not found:
        return ""
    low, middle, high = site.quartiles(found)
    return f"{'equal' if low <= 1.0 <= high else f'{middle:.2f}'} ({low:.2f}-{high:.2f})"


def _added(each, direct):
    if any(each[field] is None for field in ("steady_p50", "steady_p99")):
        return "does not keep up"
    differences = (site.differences(each, direct, field) for field in ("steady_p50", "steady_p99"))
    return " / ".join(f"{site.median(found):.0f}" for found in differences)


def _proxy(figures):
    contenders = figures["contenders"]
    direct = next(each for each in contenders if each["name"] == "direct")
    parts = []
    for title, lone in (("Alone, plain", True), ("As a pair, mutual TLS between", False)):
        group = [each for each in contenders if each["name"] != "direct" and (each["wiring"] == "lone") == lone]
        reference = next(each for each in group if each["name"] == "haproxy")
        rows = []
        for each in [direct, *sorted(group, key=lambda each: each["cpu_us_per_request"])]:
            cost, free = each["cpu_us_per_request"], each is direct
            rows.append([
                each["name"] if lone or free else f"{each['name']} ({each['wiring'].removeprefix('pair, ')})",
                _number(each["requests_per_second"], 0), "" if free else _number(cost),
                "" if free else _ratio(each, reference, "cpu_us_per_request"),
                f"{each['p50']:.0f} / {each['p99']:.0f}",
                "" if free else _added(each, direct),
                _number(each["connections_per_second"], 0), "" if free else _number(each["cpu_us_per_connection"], 0),
                _number(each["gbits"]), "" if free else _number(each["cpu_seconds_per_gigabyte"], 2),
                "" if free else f"{each['idle_mib']:.0f} / {each['resident_mib']:.0f}",
            ])
        head = ["", "requests/s", "CPU us/request", "to haproxy", "p50 / p99 us, 64 busy connections",
                "p50 / p99 us added at 8,000/s", "new connections/s", "CPU us/connection", "bulk Gbit/s", "CPU s/GB",
                "MiB idle / loaded"]
        parts.append(f"### {title}\n\n{_table(head, rows)}")
    return "\n\n".join([*parts, *_http2(contenders, direct)])


def _http2(contenders, direct):
    """The pairs that carry HTTP/2 from the client to the application, if they were measured."""
    group = [each for each in contenders if each is not direct and "http2_requests_per_second" in each]
    reference = next((each for each in group if each["name"] == "haproxy"), None)
    if not reference:
        return
    rows = []
    for each in [direct, *sorted(group, key=lambda each: each["http2_cpu_us_per_request"])]:
        free = each is direct
        rows.append([
            each["name"], _number(each["http2_requests_per_second"], 0),
            "" if free else _number(each["http2_cpu_us_per_request"]),
            "" if free else _ratio(each, reference, "http2_cpu_us_per_request"),
            f"{each['http2_p50']:.0f} / {each['http2_p99']:.0f}",
        ])
    head = ["", "requests/s", "CPU us/request", "to haproxy", "p50 / p99 us, 64 streams on 4 connections"]
    yield f"### As a pair, HTTP/2 from client to application, mutual TLS between\n\n{_table(head, rows)}"


def _overlay(figures):
    paths = figures["paths"]
    named = {path["name"]: path for path in paths}
    fields = [("gbits_1", "TCP x1 Gbit/s", 1), ("gbits_4", "TCP x4 Gbit/s", 1), ("cpu_seconds_per_gigabyte_1", "CPU s/GB x1", 2),
              ("cpu_seconds_per_gigabyte_4", "CPU s/GB x4", 2), ("packets_per_second", "UDP 64 B packets/s", 0),
              ("rtt_p50", "RTT us p50", 0), ("rtt_p99", "RTT us p99", 0), ("connections_per_second", "connections/s", 0)]
    rows = [[path["name"], *(_number(path[field], digits) for field, _, digits in fields)] for path in paths]
    for ours, other in ((path, named[other]) for path in paths for other in path["beside"]):
        name = f"**{ours['name']}**: to {other['name']}"
        rows.append([name, *(_ratio(ours, other, field) for field, _, _ in fields)])
    return _table(["", *(title for _, title, _ in fields)], rows)


def _dns(figures):
    servers = figures["servers"]
    ours = next(server for server in servers if server["name"] == "Sealane")
    rows = [[server["name"], _number(server["rate"], 0), _ratio(ours, server, "rate"), _ratio(ours, server, "cpu_us_per_answer"),
             _number(server["cpu_us_per_answer"]), _number(server["lost"], 0)] for server in servers]
    return _table(["", "answers/s", "Sealane to it", "CPU: Sealane to it", "CPU us/answer", "lost"], rows)


def _starts(figures):
    contenders = figures["contenders"]
    head = ["workloads", *(f"{each['title']}: {field}" for each in contenders for field in ("p50 / p90 ms", "agent MiB"))]
    rows = []
    for sizes in zip(*(each["sizes"] for each in contenders)):
        cells = ([f"{at['p50']:.0f} / {at['p90']:.0f}", f"{at['agent_mib']:.0f}"] for at in sizes)
        rows.append([sizes[0]["size"], *(cell for pair in cells for cell in pair)])
    return _table(head, rows)


def _watch(figures):
    head = ["peers", "CPU of a core", "wakes/s", "bytes/s per peer, both ways", "agent MiB"]
    rows = [[at["peers"], f"{at['cpu_percent']:.2f} %", _number(at["wakes_per_second"], 0),
             _number(at["bytes_per_second_and_peer"], 0), _number(at["resident_mib"], 0)] for at in figures["contenders"][0]["sizes"]]
    return _table(head, rows)


def _containers(figures):
    contenders = figures["contenders"]
    spans = [("run", "`docker run`"), ("resolved", "resolved after it"), ("answered", "answers after it"), ("whole", "from typing to answer"),
             ("killed", "`docker kill` typed to gone"), ("dead", "dead to gone")]
    rows = [[each["name"], *(" / ".join(f"{value:.0f}" for value in each[field]) for field, _ in spans)] for each in contenders]
    starts = _table(["p50 / p99 ms", *(title for _, title in spans)], rows)
    bridge = contenders[0]
    rows = [[each["name"], _number(each["seconds"]), _ratio(each, bridge, "seconds"), f"{each['share'] * 100:.1f} %", _number(each["mib"])]
            for each in contenders]
    crowds = _table(["", "seconds", "to the bridge", "CPU of Sealane", "MiB a container"], rows)
    return f"### Starts and ends\n\n{starts}\n\n### Crowds\n\n{crowds}\n\n### Paths\n\n{_overlay(figures)}"


def _convergence(figures):
    spans = [("start", "listens to answers", 0), ("end", "dead to gone", 0), ("death", "host dead to last failed call", 0),
             ("failed", "failed calls", 0), ("return", "host back to first call", 0)]
    rows = [[each["name"], *(" / ".join(_number(value, digits) for value in each[field]) for field, _, digits in spans)]
            for each in figures["contenders"]]
    return _table(["p50 / p99, ms", *(title for _, title, _ in spans)], rows)


def _steps(run, name):
    return [step for step in (run or {}).get("steps", []) if step["step"] == name]


def _step(run, name):
    """The only step of a name; an empty one where the run did not come that far."""
    return next(iter(_steps(run, name)), {})


def _over(ours, theirs):
    """Our figure over another one, where both are there."""
    return f"{ours / theirs:.2f}" if ours and theirs else ""


def _seconds(times, field="max"):
    """A quantile of times in ms, in seconds."""
    return _number(times and times[field] / 1e3, 2)


def _mesh(shape):
    networks = f"{shape['networks']} networks" if shape["networks"] > 1 else "1 network"
    return f"{shape['hosts']:,} hosts, {networks}, {shape['endpoints']:,} endpoints"


def _settled(step):
    """How long changes took, and how many did not come to an end."""
    if not step["settled"]:
        return f"none of {step['changes']:,}"
    times = f"{step['settled']['p50']:,.0f} / {step['settled']['p99']:,.0f}"
    return f"{times}; {step['unsettled']:,} of {step['changes']:,} not" if step["unsettled"] else times


def _scale_changes(shapes, compared):
    rows = []
    for shape in shapes:
        goals, before = shape["goals"], {step["rate"]: step for step in _steps(shape["base"], "rate")}
        for step in _steps(shape, "rate"):
            rate = f"{step['rate']:g}"
            there, times = before.get(step["rate"], {}), step["settled"] or {}
            ratios = [_over(times.get("p99"), (there.get("settled") or {}).get("p99")),
                      *(_over(step[field], there.get(field)) for field in ("cpu_ms_per_change", "kib_per_change"))]
            rows.append([_mesh(shape), rate, _settled(step), goals.get(rate, ""), _number(step["cpu_ms_per_change"], 2),
                         _number(step["kib_per_change"], 0), f"{step['control_cpu_seconds'] / step['seconds'] * 100:.0f} %",
                         step["lost_streams"], *(ratios if compared else [])])
        untried = [f"{rate:,g}" for step in _steps(shape, "untried") for rate in step["rates"]]
        if untried:
            rows.append([_mesh(shape), ", ".join(untried), "not tried", *[""] * (8 if compared else 5)])
    head = ["mesh", "changes/s", "settled p50 / p99 ms", "goal p99", "CPU ms a change", "KiB sent a change", "CPU of a core",
            "hosts thrown out", *(["p99 to base", "CPU to base", "sent to base"] if compared else [])]
    return _table(head, rows)


def _scale_begins(shapes):
    rows = []
    for shape in shapes:
        joins, streams, carry, fill, idle = (_step(shape, name) for name in ("join", "streams", "carry", "fill", "idle"))
        peak = max((step["peak_mib"] for step in shape.get("steps", [])), default=None)
        rows.append([
            _mesh(shape), _number(joins["hosts"] / joins["seconds"] if joins else None, 0), _seconds(streams.get("welcomed")),
            streams.get("failed_connects", ""), _number(carry.get("carried_after"), 2),
            f"not: {fill['unsettled']:,} of {fill['hosts']:,} hosts" if fill.get("unsettled") else _seconds(fill.get("settled")),
            _number(fill["bytes"] / 2**20 if fill else None, 0),
            f"{idle['control_cpu_seconds'] / idle['seconds'] * 100:.1f} %" if idle else "",
            _number(idle.get("resident_mib"), 0), _number(peak, 0), "1,024"])
    head = ["mesh", "joins/s", "all streams, s", "failed connects", "all have addresses, s", "all endpoints settled, s", "MiB sent by it",
            "CPU of a core, idle", "MiB then", "MiB at most", "goal"]
    return _table(head, rows)


def _scale_returns(shapes):
    rows = []
    for shape in shapes:
        for name, title in (("reconnect", "all streams cut"), ("restart", "control killed")):
            step = _step(shape, name)
            if step:
                missing = f"not: {step['unsettled']:,} hosts" if step["unsettled"] else ""
                rows.append([
                    _mesh(shape), title, _number(step.get("listens_after"), 2), _seconds(step["welcomed"]),
                    missing or _seconds(step["settled"]), "10" if name == "restart" else "",
                    step.get("failed_after_listening", step["failed_connects"]), step["states"] + step["deltas"],
                    _number(step["control_cpu_seconds"], 1)])
    head = ["mesh", "after", "listens, s", "all streams, s", "all settled, s", "goal", "failed connects", "states and deltas sent", "CPU s"]
    return _table(head, rows)


def _scale_real(real):
    rows, before = [], {at["rate"]: at for at in (real["base"] or {}).get("rates", [])}
    for at in real["rates"]:
        there = before.get(at["rate"], {})
        rows.append([
            at["rate"], _settled(at), _number(at["agent_cpu_ms"], 2), f"{at['agent_share'] * 100:.1f} %", _number(at["agent_mib"], 0),
            _number(at["written_kib"], 0), _number(at["sidecar_cpu_ms"], 2), f"{at['sidecar_share'] * 100:.1f} %", _number(at["sidecar_mib"], 1),
            *([_over(at[field], there.get(field)) for field in ("agent_cpu_ms", "sidecar_cpu_ms")] if before else [])])
    head = ["changes/s", "settled p50 / p99 ms", "agent: CPU ms a change", "CPU of a core", "MiB", "KiB written a change",
            "sidecar: CPU ms a change", "CPU of a core", "MiB", *(["agent's CPU to base", "sidecar's to base"] if before else [])]
    about = (f"Agent: {real['bare_mib']:.0f} MiB without a network, {real['agent_mib']:.0f} MiB with it (goal: 40); sidecar: "
             f"{real['sidecar_mib']:.0f} MiB (goal: 8). Rows of all endpoints were in the kernel {real['rows_after']:.2f} s after `sealane run`. "
             "Goal at 100 changes a second: 2 % of a core for the agent.")
    first = real.get("first_calls")
    if first:
        about += (f" The first call to each of {first['calls']:.0f} services waited for {first['mean_ms']:.2f} ms on average, "
                  f"{first['under_2_ms'] * 100:.0f} % of them for less than 2 ms (goal: all).")
    return f"{about}\n\n{_table(head, rows)}"


def _scale(figures):
    shapes = figures["shapes"]
    compared = any(shape["base"] for shape in shapes)
    parts = [f"### Changes\n\n{_scale_changes(shapes, compared)}", f"### Begins\n\n{_scale_begins(shapes)}",
             f"### Returns\n\n{_scale_returns(shapes)}"] if shapes else []
    real = figures.get("real")
    if real:
        parts.append(f"### A real agent\n\n{_scale_real(real) if 'rates' in (real or {}) and 'agent_mib' in real else real['failed']}")
    failed = [f"{_mesh(shape)}: ended early." for shape in shapes if shape["failed"]]
    return "\n\n".join([*parts, *failed])


PARTS = {"proxy": _proxy, "overlay": _overlay, "containers": _containers, "convergence": _convergence,
         "dns": _dns, "starts": _starts, "watch": _watch, "scale": _scale}


def part(name, figures):
    return PARTS[name](figures)


def _versions(figures):
    known = {}
    for each in figures.get("proxy", {}).get("contenders", []) + figures.get("dns", {}).get("servers", []):
        if each["version"]:
            known[each["name"]] = each["version"]
    return ", ".join(f"{name} {version}" for name, version in sorted(known.items(), key=lambda item: item[0].lower()))


def _machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text()).group(1)
    return f"{os.cpu_count()} CPUs ({model}), Linux {os.uname().release}"


TITLES = {"proxy": "Proxies", "overlay": "Overlays", "containers": "Containers", "convergence": "Convergence",
          "dns": "DNS", "starts": "Starts", "watch": "Peers of an idle host", "scale": "Scale"}


def _sections(text):
    """The sections of a page by their titles, without the head."""
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {part.split("\n", 1)[0]: f"## {part.strip()}" for part in parts}


def _section(name, found):
    about = importlib.import_module(f".{name}", __package__).__doc__.strip()
    how = found.get("how") or f"Medians of {found['rounds']} rounds in slices of {found['seconds']} s."
    return f"## {TITLES[name]}\n\n{about}\n\n{how}\n\n{part(name, found)}"


def page(figures, before=""):
    """All sections: of these figures, or as they were in the page before where there are none."""
    kept = _sections(before)
    sections = [_section(name, figures[name]) if name in figures else kept.get(title) for name, title in TITLES.items()]
    known = re.search(r"^versions: (.*?)\. A part alone", before, flags=re.MULTILINE)
    versions = _versions(figures) or (known.group(1) if known else "")
    return f"""# Benchmarks

Sealane beside its public peers, each part in one run on one machine. Absolute figures move from machine to machine and from run to
run; the ratios say where we stand. Contenders take turns in short slices. A ratio is taken within each round, and the table has the median of all
rounds with their quartiles, 0.81 (0.78-0.85); where the quartiles span 1.0 it says "equal". Tools that count whole seconds (iperf3, sockperf) have slices of one.

Made by `make bench` on {_machine()};
versions: {versions}. A part alone: `bench/run proxy`, `bench/run overlay`,
`bench/run containers`, `bench/run convergence`, `bench/run dns`, `bench/run starts`, `bench/run watch` or `bench/run scale`; `bench/run --help` names
the settings. Raw figures of every round are in `target/bench/`.

""" + "\n\n".join(filter(None, sections)) + "\n"
