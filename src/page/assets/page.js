// Moves what the server has drawn: fetches the page again when the router says that there is something new, replaces the sections that
// differ, and draws the charts from the table that is there for everybody. Nothing is loaded from elsewhere.
"use strict";

const POLL_MS = 10000, SILENT_MS = 25000, FETCH_MS = 20000;
const $ = (id) => document.getElementById(id);

// --- times in the reader's zone -------------------------------------------------------------------------------------------

function localTimes(root) {
  const today = new Date().toDateString();
  for (const time of root.querySelectorAll("time:not([title])")) {
    const at = new Date(time.dateTime);
    time.title = time.textContent;
    const clock = at.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit", second: "2-digit"});
    time.textContent = at.toDateString() === today ? clock : at.toLocaleDateString([], {day: "numeric", month: "short"}) + " " + clock;
  }
}

// --- charts ---------------------------------------------------------------------------------------------------------------

let charts = [], chartsOf = "";

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

// Thinner; a system color (forced colors) cannot be.
function veil(name, alpha) {
  return color(name).startsWith("#") ? color(name) + alpha : "transparent";
}

function points() {
  return [...document.querySelectorAll("#points tbody tr")].map((row) => {
    const [t, legacy, task, set, sl, slLow, slHigh, pl, st, stLow, stHigh, pt] = row.dataset.p.split(",").map((v) => v === "" ? null : Number(v));
    const all = legacy + task;
    return {t, legacy, task, set, share: all ? 100 * task / all : null, success: [[sl, slLow, slHigh], [st, stLow, stHigh]], p95: [pl, pt]};
  });
}

function marks() {
  return [...document.querySelectorAll("#timeline .events li")].map((li) => ({t: Number(li.dataset.t), level: li.className, kind: li.dataset.kind}));
}

// A line at each event over all charts; what was done is in the side's color, what went wrong in red.
const eventMarks = {
  id: "eventMarks",
  beforeDatasetsDraw(chart) {
    const {ctx, chartArea: area, scales: {x}} = chart;
    ctx.save();
    ctx.lineWidth = 1.5;
    for (const mark of chart.options.plugins.eventMarks.marks) {
      const at = x.getPixelForValue(mark.t);
      if (at < area.left || at > area.right) continue;
      ctx.strokeStyle = color({stop: "stop", ok: "ok", watch: "watch", move: "task"}[mark.level] || "soft");
      ctx.setLineDash(mark.level === "move" || mark.level === "empty" ? [2, 3] : []);
      ctx.globalAlpha = 0.6;
      ctx.beginPath();
      ctx.moveTo(at, area.top);
      ctx.lineTo(at, area.bottom);
      ctx.stroke();
    }
    ctx.restore();
  }
};

function clock(ms, span) {
  const at = new Date(ms);
  if (span > 3 * 864e5) return at.toLocaleDateString([], {day: "numeric", month: "short", ...(span > 300 * 864e5 ? {year: "2-digit"} : {})});
  return at.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"});
}

function latency(us) {
  if (us < 1000) return us + " µs";
  if (us < 1e6) return +(us / 1e3).toPrecision(3) + " ms";
  return +(us / 1e6).toPrecision(3) + " s";
}

const STEPS = [6e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 108e5, 216e5, 432e5, 864e5, 1728e5, 6048e5, 12096e5, 2592e6, 7776e6];

// Ticks at round times of the reader's day.
function timeTicks(scale) {
  const room = Math.max(2, Math.floor(scale.width / 90)), span = scale.max - scale.min;
  const step = STEPS.find((s) => span / s <= room) || STEPS[STEPS.length - 1];
  const zone = new Date(scale.min).getTimezoneOffset() * 6e4;
  scale.ticks = [];
  for (let t = Math.ceil((scale.min - zone) / step) * step + zone; t <= scale.max; t += step) scale.ticks.push({value: t});
}

function options(first, last, more, y) {
  const text = color("soft"), grid = {color: color("faint"), borderColor: color("line")};
  return {
    animation: false, responsive: true, maintainAspectRatio: false, normalized: true, parsing: false,
    interaction: {mode: "index", intersect: false, axis: "x"},
    elements: {point: {radius: 0, hitRadius: 8, hoverRadius: 4}, line: {borderWidth: 2, tension: 0}},
    scales: {
      x: {type: "linear", min: first, max: last, stacked: !!more.stacked, offset: false, afterBuildTicks: timeTicks, grid: {...grid, display: false, drawBorder: true},
        ticks: {color: text, maxRotation: 0, autoSkip: false, callback: (v) => clock(v, last - first)}},
      y: {stacked: !!more.stacked, grid, afterFit(scale) { scale.width = 62; }, ...y, ticks: {color: text, maxTicksLimit: 5, ...y.ticks}}
    },
    plugins: {
      legend: {display: false}, eventMarks: {marks: more.marks},
      tooltip: {backgroundColor: "#12151d", titleColor: "#fff", bodyColor: "#fff", padding: 10, boxPadding: 4, filter: (item) => !item.dataset.quiet && item.parsed.y !== null,
        callbacks: {title: (items) => items.length ? new Date(items[0].raw.at).toLocaleString([], {dateStyle: "medium", timeStyle: "short"}) : "",
          label: (item) => item.dataset.label + " " + more.shown(item.parsed.y)}}
    }
  };
}

