"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function node(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function shape(name, attributes = {}, text = "") {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== "") element.textContent = text;
  return element;
}

function canvas(width, height, label) {
  return shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
}

const short = (x) => (x === null ? "-" : Number(x.toPrecision(3)).toString());

/* No part of either map is near the white of the page; the cyclic one ends where it begins. */
function colour(value, low, high, cyclic) {
  const part = high > low ? (value - low) / (high - low) : 0;
  if (cyclic) {
    const wave = (shift) => Math.round(118 + 92 * Math.cos(2 * Math.PI * (part - shift)));
    return `rgb(${wave(0)},${Math.round(0.85 * wave(1 / 3))},${wave(2 / 3)})`;
  }
  const stops = [[59, 28, 120], [24, 128, 138], [216, 150, 0]];
  const at = Math.min(1.999, Math.max(0, 2 * part)), j = Math.floor(at);
  return `rgb(${[0, 1, 2].map((c) => Math.round(stops[j][c] + (at - j) * (stops[j + 1][c] - stops[j][c])))})`;
}

function bounds(lists) {
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const list of lists) for (const [x, y] of list) {
    x0 = Math.min(x0, x); x1 = Math.max(x1, x); y0 = Math.min(y0, y); y1 = Math.max(y1, y);
  }
  return [x0, x1, y0, y1];
}

function path(points, place) {
  return points.map((p, i) => (i ? "L" : "M") + place(p).map((v) => v.toFixed(1)).join(" ")).join("");
}

/* Lines and points on the first two of their coordinates, one unit as long on both unless the
   second is a residual, which is drawn larger so that it is seen. */
function plane(card, lines, points, label, { faint = false, residual = false } = {}) {
  const size = 300, edge = 14;
  const [x0, x1, y0, y1] = bounds([...lines, points]);
  const span = (a, b) => Math.max(b - a, 1e-12);
  const across = (size - 2 * edge) / (residual ? span(x0, x1) : Math.max(span(x0, x1), span(y0, y1)));
  const up = residual ? 120 / span(y0, y1) : across;
  const tall = up * (y1 - y0) + 2 * edge, svg = canvas(size, tall.toFixed(0), label);
  const place = ([x, y]) => [size / 2 + across * (x - (x0 + x1) / 2), tall / 2 - up * (y - (y0 + y1) / 2)];
  const [ox, oy] = place([0, 0]);
  svg.append(shape("path", { d: `M0 ${oy}H${size}M${ox} 0V${tall}`, stroke: "#e6e9ed", fill: "none" }));
  for (const line of lines) svg.append(shape("path", {
    d: path(line, place), fill: "none", stroke: faint ? "#8d969f" : "#20262c",
    "stroke-width": faint ? 0.6 : 1.8, "stroke-linejoin": "round" }));
  const scale = card.coordinates[0];
  points.forEach((point, i) => {
    const [x, y] = place(point);
    const dot = shape("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 2.4, "fill-opacity": 0.8,
      fill: colour(card.at[i], scale.low, scale.high, scale.cyclic) });
    const told = card.labels[i] ? `: ${card.labels[i]}` : "";
    dot.append(shape("title", {}, `row ${card.row[i]}, ${scale.name} = ${short(card.at[i])}${told}`));
    svg.append(dot);
  });
  return svg;
}

/* A turn of three coordinates, seen along the third that comes out. */
function turned(points, yaw, pitch) {
  const [c, s, d, e] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  return points.map(([x, y, z]) => {
    const u = c * x - s * y, v = s * x + c * y;
    return [u, d * z - e * v];
  });
}

function figure(content, caption) {
  return node("figure", {}, content, node("figcaption", {}, caption));
}

function drawing(card) {
  const several = card.axes.length > 1;
  if (!several || !card.lines.length && !card.points.length) {
    return node("p", { class: "quiet" }, card.axes.length
      ? "One axis only: a line. Its rows are in the histogram." : "A point: nothing to draw.");
  }
  if (card.surface) {
    const views = [[0.6, 0.5, "from one side"], [0.6 + Math.PI / 2, 0.5, "a quarter turn on"]];
    const box = node("div", { class: "views" });
    for (const [yaw, pitch, caption] of views) {
      const turn = (list) => turned(list, yaw, pitch);
      box.append(figure(plane(card, card.lines.map(turn), turn(card.points),
        `Atom ${card.atom} ${caption}`, { faint: true }), caption));
    }
    return node("div", {}, box, bar(card), node("figcaption", {}, card.axes.join("; ")));
  }
  const svg = plane(card, card.lines, card.points, `Atom ${card.atom} in its own plane`,
    { faint: card.lines.length > 1, residual: card.residual });
  return node("div", {}, svg, bar(card), node("figcaption", {},
    `across: ${card.axes[0]}; up: ${card.axes[1]}${card.residual ? ", enlarged" : ""}`));
}

