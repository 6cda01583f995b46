"use strict";
// The page of a Wattledger collector. It shows what the API says and reckons nothing but shares, sums of what is on the
// screen, and rounding. An unknown figure is a dash with its reason, never a zero. It loads nothing from other machines.

const settings = JSON.parse(document.getElementById("settings").textContent);
const REFRESH_MILLISECONDS = 2000;
const HOUR_SECONDS = 3600;
// Points are five seconds apart; a longer hole is drawn as one.
const HOLE_SECONDS = 20;
const HOSTS_SHOWN = 100;
const COMPONENTS = ["cpu", "memory", "gpu", "accelerator", "other"];
const NAMES = { cpu: "CPU", memory: "Memory", gpu: "GPU", accelerator: "Accelerator", other: "Other" };
const QUALITIES = {
  counter: ["Hardware counters", "Counted by an energy counter in the hardware."],
  integral: ["Integrated power", "Measured power, integrated over time."],
  bridged: ["Bridged", "A counter spanned a hole: the energy is exact, its spread over time is even by assumption."],
  model: ["Modelled", "Estimated from load; not measured."],
};

// Small tools.

const $ = (id) => document.getElementById(id);
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "text", "rect", "circle", "defs", "pattern", "clipPath"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
function set(node, text) { if (node.textContent !== text) node.textContent = text; }
function show(id, visible) { $(id).hidden = !visible; }
function explain(node, lines) {
  const text = lines.filter(Boolean).join("\n");
  if (node.dataset.tip === text) return;
  if (text) { node.dataset.tip = text; node.tabIndex = 0; } else { delete node.dataset.tip; node.removeAttribute("tabindex"); }
}
function tags(node, entries) {
  const key = JSON.stringify(entries);
  if (node.dataset.key === key) return;
  node.dataset.key = key;
  node.replaceChildren(...entries.filter(Boolean).map(([text, kind]) => kind === undefined ? make("span", {}, text) : make("span", { class: `tag ${kind}` }, text)));
}

// Numbers. Four digits say more than any sensor knows.