const percent = (v) => (v > 0 && v < 0.05 ? "<0.1" : v.toFixed(1)) + " %";

function draw(id, type, datasets, how) {
  charts.push(new Chart($(id), {type, data: {datasets}, options: how, plugins: [eventMarks]}));
}

function line(list, label, name, value, more) {
  return {label, data: list.map((p) => ({x: p.x, y: value(p), at: p.t})), borderColor: color(name), backgroundColor: color(name), ...more};
}

function band(list, name, side, end) {
  return {label: "", quiet: true, data: list.map((p) => ({x: p.x, y: p.success[side][end], at: p.t})), borderWidth: 0, pointRadius: 0,
    pointHoverRadius: 0, backgroundColor: veil(name, "18"), borderColor: "transparent", fill: end === 2 ? "-1" : false};
}

function drawCharts() {
  const table = $("points"), box = $("charts");
  if (!table || !box || typeof Chart === "undefined") return;
  const style = matchMedia("(prefers-color-scheme: dark)").matches + " " + matchMedia("(forced-colors: active)").matches;
  const key = style + table.innerHTML + JSON.stringify(marks());
  if (key === chartsOf && charts.length && charts[0].canvas.isConnected) return;
  chartsOf = key;
  for (const chart of charts) chart.destroy();
  charts = [];
  box.hidden = false;
  const width = Number(table.dataset.width), until = Number(table.dataset.until), list = points(), mark = marks();
  for (const p of list) p.x = Math.min(p.t + width / 2, until); // a point stands for its whole step
  const first = list[0].t, how = (more, y) => options(first, until, {marks: mark, ...more}, y);
  const lonely = (p, i, value) => value(p) !== null && (!list[i - 1] || value(list[i - 1]) === null) && (!list[i + 1] || value(list[i + 1]) === null);
  const dots = (value) => list.map((p, i) => lonely(p, i, value) ? 3 : 0); // a line needs two
  const share = (p) => p.share, steps = list.flatMap((p) => p.set === null ? [] : [{x: p.t, y: p.set, at: p.t}]);
  if (steps.length) steps.push({...steps[steps.length - 1], x: until});
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  draw("chart-share", "line", [
    line(list, "measured", "task", share, {fill: "origin", backgroundColor: veil("task", "22"), pointRadius: dots(share)}),
    {label: "set", data: steps, borderColor: color("set"), borderDash: [5, 4], borderWidth: 1.5, pointHoverRadius: 0, stepped: "before"}
  ], how({shown: percent}, {min: 0, max: 100, ticks: {callback: (v) => v + " %"}}));
  const lows = list.flatMap((p) => p.success.map((s) => s[0])).filter((v) => v !== null), low = Math.min(100, ...lows);
  const success = [0, 1].map((side) => (p) => p.success[side][0]);
  draw("chart-success", "line", [
    band(list, "legacy", 0, 1), band(list, "legacy", 0, 2), band(list, "task", 1, 1), band(list, "task", 1, 2),
    line(list, "legacy", "legacy", success[0], {pointRadius: dots(success[0])}), line(list, "tasks", "task", success[1], {pointRadius: dots(success[1])})
  ], how({shown: percent}, {max: 100, min: [99.5, 99, 98, 95, 90, 80, 50].find((f) => low >= f + (100 - f) * 0.2) || 0, ticks: {callback: (v) => +v.toFixed(2) + " %"}}));
  const p95 = [0, 1].map((side) => (p) => p.p95[side]);
  draw("chart-p95", "line", [
    line(list, "legacy", "legacy", p95[0], {pointRadius: dots(p95[0])}), line(list, "tasks", "task", p95[1], {pointRadius: dots(p95[1])})
  ], how({shown: latency}, {min: 0, ticks: {callback: latency}}));
  const thick = Math.max(1, 0.9 * ($("chart-traffic").parentNode.clientWidth - 62) * width / (until - first)); // the last step is not whole
  draw("chart-traffic", "bar", [
    line(list, "tasks", "task", (p) => p.task, {barThickness: thick}),
    line(list, "legacy", "legacy-area", (p) => p.legacy, {barThickness: thick})
  ], how({stacked: true, shown: (v) => v.toLocaleString("en")}, {min: 0, ticks: {callback: (v) => Number.isInteger(v) ? v.toLocaleString("en") : ""}}));
}

// --- kept up to date ------------------------------------------------------------------------------------------------------

// A page of several routers costs each of them something: it is fetched every `pace` at most, and also when this router has nothing new.
const pace = Number(document.documentElement.dataset.pace || 0); // ms
let fetched = 0, later;
let heard = Date.now(), asked = 0, fetching = false, again = false, source, poll;
const version = () => document.querySelector("footer").dataset.version;