function bar(card) {
  const { name, low, high, cyclic } = card.coordinates[0], svg = canvas(300, 30, `Colours of ${name}`);
  if (!card.points.length) return node("div");
  for (let i = 0; i < 60; i++) svg.append(shape("rect", {
    x: 14 + 4.533 * i, y: 4, width: 4.8, height: 9, fill: colour(i + 0.5, 0, 60, cyclic) }));
  const ends = cyclic ? ["-π", `${name} = 0`, "π"] : [short(low), name, short(high)];
  ends.forEach((text, i) => svg.append(shape("text", {
    x: [14, 150, 286][i], y: 26, "text-anchor": ["start", "middle", "end"][i] }, text)));
  return svg;
}

function histogram(h, title, painted = true) {
  const width = 300, height = 92, base = 74, svg = canvas(width, height, `Histogram: ${title}`);
  const most = Math.max(...h.counts, 1), step = (width - 28) / h.counts.length;
  h.counts.forEach((count, i) => {
    const tall = 64 * count / most;
    const box = shape("rect", { x: 14 + i * step, y: base - tall, width: step - 1, height: tall,
      fill: painted ? colour(i + 0.5, 0, h.counts.length, h.cyclic) : "#7b8894" });
    box.append(shape("title", {}, `${count} rows`));
    svg.append(box);
  });
  svg.append(shape("path", { d: `M14 ${base}H${width - 14}`, stroke: "#8d969f" }));
  const ends = h.cyclic ? ["-π", "0", "π"] : [short(h.low), "", short(h.high)];
  ends.forEach((text, i) => svg.append(shape("text", {
    x: [14, 150, 286][i], y: 88, "text-anchor": ["start", "middle", "end"][i] }, text)));
  svg.append(shape("text", { x: 286, y: 9, "text-anchor": "end" }, `most: ${most}`));
  return figure(svg, title);
}

function topRows(rows) {
  const labelled = rows.items.some((item) => item.label);
  const head = node("tr", {}, ...["row", "amplitude", "t"].map((text) => node("th", { class: "number-head" }, text)),
    ...(labelled ? [node("th", {}, "label")] : []));
  const lines = rows.items.map((item) => node("tr", {},
    node("td", { class: "number" }, String(item.row)), node("td", { class: "number" }, short(item.amplitude)),
    node("td", { class: "number" }, item.at.map(short).join(", ")),
    ...(labelled ? [node("td", {}, item.label)] : [])));
  return node("table", {}, node("caption", {}, rows.title), head, ...lines);
}

function neighbours(list) {
  const line = node("p", { class: "quiet" }, list.length ? "Used together with " : "Its rows use no other atom.");
  list.forEach((item, i) => line.append(i ? ", " : "", node("a", { href: `#atom-${item.atom}` }, `atom ${item.atom}`),
    ` (cosine ${short(item.cosine)}, ${item.n} rows)`));
  return line;
}

function drawCard(element) {
  const card = cards.get(Number(element.dataset.atom)), body = element.querySelector(".body");
  if (body.childElementCount) return;
  const wide = card.surface ? "wide" : "";
  const left = node("div", { class: wide }, card.n ? drawing(card) : node("p", {}, "No row uses it."));
  const right = node("div", { class: card.surface ? "wide row" : "" });
  for (const c of card.n ? card.coordinates : []) right.append(histogram(c, `coordinate ${c.name}`, c === card.coordinates[0]));
  if (card.amplitude) right.append(histogram(card.amplitude, "amplitude", false));
  for (const flag of card.flags) body.append(node("p", { class: `wide ${flag.status}` }, `${flag.status}: ${flag.text}`));
  body.append(left, right, node("div", { class: "wide rows" }, topRows(card.rows), neighbours(card.neighbours)));
}

const PALETTE = ["#1c5fa8", "#c65a11", "#2a7d3f", "#8a3fa0", "#a3161b", "#5f6b76", "#0b8a9a", "#9a7400"];
const tone = (i) => (i < PALETTE.length ? PALETTE[i] : `hsl(${(i * 137.5) % 360} 60% 40%)`);