function digits(value, count = 4) {
  if (value === 0) return "0";
  const decimals = Math.max(0, count - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en", { minimumFractionDigits: Math.min(decimals, 4), maximumFractionDigits: Math.min(decimals, 4), useGrouping: true });
}
function scaled(value, steps, count) {
  let [factor, unit] = steps[0];
  // The unit is chosen after rounding, so that 999.96 W is not shown as 1,000 W.
  for (const [next, name] of steps) if (Math.abs(value) >= next * 0.99995) [factor, unit] = [next, name];
  return [digits(value / factor, count), unit];
}
const watts = (value, count) => scaled(value, [[1, "W"], [1e3, "kW"], [1e6, "MW"], [1e9, "GW"]], count);
const kilowattHours = (value, count) => scaled(value, [[1e-3, "Wh"], [1, "kWh"], [1e3, "MWh"], [1e6, "GWh"]], count);
const grams = (value, count) => scaled(value, [[1, "g"], [1e3, "kg"], [1e6, "t"], [1e9, "kt"]], count);
const say = ([value, unit]) => `${value} ${unit}`;
const percent = (ratio, decimals = 0) => {
  const smallest = 10 ** -decimals;
  // Little is not nothing.
  if (ratio > 0 && ratio * 100 < smallest / 2) return `< ${smallest} %`;
  return `${(ratio * 100).toLocaleString("en", { maximumFractionDigits: decimals })} %`;
};
const kwhOf = (microjoules) => Number(microjoules) / 3.6e12;
const gas = (name) => name.replace("CO2", "CO₂");
const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
function age(seconds) {
  if (seconds === null) return "never";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} d ago`;
}
function band(lower, upper) {
  const [low, high] = [Math.round(lower * 100), Math.round(upper * 100)];
  return low === high ? `±${low} %` : `−${low} / +${high} %`;
}
function modelTag(share, lower, upper) {
  if (!(share > 0)) return null;
  const width = lower || upper ? ` ${band(lower, upper)}` : "";
  return [share > 0.995 ? `modelled${width}` : `${percent(share)} modelled${width}`, "model"];
}
const zoneName = settings.timeZone.replace(/^Etc\//, "");
const plain = (value) => value.toLocaleString("en", { maximumFractionDigits: 2 });
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB", { timeZone: settings.timeZone });

// The four figures.

function figure(id, pair) {
  set($(id), pair[0]); set($(`${id}-unit`), pair[1]);
  $(id).classList.toggle("unknown", pair[1] === "");
}
function renderPower({ power, agents, today, simulated_hosts: simulated }) {
  const card = $("card-power");
  if (power.watts === null) {
    figure("power", ["unknown", ""]);
    tags($("power-sub"), [["no host reports at present"]]);
    explain(card, ["Power now is unknown: no host has sent a value within the last minute.", "Unknown is not zero."]);
    return;
  }
  figure("power", watts(power.watts));
  const model = modelTag(power.modelled_watts / power.watts, today.model_band.lower_ratio, today.model_band.upper_ratio);
  const [low, high] = [say(watts(power.lower_watts, 3)), say(watts(power.upper_watts, 3))];
  tags($("power-sub"), [[count(power.hosts, "host", "hosts")], model, simulated ? [`${simulated} simulated`, "warn"] : null,
    low === high ? null : [`95 %: ${low} – ${high}`]]);
  explain(card, ["Power now = sum over all reporting hosts of their parts and residuals.",
    `Measured ${say(watts(power.watts - power.modelled_watts))}, modelled ${say(watts(power.modelled_watts))}.`,
    `95 % band: ${say(watts(power.lower_watts))} to ${say(watts(power.upper_watts))}; errors are added, not averaged out.`,
    simulated ? `${count(simulated, "host is", "hosts are")} simulated: counters made up by the program, for show.` : "",
    `Source: live values of ${count(agents.reporting ?? 0, "agent", "agents")}, never booked.`]);
}
function renderEnergy({ today, simulated_hosts: simulated }) {
  figure("energy", kilowattHours(today.energy_kwh));
  const model = Number(today.energy_microjoules_by_quality.model ?? 0);
  const share = model / Number(today.energy_microjoules);
  const { lower_ratio: lower, upper_ratio: upper } = today.model_band;
  tags($("energy-sub"), [[`since 00:00 ${zoneName}`], modelTag(share, lower, upper), simulated ? ["with simulated hosts", "warn"] : null]);
  explain($("card-energy"), [`Energy today = all energy booked in intervals that began since ${today.from}.`,
    `${BigInt(today.energy_microjoules).toLocaleString("en")} µJ of IT energy; 1 kWh = 3.6 × 10¹² µJ.`,
    share > 0 ? `${percent(share, 1)} is modelled; its 95 % band is ${band(lower, upper)}.` : "All of it is measured.",
    "Source: the ledger, as committed. Provisional until the period is closed."]);
}
function renderEmissions({ today, sites, simulated_hosts: simulated }) {
  const card = $("card-emissions");
  const uncovered = kwhOf(today.uncovered_microjoules);
  const without = uncovered > 0 ? [`${say(kilowattHours(uncovered, 3))} without a factor`, "warn"] : null;
  const assumed = sites.some((site) => site.assumed && site.factor) ? ["assumed zone", "warn"] : null;
  if (!today.emissions.length) {
    figure("emissions", ["unknown", ""]);
    tags($("emissions-sub"), [without ?? ["nothing booked yet today"]]);
    explain(card, ["Emissions today are unknown.", ...sites.filter((site) => site.missing).map((site) => `${site.site}: ${site.missing}.`)]);
    return;
  }
  // Unlike types are never added: the largest is shown, the others are named.
  const kinds = [...today.emissions].sort((a, b) => b.grams - a.grams);
  set($("emissions-name"), gas(kinds[0].gas));
  figure("emissions", grams(kinds[0].grams));
  const { lower_ratio: lower, upper_ratio: upper } = today.model_band;
  tags($("emissions-sub"), [["location based"],
    ...kinds.slice(1).map((kind) => [`+ ${say(grams(kind.grams, 3))} ${gas(kind.gas)} (${kind.boundary})`]),
    modelTag(kinds[0].modelled_grams / kinds[0].grams, lower, upper), without, assumed, simulated ? ["with simulated hosts", "warn"] : null]);
  explain(card, ["Emissions = IT energy × PUE × grid factor, for each site and interval.",
    ...kinds.map((kind) => `${say(grams(kind.grams))} ${gas(kind.gas)} by factors of type ${gas(kind.kind)}.`),
    kinds.length > 1 ? "Types are not added: they count different things." : "",
    kinds[0].modelled_grams > 0 ? `The modelled part's energy has a 95 % band of ${band(lower, upper)}.` : "",
    assumed ? "A zone was proposed by the program, not configured: the figure is an assumption." : "",
    "Source: the ledger and published yearly factors. Provisional."]);
}
function renderFactor({ sites }) {
  const card = $("card-factor");
  const known = sites.filter((site) => site.factor);
  const missing = sites.filter((site) => !site.factor);
  const without = missing.length ? [`${count(missing.length, "site", "sites")} without`, "warn"] : null;
  const reasons = missing.map((site) => `${site.site}: no factor, since ${site.missing}.`);
  if (!known.length) {
    figure("factor", ["none", ""]);
    tags($("factor-sub"), [sites.length ? ["no site has a zone", "warn"] : ["no site yet"]]);
    explain(card, ["Without a grid zone there is no emissions figure; the energy is metered all the same.", ...reasons]);
    return;
  }
  const zones = new Map(known.map((site) => [site.factor.id, site]));
  const first = known[0].factor;
  if (zones.size === 1) {
    figure("factor", [digits(Number(first.grams_per_kwh)), `g ${gas(first.gas)}/kWh`]);
    tags($("factor-sub"), [[`${first.zone_name}, ${first.vintage}`], known[0].assumed ? ["assumed", "warn"] : null, known[0].provisional ? ["latest known", ""] : null, without]);
  } else {
    const values = [...zones.values()].map((site) => Number(site.factor.grams_per_kwh));
    figure("factor", [`${Math.round(Math.min(...values))}–${Math.round(Math.max(...values))}`, "g/kWh"]);
    tags($("factor-sub"), [[`${count(zones.size, "factor", "factors")}, see sites`], known.some((site) => site.assumed) ? ["assumed", "warn"] : null, without]);
  }
  explain(card, [...[...zones.values()].map((site) => `${site.site}: ${site.factor.grams_per_kwh} g/kWh for ${site.factor.zone} (${site.factor.zone_name}), ${gas(site.factor.kind)}, ${site.factor.vintage}, ${site.factor.source}.`), ...reasons]);
}