function stale(why) {
  const box = $("stale");
  box.hidden = !why;
  if (why) box.textContent = why + " The figures are as of " + new Date(document.querySelector("footer").dataset.made).toLocaleTimeString() + ".";
  $("live").className = why ? "" : "live";
  $("live").textContent = why ? "" : "live";
}

function say(next) {
  const before = document.documentElement.dataset.level, now = next.documentElement.dataset.level;
  document.documentElement.dataset.level = now;
  document.title = next.title;
  $("icon").href = next.getElementById("icon").getAttribute("href");
  for (const part of [".brand", "footer"]) document.querySelector(part).replaceWith(document.importNode(next.querySelector(part), true));
  if (before !== now && next.querySelector("#sentence h1")) $("said").textContent = next.querySelector("#sentence h1").textContent;
}

// What the reader has opened, and where the keyboard is, stays.
function replace(old, fresh) {
  const open = new Map([...old.querySelectorAll("details[id]")].map((d) => [d.id, d.open]));
  const focus = old.contains(document.activeElement) ? document.activeElement : null;
  const place = focus && (focus.id ? "#" + CSS.escape(focus.id) : focus.closest("[id]") && "#" + CSS.escape(focus.closest("[id]").id) + " " + focus.localName);
  const scrolled = [...old.querySelectorAll(".scroll")].map((e) => e.scrollTop);
  const charts = old.querySelector("#charts");
  const made = document.importNode(fresh, true);
  for (const d of made.querySelectorAll("details[id]")) if (open.has(d.id)) d.open = open.get(d.id);
  if (charts && made.querySelector("#charts")) made.querySelector("#charts").replaceWith(charts); // drawn again only when the table differs
  localTimes(made);
  old.replaceWith(made);
  made.querySelectorAll(".scroll").forEach((e, i) => { e.scrollTop = scrolled[i] || 0; });
  if (place && document.querySelector(place)) document.querySelector(place).focus({preventScroll: true});
}

const served = new Map(); // id of a section: its HTML as the server sent it

function update(text) {
  const next = new DOMParser().parseFromString(text, "text/html");
  if (!next.querySelector("main")) return;
  for (const old of document.querySelectorAll("[data-live]")) {
    const fresh = next.getElementById(old.id);
    if (!fresh || served.get(old.id) === fresh.outerHTML) continue;
    const html = fresh.outerHTML;
    replace(old, fresh);
    served.set(old.id, html);
  }
  say(next);
  localTimes(document);
  wire();
  drawCharts();
}

async function refresh() {
  if (fetching) { again = true; return; }
  fetching = true;
  fetched = Date.now();
  const mine = ++asked;
  try {
    const answer = await fetch(location.href, {cache: "no-store", headers: {Accept: "text/html"}, signal: AbortSignal.timeout(FETCH_MS)});
    if (answer.status === 401 || answer.redirected) { location.reload(); return; }
    if (!answer.ok) throw new Error("The router answers " + answer.status + ".");
    const text = await answer.text();
    if (mine === asked) update(text);
    heard = Date.now();
    stale("");
  } catch (error) {
    stale(error instanceof TypeError || error.name === "TimeoutError" ? "The router does not answer." : error.message);
  }
  fetching = false;
  if (again) { again = false; setTimeout(refresh, Math.max(500, pace)); }
}

function refreshSoon() {
  const left = fetched + pace - Date.now();
  if (left <= 0) refresh();
  else if (!later) later = setTimeout(() => { later = undefined; if (!document.hidden) refresh(); }, left);
}

// A hidden page needs no stream: browsers open only a few connections to one place.
function listen() {
  source = new EventSource("/_admin/live");
  source.addEventListener("version", (event) => {
    heard = Date.now();
    if (event.data !== version()) refreshSoon();
    else stale("");
  });
  source.addEventListener("error", () => {
    if (source && source.readyState === EventSource.CLOSED) setTimeout(() => { if (source && !document.hidden) { source.close(); listen(); } }, 15000);
  });
}

function live() {
  if (source) source.close();
  clearInterval(poll);
  source = undefined;
  if (document.hidden) return;
  refresh();
  listen();
  poll = setInterval(() => { if (Date.now() - heard > (source.readyState === EventSource.OPEN ? SILENT_MS : POLL_MS) || (pace && Date.now() - fetched > 1.5 * pace)) refresh(); }, 5000);
}

function wire() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    button.onclick = async () => {
      await navigator.clipboard.writeText($(button.dataset.copy).textContent);
      button.textContent = "Copied";
    };
  }
}

for (const section of document.querySelectorAll("[data-live]")) served.set(section.id, section.outerHTML);
localTimes(document);
wire();
drawCharts();
for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) matchMedia(query).addEventListener("change", drawCharts);
if (document.querySelector("[data-live]")) {
  document.addEventListener("visibilitychange", live);
  live();
}