/* Lines against a count, the legend beside them. */
function lines(series, { log = false, x = "", y = "", dots = false } = {}) {
  const width = 460, height = 230, [l, r, t, b] = [62, 10, 10, 36], svg = canvas(width, height, `${y} by ${x}`);
  const value = (v) => (log ? Math.log10(v) : v);
  const points = series.map((s) => s.points.filter(([, v]) => v !== null && (!log || v > 0)).map(([i, v]) => [i, value(v)]));
  let [x0, x1, y0, y1] = bounds(points);
  if (!Number.isFinite(x0)) return node("p", { class: "quiet" }, "Nothing to draw.");
  if (x0 === x1) { x0 -= 0.5; x1 += 0.5; }
  if (y1 - y0 < 1e-9) { y0 -= 0.5; y1 += 0.5; }
  const place = ([i, v]) => [l + (width - l - r) * (i - x0) / (x1 - x0), height - b - (height - t - b) * (v - y0) / (y1 - y0)];
  for (let j = 0; j <= 4; j++) {
    const v = y0 + j * (y1 - y0) / 4, [, at] = place([x0, v]);
    svg.append(shape("path", { d: `M${l} ${at}H${width - r}`, stroke: "#e6e9ed" }));
    svg.append(shape("text", { x: l - 6, y: at + 4, "text-anchor": "end" }, short(log ? 10 ** v : v)));
  }
  svg.append(shape("text", { x: l, y: height - 20, "text-anchor": "start" }, short(x0)));
  svg.append(shape("text", { x: width - r, y: height - 20, "text-anchor": "end" }, short(x1)));
  svg.append(shape("text", { x: (l + width - r) / 2, y: height - 4, "text-anchor": "middle" }, x));
  points.forEach((list, i) => {
    svg.append(shape("path", { d: path(list, place), fill: "none", stroke: tone(i), "stroke-width": 1.6 }));
    if (dots || list.length === 1) for (const p of list) {
      const [cx, cy] = place(p);
      svg.append(shape("circle", { cx, cy, r: 2.4, fill: tone(i) }));
    }
  });
  const legend = node("ul", { class: "legend" });
  series.forEach((s, i) => legend.append(node("li", {}, node("i", { style: `border-color:${tone(i)}` }), s.name)));
  return node("div", { class: "plot" }, figure(svg, y), legend);
}

function drawSections() {
  const residuals = document.getElementById("residuals");
  if (residuals) residuals.append(histogram(data.residuals, "root mean square of the residual of a row", false));
  const noise = document.getElementById("noise");
  if (noise) noise.append(lines(data.noise.series.map((s) => ({ name: s.name, points: s.sd.map((v, i) => [i + 1, v]) })),
    { log: true, dots: true, x: `direction or column, largest first, of ${data.noise.p}`, y: "standard deviation, units of the data" }));
  const trace = document.getElementById("trace");
  if (!trace) return;
  const { iteration, above, strengths, n_strengths } = data.trace;
  const shown = Object.keys(strengths);
  trace.append(
    lines([{ name: "V above its lowest", points: iteration.map((i, j) => [i, Math.max(above[j], 1e-6)]) }],
      { log: true, dots: true, x: "outer iteration", y: "nats; what is below 1e-6 is drawn there" }),
    lines(shown.map((name) => ({ name, points: iteration.map((i, j) => [i, strengths[name][j]]) })),
      { x: "outer iteration", y: shown.length < n_strengths
        ? `log strengths, the ${shown.length} of ${n_strengths} that moved most` : "log strengths" }));
}

function wireTable() {
  const table = document.getElementById("atoms");
  if (!table) return;
  const body = table.tBodies[0], rows = [...body.rows];
  const buttons = [...table.querySelectorAll("th button")];
  buttons.forEach((button, column) => button.addEventListener("click", () => {
    const head = button.parentElement, down = head.getAttribute("aria-sort") !== "descending";
    for (const other of buttons) other.parentElement.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value;
    const sign = down ? -1 : 1;
    rows.sort((a, b) => {
      const [u, v] = [key(a), key(b)];
      if (u === "" || v === "") return (u === "") - (v === "");
      return sign * (Number.isNaN(Number(u)) ? u.localeCompare(v) : Number(u) - Number(v));
    });
    body.append(...rows);
  }));
  const [text, kind, state, count] = ["filter", "shape", "state", "count"].map((id) => document.getElementById(id));
  const filter = () => {
    const wanted = text.value.trim().toLowerCase();
    let seen = 0;
    for (const row of rows) {
      const name = row.cells[1].textContent, number = row.cells[0].textContent;
      const ok = (!wanted || name.toLowerCase().includes(wanted) || number === wanted)
        && (!kind.value || name.split("(")[0] === kind.value)
        && (!state.value || row.cells[row.cells.length - 1].textContent === state.value);
      row.hidden = !ok;
      document.getElementById(`atom-${number}`).hidden = !ok;
      seen += ok;
    }
    count.textContent = `${seen} of ${rows.length}`;
  };
  text.form.addEventListener("submit", (event) => event.preventDefault());
  for (const input of [text, kind, state]) input.addEventListener("input", filter);
}

const cards = new Map((data.cards || []).map((card) => [card.atom, card]));
const elements = [...document.querySelectorAll(".card")];
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); drawCard(entry.target); }
}, { rootMargin: "400px" });
for (const element of elements) {
  element.tabIndex = -1;
  if (element.tagName === "DETAILS") element.addEventListener("toggle", () => element.open && drawCard(element));
  else seen.observe(element);
}
function follow() {
  const target = elements.find((element) => `#${element.id}` === location.hash);
  if (!target) return;
  target.hidden = false; // which the filter of the table may have made it
  if (target.tagName === "DETAILS") target.open = true;
  drawCard(target);
  target.scrollIntoView();
  const entry = target.querySelector("summary") || target;
  entry.focus({ preventScroll: true }); // from where Tab goes on
}
addEventListener("hashchange", follow);
addEventListener("beforeprint", () => elements.forEach(drawCard));
wireTable();
drawSections();
follow();