// The chart.

const past = { seconds: [], hosts: [], lower: [], upper: [], components: {} };
function append(history) {
  const before = past.seconds.length;
  past.seconds.push(...history.seconds); past.hosts.push(...history.hosts);
  past.lower.push(...history.lower_watts); past.upper.push(...history.upper_watts);
  for (const name of COMPONENTS) {
    const column = past.components[name] ??= { measured: Array(before).fill(0), modelled: Array(before).fill(0) };
    const zeros = Array(history.seconds.length).fill(0);
    column.measured.push(...(history.components[name]?.measured_watts ?? zeros));
    column.modelled.push(...(history.components[name]?.modelled_watts ?? zeros));
  }
  const old = past.seconds.findIndex((second) => second > history.now_seconds - HOUR_SECONDS);
  const cut = old < 0 ? past.seconds.length : old;
  for (const column of [past.seconds, past.hosts, past.lower, past.upper, ...Object.values(past.components).flatMap((c) => [c.measured, c.modelled])]) column.splice(0, cut);
}
function layers() {
  const result = [];
  for (const name of COMPONENTS) for (const method of ["measured", "modelled"]) {
    const values = past.components[name]?.[method];
    if (values?.some((value) => value !== 0)) result.push({ name, method, values });
  }
  return result;
}
function totalAt(index) { return COMPONENTS.reduce((sum, name) => sum + (past.components[name]?.measured[index] ?? 0) + (past.components[name]?.modelled[index] ?? 0), 0); }
function ceiling(value) {
  const step = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((factor) => factor * step).find((mark) => mark >= value * 1.05) ?? 10 * step;
}
function runs() {
  const result = [];
  past.seconds.forEach((second, index) => {
    const last = result.at(-1);
    if (last && second - past.seconds[index - 1] <= HOLE_SECONDS) last.push(index); else result.push([index]);
  });
  return result;
}
function axis(value) {
  const unit = watts(value)[1];
  return `${plain(value / { W: 1, kW: 1e3, MW: 1e6, GW: 1e9 }[unit])} ${unit}`;
}
let scale = null;
function renderChart(now) {
  const box = $("chart");
  const [width, height] = [box.clientWidth, box.clientHeight];
  if (!width) return;
  const [left, right, top, bottom] = [54, 8, 8, 24];
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  if (!past.seconds.length) {
    svg.append(make("text", { class: "waiting", x: width / 2, y: height / 2 }, "No host has reported power within the last hour."));
    scale = null; box.replaceChildren(svg); return;
  }
  // A young collector shows one minute, so that its first points are seen; later the whole hour.
  const begin = Math.max(now - HOUR_SECONDS, Math.min(past.seconds[0], now - 60));
  const highest = ceiling(Math.max(...past.upper, ...past.seconds.map((_, index) => totalAt(index))));
  const x = (second) => left + (second - begin) / (now - begin) * (width - left - right);
  const y = (value) => top + (1 - Math.max(0, value) / highest) * (height - top - bottom);
  scale = { x, y, top, bottom: height - bottom };
  const defs = make("defs");
  for (const name of COMPONENTS) defs.append(make("pattern", { id: `hatch-${name}`, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)", class: `c-${name}` },
    make("rect", { width: 6, height: 6, class: "area" }), make("line", { x1: 0, y1: 0, x2: 0, y2: 6, class: "hatch" })));
  svg.append(defs);
  for (let part = 0; part <= 4; part++) {
    const value = highest * part / 4;
    svg.append(make("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: part ? "gridline" : "axis" }),
      make("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, part ? axis(value) : "0"));
  }
  const span = now - begin;
  const step = [10, 15, 30, 60, 120, 300, 600].find((seconds) => span / seconds <= 8) ?? 900;
  for (let second = Math.ceil(begin / step) * step; second <= now; second += step)
    if (x(second) < width - 24) svg.append(make("text", { x: x(second), y: height - 6, "text-anchor": x(second) < left + 20 ? "start" : "middle" }, clock(second).slice(0, step < 60 ? 8 : 5)));
  for (const run of runs()) drawRun(svg, run, x, y);
  svg.append(make("g", { id: "cursor" }));
  box.replaceChildren(svg);
}
function drawRun(svg, run, x, y) {
  // A single point is drawn three pixels wide, else nobody could see it.
  const across = run.length > 1 ? run.map((index) => x(past.seconds[index])) : [x(past.seconds[run[0]]) - 1.5, x(past.seconds[run[0]]) + 1.5];
  const indexes = run.length > 1 ? run : [run[0], run[0]];
  const area = (low, high) => "M" + across.map((at, i) => `${at.toFixed(1)} ${y(high[i]).toFixed(1)}`).join("L") + "L" + across.map((at, i) => `${at.toFixed(1)} ${y(low[i]).toFixed(1)}`).reverse().join("L") + "Z";
  let low = indexes.map(() => 0);
  for (const layer of layers()) {
    const high = indexes.map((index, i) => low[i] + Math.max(0, layer.values[index]));
    const path = make("path", { class: `area c-${layer.name}`, d: area(low, high) });
    if (layer.method === "modelled") path.style.fill = `url(#hatch-${layer.name})`;
    svg.append(path);
    low = high;
  }
  svg.append(make("path", { class: "band", d: area(indexes.map((i) => past.lower[i]), indexes.map((i) => past.upper[i])) }),
    make("path", { class: "total", d: "M" + across.map((at, i) => `${at.toFixed(1)} ${y(totalAt(indexes[i])).toFixed(1)}`).join("L") }));
}
function renderLegend({ power }) {
  const items = [];
  for (const name of COMPONENTS) {
    const part = power.components[name];
    if (!part) continue;
    for (const [method, suffix] of [["measured_watts", ""], ["modelled_watts", ", modelled"]]) {
      if (!part[method]) continue;
      items.push(make("li", {}, make("span", { class: `swatch c-${name}${suffix ? " hatched" : ""}` }), `${NAMES[name]}${suffix} `, make("b", {}, say(watts(part[method], 3)))));
    }
  }
  $("legend").replaceChildren(...items);
}
function renderChartTable() {
  if (!$("chart-table").open) return;
  const shown = layers();
  $("chart-head").replaceChildren(make("tr", {}, ...["Time", ...shown.map((l) => NAMES[l.name] + (l.method === "modelled" ? ", modelled" : "")), "Total", "Hosts"].map((t, i) => make("th", { scope: "col", class: i ? "number" : "" }, t))));
  const every = Math.max(1, Math.floor(past.seconds.length / 24));
  const rows = past.seconds.map((_, i) => i).filter((i) => (past.seconds.length - 1 - i) % every === 0).reverse();
  $("chart-body").replaceChildren(...rows.map((i) => make("tr", {}, make("th", { scope: "row" }, clock(past.seconds[i])),
    ...shown.map((l) => make("td", { class: "number" }, say(watts(l.values[i], 3)))), make("td", { class: "number" }, say(watts(totalAt(i)))), make("td", { class: "number" }, String(past.hosts[i])))));
}
let pointed = null;
function point(index) {
  pointed = index;
  const group = $("cursor");
  if (!group || !scale) return;
  group.replaceChildren();
  if (index === null || index >= past.seconds.length) { hideTip(); return; }
  const at = scale.x(past.seconds[index]);
  group.append(make("line", { class: "cursor", x1: at, x2: at, y1: scale.top, y2: scale.bottom }), make("circle", { class: "dot", cx: at, cy: scale.y(totalAt(index)), r: 3.5 }));
  const box = $("chart").getBoundingClientRect();
  const lines = layers().reverse().filter((l) => l.values[index]).map((l) => `${NAMES[l.name]}${l.method === "modelled" ? ", modelled" : ""}: ${say(watts(l.values[index], 3))}`);
  showTip([`${clock(past.seconds[index])}  ${say(watts(totalAt(index)))}`, ...lines, `95 %: ${say(watts(past.lower[index], 3))} – ${say(watts(past.upper[index], 3))}`, count(past.hosts[index], "host", "hosts")].join("\n"), box.left + at + 12, box.top + 16, box.left + at - 12);
}

// Data quality.

function renderQuality({ today, quality, agents }) {
  const total = Number(today.energy_microjoules);
  const parts = Object.keys(QUALITIES).map((name) => [name, Number(today.energy_microjoules_by_quality[name] ?? 0)]).filter(([, value]) => value > 0);
  set($("quality-note"), total > 0 ? "today's energy, by how it was made" : "nothing was booked today yet");
  $("quality-bar").setAttribute("aria-label", parts.length ? parts.map(([name, value]) => `${QUALITIES[name][0]} ${percent(value / total)}`).join(", ") : "No energy booked today");
  $("quality-bar").replaceChildren(...parts.map(([name, value]) => { const part = make("span", { class: `c-${name}${name === "model" ? " hatched" : ""}` }); part.style.flexGrow = value / total; return part; }));
  const legend = $("quality-legend");
  if (legend.childElementCount !== parts.length) legend.replaceChildren(...parts.map(() => make("li")));
  parts.forEach(([name, value], index) => {
    const item = legend.children[index];
    const text = `${QUALITIES[name][0]} ${percent(value / total, 1)}`;
    if (item.textContent !== text) item.replaceChildren(make("span", { class: `swatch c-${name}${name === "model" ? " hatched" : ""}` }), `${QUALITIES[name][0]} `, make("b", {}, percent(value / total, 1)));
    explain(item, [QUALITIES[name][1]]);
  });
  const other = Object.entries(agents).filter(([state]) => state !== "reporting" && state !== "silent");
  facts([
    ["Coverage, last hour", quality.coverage_ratio === null ? "nothing expected yet" : percent(Math.floor(quality.coverage_ratio * 1000) / 1000, 1),
      ["Coverage = channel time with a figure / channel time expected, over the last hour in whole intervals.", `${digits(quality.covered_seconds)} s of ${digits(quality.expected_seconds)} s of channel time.`]],
    ["Agents", [`${agents.reporting ?? 0} reporting`, agents.silent ? `${agents.silent} silent` : "", ...other.map(([state, number]) => `${number} ${state}`)].filter(Boolean).join(", "),
      ["A host is silent when nothing came from it for a minute. Its power is then unknown and leaves the sum; its energy stays."]],
    ["Gaps booked today", quality.recent_gaps >= 200 ? "200 or more" : String(quality.recent_gaps), ["Spans in which a sensor may have missed energy, since this collector's start. Each has a reason and bounds; nothing is made up for them.", "All: /api/v1/gaps"]],
    ["Failing sensors", quality.hosts_with_failing_sources ? `on ${count(quality.hosts_with_failing_sources, "host", "hosts")}` : "none", ["Hosts with a source whose last read failed. The hosts table says why."]],
    quality.withheld_hosts ? ["Waiting after restore", count(quality.withheld_hosts, "host", "hosts"), ["The database was restored from a backup. Counters are withheld until these agents have sent again what it lacks."]] : null,
  ].filter(Boolean));
}
function facts(entries) {
  const list = $("facts");
  if (list.childElementCount !== entries.length) list.replaceChildren(...entries.map(() => make("div", { class: "why" }, make("dt"), make("dd"))));
  entries.forEach(([name, value, why], index) => { const item = list.children[index]; set(item.firstChild, name); set(item.lastChild, value); explain(item, why); });
}

// Tables. Rows are kept and changed in place, so that focus and hover survive a refresh.

function rows(body, entries, key, cells, fill) {
  const kept = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const wanted = entries.map((entry) => {
    let row = kept.get(key(entry));
    if (!row) { row = make("tr"); row.dataset.key = key(entry); row.append(make("th", { scope: "row" }), ...cells.map((kind) => make("td", { class: kind }))); }
    fill(row, [...row.children], entry);
    return row;
  });
  if (wanted.length !== body.childElementCount || wanted.some((row, index) => row !== body.children[index])) body.replaceChildren(...wanted);
}
function renderSites({ sites }) {
  rows($("sites"), sites, (site) => site.site, ["", "number", "number", "", "number", "number", "number"], (row, cells, site) => {
    const [name, zone, pue, factor, source, power, energy, emissions] = cells;
    set(name, site.site);
    const assumed = site.zone && site.assumed;
    tags(zone, [[site.zone ? `${site.zone}${site.factor ? `, ${site.factor.zone_name}` : ""}` : "none"], assumed ? ["assumed", "warn"] : null]);
    explain(zone, [site.missing ? `No emissions figure: ${site.missing}.` : "", assumed ? "This zone was proposed from the system's time zone. Set the site's zone to make it yours." : ""]);
    set(pue, site.pue ?? "–"); explain(pue, ["Facility energy / IT energy, from the configuration."]);
    set(factor, site.factor ? `${digits(Number(site.factor.grams_per_kwh))} g ${gas(site.factor.gas)}/kWh` : "–");
    explain(factor, site.factor ? [`${site.factor.grams_per_kwh} g/kWh, exact.`, gas(site.factor.kind), site.factor.includes_transmission_losses ? "Losses of transmission and distribution are in it." : "Losses of transmission and distribution are not in it."] : [`No factor: ${site.missing}.`]);
    tags(source, site.factor ? [[`${site.factor.source}, ${site.factor.vintage}`], site.provisional ? ["latest known", ""] : null] : [["–"]]);
    explain(source, site.factor ? [site.factor.attribution, site.factor.document, `Published ${site.factor.published}, ${site.factor.licence}.`, site.provisional ? "No factor for the present period is published yet; the latest one stands in." : ""] : []);
    set(power, site.power.watts === null ? "–" : say(watts(site.power.watts)));
    set(energy, say(kilowattHours(site.today.energy_kwh)));
    set(emissions, site.today.emissions.map((kind) => `${say(grams(kind.grams))} ${gas(kind.gas)}`).join(" + ") || "unknown");
    explain(emissions, site.factor ? [`${say(kilowattHours(site.today.energy_kwh))} × PUE ${site.pue} × ${digits(Number(site.factor.grams_per_kwh))} g/kWh, by interval.`] : [`Unknown: ${site.missing}.`]);
  });
}
const STATES = { reporting: "A value came within the last minute.", silent: "Nothing came for more than a minute. The agent keeps metering into its spool; its energy arrives later.", drained: "An operator expects it to be silent.", retired: "An operator has taken it out of service.", conflict: "Another machine uses this host's id.", recorded: "A recording: its times are taken as they are, and it is not in the fleet's sums." };
function madeBy(host) {
  if (host.recorded) return [["recording", ""]];
  if (host.simulated) return [["simulated", "warn"]];
  const total = host.power.watts;
  if (total) {
    const share = host.power.modelled_watts / total;
    const spread = [(total - host.power.lower_watts) / total, (host.power.upper_watts - total) / total];
    return [share > 0 ? modelTag(share, ...spread) : ["measured"]];
  }
  const methods = Object.keys(host.energy_microjoules_by_method);
  return [!methods.length ? ["–"] : methods.includes("model") ? ["modelled", "model"] : ["measured"]];
}
function busiest(host, test) {
  const found = host.utilizations.filter((item) => item.kind === "busy" && test(item.device));
  return found.length ? [percent(found.reduce((sum, item) => sum + item.ratio, 0) / found.length), found.map((item) => `${item.device}: ${percent(item.ratio, 1)}`)] : ["–", []];
}
function renderHosts({ total, hosts }) {
  const largest = Math.max(1e-9, ...hosts.map((host) => host.power.watts ?? 0));
  set($("hosts-count"), total > hosts.length ? `the first ${hosts.length} of ${total.toLocaleString("en")}` : total.toLocaleString("en"));
  rows($("hosts"), hosts, (host) => host.host, ["", "number", "bar-cell", "", "number", "number", "number", "", "number"], (row, cells, host) => {
    const [name, state, power, bar, made, cpu, gpu, energy, site, last] = cells;
    row.classList.toggle("quiet", host.state !== "reporting");
    set(name, host.name || host.host); explain(name, host.name && host.name !== host.host ? [`Host id: ${host.host}`] : []);
    set(site, host.site);
    const errors = host.errors.length ? [[`${count(host.errors.length, "sensor fails", "sensors fail")}`, "warn"]] : [];
    tags(state, [[host.state], host.withheld ? ["catching up", "warn"] : null, ...errors]);
    state.firstChild.className = `state ${host.state}`;
    explain(state, [STATES[host.state], host.conflict, host.withheld ? "Its counters are withheld after a restore, until its agent has caught up." : "", ...host.errors]);
    set(power, host.power.watts === null ? "–" : say(watts(host.power.watts)));
    explain(power, host.power.watts === null ? ["Unknown: no value within the last minute."] : [...Object.entries(host.power.components).map(([part, value]) => `${NAMES[part]}: ${say(watts(value.measured_watts + value.modelled_watts))}`), host.power.lower_watts < host.power.upper_watts ? `95 %: ${say(watts(host.power.lower_watts))} – ${say(watts(host.power.upper_watts))}` : ""]);
    const meter = bar.firstChild ?? bar.appendChild(make("span", { class: "meter", "aria-hidden": "true" }));
    meter.hidden = !(host.power.watts > 0); meter.style.width = `${Math.max(0, 100 * (host.power.watts ?? 0) / largest)}%`;
    meter.classList.toggle("hatched", host.power.modelled_watts > host.power.watts / 2);
    tags(made, madeBy(host)); explain(made, [host.simulated ? "Counters made up by the program, for show or for a test." : "", host.power.modelled_watts > 0 ? "Estimated from load; the band holds 95 % of comparable machines. `wattledger-agent doctor` on the host says how to get measured figures." : ""]);
    for (const [cell, test] of [[cpu, (device) => device.startsWith("cpu")], [gpu, (device) => device.startsWith("gpu")]]) { const [text, why] = busiest(host, test); set(cell, text); explain(cell, why); }
    const booked = host.recorded ? kwhOf(host.recorded_microjoules) : host.energy_kwh;
    set(energy, say(kilowattHours(booked))); explain(energy, [`Committed energy since ${host.since ?? "its first sample"}.`, `${BigInt(host.recorded ? host.recorded_microjoules : host.energy_microjoules).toLocaleString("en")} µJ`]);
    set(last, age(host.last_sample_age_seconds)); explain(last, host.last_sample ? [host.last_sample] : ["Nothing was booked yet."]);
  });
}

// What the energy of one host was spent on.

const KINDS = { idle: "idle", unattributed: "unattributed", other: "other", kubernetes_pod: "pod", slurm_job: "Slurm job", systemd_unit: "unit", container: "container", virtual_machine: "virtual machine" };
const KIND_WORDS = { idle: "Spent while nothing worked, as far as the idle policy leaves it to the host.", unattributed: "Spent by work that no workload could be found for.", other: "Workloads beyond the largest, together." };
const POLICIES = {
  node_only: ["stays with the host", "No workload pays for idling hardware; it is in the row idle."],
  equal: ["in equal parts", "The energy of idling hardware is given to all workloads in equal parts."],
  by_usage: ["by usage", "The energy of idling hardware is given to workloads by the CPU time that they used."],
  by_reservation: ["by reservation", "The energy of idling hardware is given to workloads by what they have reserved."],
};
// The host that was chosen; until then the one that draws most.
function workloadsHost(hosts) {
  const able = hosts.filter((host) => host.workload_count > 0);
  const select = $("workloads-host");
  const key = JSON.stringify(able.map((host) => [host.host, host.name]));
  if (select.dataset.key !== key) {
    const chosen = select.value;
    select.dataset.key = key;
    select.replaceChildren(...able.map((host) => make("option", { value: host.host }, host.name || host.host)));
    if (able.some((host) => host.host === chosen)) select.value = chosen;
  }
  return select.value;
}
const seconds = (value) => value < 5400 ? `${digits(value, 3)} s` : `${digits(value / 3600, 4)} h`;
function renderWorkloads(host) {
  show("workloads-panel", host !== null && host.workloads.length > 0);
  if ($("workloads-panel").hidden) return;
  const { workloads, workloads_left_out: more } = host;
  const largest = Math.max(1e-9, ...workloads.map((each) => each.energy_kwh));
  set($("workloads-count"), more ? `the largest ${workloads.length} of ${(workloads.length + more).toLocaleString("en")}` : workloads.length.toLocaleString("en"));
  rows($("workloads"), workloads, (each) => JSON.stringify([each.kind, each.namespace, each.workload, each.idle_policy]), ["", "", "number", "bar-cell", "", "number", "", "number"], (row, cells, each) => {
    const [name, kind, namespace, energy, bar, made, cpu, policy, last] = cells;
    set(name, each.workload); explain(name, [each.workload]); set(namespace, each.namespace || "–");
    set(kind, KINDS[each.kind] ?? each.kind); explain(kind, [KIND_WORDS[each.kind] ?? ""]);
    set(energy, say(kilowattHours(each.energy_kwh)));
    explain(energy, ["Committed energy since it was first seen on this host.", `${BigInt(each.energy_microjoules).toLocaleString("en")} µJ`, ...Object.entries(each.energy_microjoules_by_component).map(([part, value]) => `${NAMES[part]}: ${say(kilowattHours(kwhOf(value)))}`)]);
    const meter = bar.firstChild ?? bar.appendChild(make("span", { class: "meter", "aria-hidden": "true" }));
    const model = Number(each.energy_microjoules_by_method.model ?? 0) / Number(each.energy_microjoules);
    meter.hidden = !(each.energy_kwh > 0); meter.style.width = `${100 * each.energy_kwh / largest}%`;
    meter.classList.toggle("hatched", model > 0.5);
    tags(made, [each.energy_kwh > 0 ? modelTag(model, 0, 0) ?? ["measured"] : ["–"]]);
    set(cpu, seconds(each.cpu_seconds));
    const [words, why] = POLICIES[each.idle_policy] ?? [each.idle_policy, ""];
    set(policy, words); explain(policy, [why]);
    set(last, age(each.last_seen_age_seconds));
  });
}

// Explanations, on hover and on focus.

const tip = $("tip");
function showTip(text, left, top, flipped = left) {
  set(tip, text); tip.hidden = false;
  const width = tip.offsetWidth;
  const x = left + width > document.documentElement.clientWidth - 8 ? flipped - width : left;
  tip.style.left = `${Math.max(8, x + window.scrollX)}px`; tip.style.top = `${top + window.scrollY}px`;
}
function hideTip() { tip.hidden = true; document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby"); }
function showFor(node) {
  hideTip();
  if (!node) return;
  node.setAttribute("aria-describedby", "tip");
  const box = node.getBoundingClientRect();
  showTip(node.dataset.tip, box.left, box.bottom + 6, box.right);
}
document.addEventListener("mouseover", (event) => { if (!$("chart").contains(event.target)) showFor(event.target.closest("[data-tip]")); });
document.addEventListener("focusin", (event) => { if (event.target !== $("chart")) showFor(event.target.closest("[data-tip]")); });
document.addEventListener("focusout", hideTip);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") { hideTip(); point(null); } });
$("chart").addEventListener("pointermove", (event) => {
  if (!scale || !past.seconds.length) return;
  const at = event.clientX - $("chart").getBoundingClientRect().left;
  point(past.seconds.reduce((best, second, index) => Math.abs(scale.x(second) - at) < Math.abs(scale.x(past.seconds[best]) - at) ? index : best, 0));
});
for (const event of ["pointerleave", "blur"]) $("chart").addEventListener(event, () => point(null));
$("chart").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -12, PageDown: 12, Home: -Infinity, End: Infinity }[event.key];
  if (step === undefined || !past.seconds.length) return;
  event.preventDefault();
  point(Math.min(past.seconds.length - 1, Math.max(0, (pointed ?? past.seconds.length - 1) + step)));
});
$("chart-table").addEventListener("toggle", renderChartTable);

// Asking the collector.

function notices(lost) {
  const entries = [];
  if (lost) entries.push([lost, "bad"]);
  if (settings.insecureTransport) entries.push(["Agents may connect from other machines without TLS (insecure = true): anyone on the network can read and forge figures.", ""]);
  if (settings.notice) entries.push([settings.notice, ""]);
  const key = JSON.stringify(entries);
  if ($("notices").dataset.key === key) return;
  $("notices").dataset.key = key;
  $("notices").replaceChildren(...entries.map(([text, kind]) => make("p", { class: `notice ${kind}`, role: kind ? "alert" : "note" }, text)));
}
async function ask(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(10_000) });
  if (!response.ok) throw new Error(`the collector answered ${response.status} to ${path}`);
  return response.json();
}
let seen = 0, answered = null, timer = 0, latest = 0;
async function refresh() {
  clearTimeout(timer);
  const turn = ++latest;
  try {
    const search = $("search").value.trim();
    const [fleet, history, hosts] = await Promise.all([ask("/api/v1/fleet"), ask(`/api/v1/power?after=${seen}`), ask(`/api/v1/hosts?limit=${HOSTS_SHOWN}${search ? `&search=${encodeURIComponent(search)}` : ""}`)]);
    const chosen = workloadsHost(hosts.hosts);
    const workloads = chosen ? await ask(`/api/v1/hosts/${encodeURIComponent(chosen)}`) : null;
    if (turn !== latest) return;
    if (history.seconds.length) seen = history.seconds.at(-1);
    append(history);
    render(fleet, hosts, search);
    renderWorkloads(workloads);
    answered = fleet.now_seconds;
    set($("status"), `Live, ${clock(answered)} ${zoneName}`);
    $("pulse").className = "pulse live";
    notices("");
  } catch (error) {
    if (turn !== latest) return;
    $("pulse").className = "pulse lost";
    set($("status"), answered ? `Not live: figures of ${clock(answered)}` : "Not connected");
    notices(`The collector does not answer (${error.message}). ${answered ? `What you see is of ${clock(answered)} ${zoneName}.` : ""} Is it running? This page asks again every two seconds.`);
    console.warn(error);
  }
  timer = setTimeout(refresh, REFRESH_MILLISECONDS);
}
let drawn = null;
function render(fleet, hosts, search) {
  const isEmpty = Object.values(fleet.agents).reduce((sum, number) => sum + number, 0) === 0;
  show("empty", isEmpty);
  for (const id of ["cards", "chart-panel", "quality-panel", "hosts-panel"]) show(id, !isEmpty);
  show("sites-panel", !isEmpty && fleet.sites.length > 0);
  if (isEmpty) return;
  renderPower(fleet); renderEnergy(fleet); renderEmissions(fleet); renderFactor(fleet);
  drawn = fleet.now_seconds;
  renderChart(drawn); renderLegend(fleet); renderChartTable();
  if (pointed !== null) point(pointed);
  renderQuality(fleet); renderSites(fleet); renderHosts(hosts, search);
  const explained = document.querySelector("[aria-describedby=tip]");
  if (explained?.dataset.tip) set(tip, explained.dataset.tip);
}
new ResizeObserver(() => { if (drawn !== null) renderChart(drawn); }).observe($("chart"));
$("search").addEventListener("input", refresh);
$("workloads-host").addEventListener("change", refresh);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
set($("agent-address"), settings.agentAddress || "collector.example:9791");
set($("about"), `Wattledger ${settings.version}, collector ${settings.collector}. Days begin at 00:00 ${zoneName}.`);
notices("");
refresh();
