// Shows /_admin/report.json (migration-status --json) and asks for it again every few seconds. Nothing is loaded from
// elsewhere, and texts from the report only ever become text nodes.
"use strict";

const REFRESH_MS = 5000;
const SIDES = [["legacy", "legacy_services", "Legacy services"], ["task", "task_abstraction", "Task abstraction"]];
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

function element(name, text, className) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (className) e.className = className;
  return e;
}

function shape(name, attributes, text) {
  const e = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  if (text !== undefined) e.textContent = text;
  return e;
}

// One decimal, and never 100.0 or 0.0 unless it is, as migration-status prints it.
function percent(share) {
  if (share === null) return "–";
  let p = Math.round(share * 1000) / 10;
  if (share < 1 && p >= 100) p = 99.9;
  if (share > 0 && p <= 0) p = 0.1;
  return p.toFixed(1) + "%";
}

function latency(us) {
  if (us === null) return "–";
  if (us < 1000) return us + " µs";
  if (us < 10000) return (us / 1e3).toFixed(1) + " ms";
  if (us < 1e6) return Math.round(us / 1e3) + " ms";
  return (us / 1e6).toFixed(us < 1e8 ? 1 : 0) + " s";
}

const count = (n) => n.toLocaleString("en");

function showShares(report) {
  $("total").textContent = count(report.total_executions);
  for (const [id, key] of SIDES) {
    const share = report.sides[key].share;
    $("share-" + id).textContent = percent(share) + " (" + count(report.sides[key].executions) + ")";
    $("bar-" + id).style.width = 100 * (share || 0) + "%";
  }
}

function figure(list, name, value, className) {
  const box = element("div");
  box.append(element("dt", name), element("dd", value, className));
  list.append(box);
}

function rateNote(side) {
  if (side.success_rate === null) return element("p", "not enough data: nothing counted in this span", "note");
  const range = percent(side.interval[0]) + " to " + percent(side.interval[1]);
  if (side.few) return element("p", "of only " + side.n + ": it may truly be " + range, "note few");
  return element("p", "of " + count(side.n) + "; " + range + " with 95 % confidence", "note");
}

function showSide(id, title, side) {
  const rate = element("p", side.success_rate === null ? "–" : percent(side.success_rate), "rate");
  rate.append(element("span", " success", "note"));
  const list = element("dl", undefined, "figures");
  for (const p of ["p50", "p95", "p99"]) figure(list, p, latency(side[p + "_us"]));
  for (const kind of ["failure", "timeout", "unknown", "rejected", "cancelled"])
    figure(list, kind, count(side.results[kind]), kind === "unknown" && side.results[kind] ? "bad" : "");
  figure(list, "fallbacks", count(side.fallbacks));
  const parts = [element("h2", title), rate, rateNote(side), list];
  if (Object.values(side.shadow.results).some((n) => n > 0))
    parts.push(element("p", "Shadows: " + (side.shadow.success_rate === null ? "none counted" :
      percent(side.shadow.success_rate) + " success of " + count(side.shadow.n)), "note"));
  $("side-" + id).replaceChildren(...parts);
}

function clockOf(time, seconds) {
  const t = new Date(time);
  const day = t.toLocaleDateString([], {month: "short", day: "numeric"});
  const hour = t.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"});
  return seconds >= 3600 ? day : hour;
}

