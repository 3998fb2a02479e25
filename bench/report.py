"""What ./dev bench shows: rows of figures with limits, the comparison's tables, and the plot."""
import math

from comparison import FLOOR, COPYING, WORKS
from systems import OUT, Failed, say


def row(part, name, value, unit, ratio=None, low=None, high=None, limit=None, ok=None, unsure=False):
    return {"part": part, "name": name, "value": value, "unit": unit, "ratio": ratio, "low": low, "high": high,
            "limit": limit, "ok": ok, "unsure": unsure}


def number(value):
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def table_of_rows(rows):
    lines = ["| part | what | figure | ratio | min..max | limit | |", "|---|---|---:|---:|---|---|---|"]
    for one in rows:
        spread = f"{number(one['low'])}..{number(one['high'])}" if one["low"] is not None else ""
        verdict = "unsure" if one["unsure"] else {True: "ok", False: "MISSED", None: ""}[one["ok"]]
        lines.append(f"| {one['part']} | {one['name']} | {number(one['value'])} {one['unit']} | {number(one['ratio'])} | "
                     f"{spread} | {number(one['limit'])} | {verdict} |")
    return "\n".join(lines)


def shown(comparison):
    return [work for group in WORKS for work in group if work.kind and comparison.median(work.key, FLOOR) is not None]


def figure(comparison, work, system):
    """Operations, or bytes, per second."""
    seconds = comparison.median(work.key, system)
    if seconds is None:
        return None
    return (1 << 20) / seconds / 1e6 if work.kind == "bandwidth" else 1 / seconds


def names_of(comparison):
    return [system.name for system in comparison.systems]


def table_of_speeds(comparison):
    names = names_of(comparison)
    lines = ["Speed: operations per second; MB/s of what is written and read in order. Medians of the rounds.", "",
             "| work | " + " | ".join(names) + " | noise |", "|---|" + "---:|" * (len(names) + 1)]
    for work in shown(comparison):
        cells = " | ".join(number(figure(comparison, work, name)) for name in names)
        lines.append(f"| {work.title} | {cells} | {number(comparison.noise(work.key))} |")
    return "\n".join(lines)


def table_of_latencies(comparison):
    names = names_of(comparison)
    lines = ["Latency: 50 % and 99 % of the calls returned within so many us; and us of processor time per operation (the "
             "program, the daemon, the memory node).", "", "| work | " + " | ".join(names) + " |",
             "|---|" + "---:|" * len(names)]
    for work in shown(comparison):
        cells = []
        for name in names:
            if comparison.median(work.key, name) is None:
                cells.append("")
                continue
            p50, p99, cpu = (comparison.median(work.key, name, what) for what in ("p50", "p99", "cpu"))
            calls = f"{number(p50)} / {number(p99)}; " if p50 else ""
            cells.append(f"{calls}{number(cpu * 1e6)}")
        lines.append(f"| {work.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rows_of(comparison):
    rows = []
    for limit, values, ok in comparison.judged():
        ordered = sorted(values)
        middle = ordered[len(ordered) // 2] if len(ordered) % 2 else sum(ordered[len(ordered) // 2 - 1:][:2]) / 2
        unit = "MB/s" if limit.work.kind == "bandwidth" else "op/s"
        bound = f"{'>=' if limit.at_least else '<='} {limit.bound:g}"
        rows.append(row(limit.system, f"{limit.work.title}: {limit.text}", figure(comparison, limit.work, limit.system),
                        unit, middle, ordered[0], ordered[-1], bound, ok, ok is None))
    return rows


def plot(comparison, path):
    """One panel per work: a bar per system, on a logarithmic axis, with the floor as a line across."""
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise Failed("the plot needs python3-matplotlib") from error
    names, works = names_of(comparison), shown(comparison)
    colours = dict(zip(names, pyplot.get_cmap("tab10").colors))
    columns = 5
    lines = math.ceil(len(works) / columns)
    canvas, panels = pyplot.subplots(lines, columns, figsize=(4 * columns, 2.9 * lines), squeeze=False)
    for panel, work in zip(panels.flat, works):
        values = [(name, figure(comparison, work, name)) for name in names]
        values = [(name, value) for name, value in values if value]
        panel.bar(range(len(values)), [value for _, value in values], color=[colours[name] for name, _ in values])
        floor = dict(values).get(COPYING if work.kind == "bandwidth" else FLOOR)
        if floor:
            panel.axhline(floor, color="black", linewidth=0.8, linestyle="--")
        panel.set_yscale("log")
        panel.set_title(work.title, fontsize=9)
        panel.set_ylabel("MB/s" if work.kind == "bandwidth" else "op/s", fontsize=7)
        panel.set_xticks([])
        panel.tick_params(labelsize=7)
    for panel in list(panels.flat)[len(works):]:
        panel.axis("off")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colours[name]) for name in names]
    canvas.legend(handles, names, loc="lower center", ncol=len(names) // 2 + 1, fontsize=10)
    canvas.tight_layout(rect=(0, 0.05, 1, 1))
    canvas.savefig(path, dpi=90)
    pyplot.close(canvas)


def json_of(comparison):
    return {work.key: {"title": work.title, "kind": work.kind, "noise": comparison.noise(work.key),
                       "systems": {name: [vars(sample) for _, sample in sorted(samples.items())]
                                   for (key, name), samples in comparison.samples.items() if key == work.key},
                       "requests": {name: counts for (key, name), counts in comparison.requests.items()
                                    if key == work.key}}
            for work in shown(comparison)}