// Columns: how many executions; line: which part of them the task side answered. A point without executions breaks the line.
function showChart(report) {
  const box = $("chart"), points = report.points;
  const width = Math.max(320, box.clientWidth), height = 170, left = 40, bottom = 20, top = 8;
  const plot = width - left - 8, tall = height - bottom - top;
  const sums = points.map((p) => p.legacy_services.executions + p.task_abstraction.executions);
  const most = Math.max(1, ...sums);
  const svg = shape("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "share of the task side over time"});
  for (const part of [0, 0.5, 1]) {
    const y = top + tall * (1 - part);
    svg.append(shape("line", {class: "grid", x1: left, x2: width - 8, y1: y, y2: y}),
      shape("text", {x: left - 6, y: y + 4, "text-anchor": "end"}, 100 * part + "%"));
  }
  const step = plot / Math.max(1, points.length);
  let path = "", broken = true;
  points.forEach((p, i) => {
    const x = left + step * i, tallness = tall * sums[i] / most;
    const column = shape("rect", {class: "column", x: x + step * 0.1, y: top + tall - tallness, width: step * 0.8, height: tallness});
    column.append(shape("title", {}, new Date(p.time).toLocaleString() + ": " + count(sums[i]) + " executions, " +
      count(p.task_abstraction.executions) + " by tasks"));
    svg.append(column);
    if (!sums[i]) { broken = true; return; }
    const cx = x + step / 2, cy = top + tall * (1 - p.task_abstraction.executions / sums[i]);
    path += (broken ? "M" : "L") + cx.toFixed(1) + " " + cy.toFixed(1);
    if (broken && !sums[i + 1]) svg.append(shape("circle", {class: "dot", cx, cy, r: 3}));
    broken = false;
  });
  svg.append(shape("path", {class: "line", d: path}));
  if (points.length) {
    const labels = [0, Math.floor((points.length - 1) / 2), points.length - 1].filter((v, i, a) => a.indexOf(v) === i);
    for (const i of labels)
      svg.append(shape("text", {x: Math.min(Math.max(left + step * (i + 0.5), left + 16), width - 28), y: height - 5,
        "text-anchor": "middle"}, clockOf(points[i].time, report.point_seconds)));
    box.replaceChildren(svg);
  } else {
    box.replaceChildren(element("p", "Nothing recorded in this span.", "note"));
  }
}

function operationRow(operation, id, side, first) {
  const row = element("tr", undefined, first ? "" : "second");
  const name = operation.operation.startsWith(operation.service + ".") ? operation.operation :
    operation.service + " " + operation.operation;
  const rate = side.success_rate === null ? "no data" : (side.few ? "~" : "") + percent(side.success_rate);
  const cells = [count(side.executions), percent(side.share), rate, count(side.n), count(side.results.unknown),
    latency(side.p50_us), latency(side.p95_us), latency(side.p99_us)];
  row.append(element("td", first ? name : ""), element("td", id));
  cells.forEach((text, i) => {
    const few = i === 2 && side.few, unknown = i === 4 && side.results.unknown;
    row.append(element("td", text, "n" + (few ? " few" : "") + (unknown ? " bad" : "")));
  });
  const reasons = Object.entries(operation.reasons).sort((a, b) => b[1] - a[1]);
  row.append(element("td", first ? reasons.map(([r, n]) => r + " " + count(n)).join(", ") : "", "reasons"));
  return row;
}

function showOperations(report) {
  const rows = [];
  for (const operation of report.operations) {
    SIDES.forEach(([id, key], i) => rows.push(operationRow(operation, id, operation.sides[key], i === 0)));
    const backends = Object.entries(operation.backends);
    if (backends.length > 1) // a single one has the figures of its side
      for (const [name, side] of backends) rows.push(operationRow(operation, name, side, false));
  }
  if (!rows.length) {
    const row = element("tr"), cell = element("td", "Nothing recorded in this span.", "note");
    cell.colSpan = 11;
    row.append(cell);
    rows.push(row);
  }
  $("operations").replaceChildren(...rows);
}

function showReasons(report) {
  const entries = Object.entries(report.reasons).sort((a, b) => b[1] - a[1]);
  const total = entries.reduce((sum, [, n]) => sum + n, 0), parts = [];
  for (const [reason, n] of entries) {
    const meter = element("meter");
    meter.max = total;
    meter.value = n;
    const term = element("dt", reason);
    if (report.meanings && report.meanings[reason])
      term.append(element("small", report.meanings[reason]));
    parts.push(term, meter, element("dd", count(n) + " · " + percent(n / total)));
  }
  $("reasons").replaceChildren(...(parts.length ? parts : [element("dd", "Nothing recorded in this span.", "note")]));
}

// Services seen so far stay selectable while one of them is chosen.
function showServices(report) {
  const select = $("service"), known = new Set([...select.options].map((o) => o.value));
  for (const {service} of report.operations)
    if (!known.has(service)) {
      known.add(service);
      select.append(new Option(service, service));
    }
}

function showProblem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

// What nobody may miss: a task side that is worse, or a comparison that cannot be relied on.
function guardProblems(report) {
  const told = [];
  for (const g of report.guard || []) {
    const name = g.service + "." + g.operation, kinds = Object.entries(g.kinds).filter(([, k]) => k.verdict === "breach");
    if (g.held || g.verdict === "breach")
      told.push("The guard: the task side of " + name + " is worse" + (kinds.length ? " (" + kinds.map(([k]) => k).join(", ") + ")" : "") +
        (g.held ? "; it is held at legacy." : "; it is not held."));
    else if (g.verdict === "share_mismatch")
      told.push("The guard: " + percent(g.share.seen) + " of the entities of " + name + " are on the task side, not " +
        percent(g.share.expected) + ": " + g.share.reason + ".");
  }
  return told;
}

function show(report) {
  showShares(report);
  for (const [id, key, title] of SIDES) showSide(id, title, report.sides[key]);
  showChart(report);
  showOperations(report);
  showReasons(report);
  showServices(report);
  const problems = guardProblems(report);
  if (report.dropped) problems.push(count(report.dropped) + " outcomes were dropped in this span and are not counted.");
  showProblem(problems.join(" "));
  $("state").textContent = "as of " + new Date(report.generated_at).toLocaleTimeString();
}

let timer, asked = 0, last;

async function refresh() {
  const mine = ++asked, query = new URLSearchParams();
  if ($("since").value) query.set("since", $("since").value);
  if ($("service").value) query.set("service", $("service").value);
  clearTimeout(timer);
  try {
    const answer = await fetch("_admin/report.json?" + query, {cache: "no-store", signal: AbortSignal.timeout(20000)});
    if (!answer.ok) throw new Error("the router answers " + answer.status);
    const report = await answer.json();
    if (mine !== asked) return; // another choice was made meanwhile
    last = report;
    show(report);
  } catch (error) {
    if (mine !== asked) return;
    showProblem("Cannot update: " + error.message + ". The figures shown may be out of date.");
    if (!last) $("state").textContent = "";
  }
  timer = setTimeout(refresh, document.hidden ? 12 * REFRESH_MS : REFRESH_MS);
}

$("filters").addEventListener("change", refresh);
$("filters").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
addEventListener("resize", () => { if (last) showChart(last); });
refresh();
