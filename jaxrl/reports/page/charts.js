/** Parts of a curve between gaps, as lists of indices. */
function stretches(values) {
  const found = [];
  values.forEach((value, i) => {
    if (value === null || value === undefined) return;
    if (i && values[i - 1] !== null && values[i - 1] !== undefined && found.length) found[found.length - 1].push(i);
    else found.push([i]);
  });
  return found;
}

function path(xs, values, x, y) {
  return stretches(values).map((part) => "M" + part.map((i) => `${x(xs[i])} ${y(values[i])}`).join("L")).join("");
}

function bandPath(xs, low, high, x, y) {
  return stretches(low.map((value, i) => (high[i] === null ? null : value)))
    .map((part) => "M" + part.map((i) => `${x(xs[i])} ${y(low[i])}`).join("L")
      + "L" + [...part].reverse().map((i) => `${x(xs[i])} ${y(high[i])}`).join("L") + "Z")
    .join("");
}

/**
 * Lines with bands. `update({label, xLabel, yLabel, lines})` draws; a line is {name, x, y, low, high, colour, dash,
 * width, faint}: faint ones have no name in the box that follows the pointer. Arrow keys move the cursor.
 */
class LineChart {
  constructor(host, formatX) {
    this.host = host;
    this.formatX = formatX || formatSteps;
    this.svg = drawn("svg", { tabindex: 0, role: "img" });
    this.tip = element("div", { class: "tip", hidden: true });
    this.live = element("p", { class: "hidden", "aria-live": "polite" });
    host.append(this.svg, this.tip, this.live);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.leave());
    this.svg.addEventListener("blur", () => this.leave());
    this.svg.addEventListener("keydown", (event) => this.key(event));
    onWidth(host, () => this.draw());
  }

  update(spec) {
    this.spec = spec;
    this.draw();
  }

  draw() {
    const width = this.host.clientWidth;
    if (!this.spec || !width) return;
    const { lines, label, xLabel, yLabel } = this.spec;
    const height = Math.round(Math.min(Math.max(width * 0.52, 230), 400));
    this.leave();
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("aria-label", label);
    const values = lines.flatMap((line) => [line.y, line.low, line.high].flatMap((part) => part || []));
    const finite = values.filter((value) => value !== null && value !== undefined);
    if (!finite.length) {
      this.svg.append(drawn("text", { x: 12, y: 24 }, "no values"));
      this.box = null;
      return;
    }
    const xs = lines.flatMap((line) => [line.x[0], line.x[line.x.length - 1]]);
    let [low, high] = [finite.reduce((a, b) => Math.min(a, b)), finite.reduce((a, b) => Math.max(a, b))];
    const slack = (high - low || Math.abs(high) || 1) * 0.04;
    [low, high] = [low - slack, high + slack];
    const [first, last] = [Math.min(...xs), Math.max(...xs)];
    const rows = ticks(low, high, 5);
    const left = 14 + 7 * Math.max(...rows.map((value) => formatNumber(value).length)) + 16;
    const box = { left, right: width - 14, top: 10, bottom: height - 44 };
    const x = (value) => box.left + (last > first ? (value - first) / (last - first) : 0.5) * (box.right - box.left);
    const y = (value) => box.bottom - ((value - low) / (high - low)) * (box.bottom - box.top);
    Object.assign(this, { box, x, y, first, last });
    for (const value of rows) {
      this.svg.append(
        drawn("line", { x1: box.left, x2: box.right, y1: y(value), y2: y(value), stroke: "var(--grid)" }),
        drawn("text", { x: box.left - 7, y: y(value) + 4, "text-anchor": "end" }, formatNumber(value)));
    }
    for (const value of last > first ? ticks(first, last, Math.max(2, width / 120)) : [first]) {
      this.svg.append(drawn("text", { x: x(value), y: box.bottom + 18, "text-anchor": "middle" }, this.formatX(value)));
    }
    const middle = (box.top + box.bottom) / 2;
    this.svg.append(
      drawn("line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, stroke: "var(--quiet)" }),
      drawn("text", { x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, xLabel),
      drawn("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, yLabel));
    for (const line of lines) this.line(line);
    this.cursor = drawn("line", { y1: box.top, y2: box.bottom, stroke: "var(--quiet)", visibility: "hidden" });
    this.svg.append(this.cursor);
  }

  line(line) {
    const { x, y } = this;
    if (line.low && line.high) {
      const band = { d: bandPath(line.x, line.low, line.high, x, y), fill: line.colour, "fill-opacity": line.band || 0.14 };
      this.svg.append(drawn("path", band));
    }
    this.svg.append(drawn("path", {
      d: path(line.x, line.y, x, y), fill: "none", stroke: line.colour, "stroke-width": line.width || 2,
      "stroke-dasharray": line.dash || null, "stroke-opacity": line.opacity || 1, "stroke-linejoin": "round",
    }));
    for (const part of stretches(line.y)) { // a single point has no line
      if (part.length > 1) continue;
      const at = { cx: x(line.x[part[0]]), cy: y(line.y[part[0]]), r: line.faint ? 2 : 3.5, fill: line.colour };
      this.svg.append(drawn("circle", at));
    }
  }

  point(event) {
    if (!this.box) return;
    const left = this.svg.getBoundingClientRect().left;
    const share = (event.clientX - left - this.box.left) / (this.box.right - this.box.left);
    this.show(this.first + Math.min(Math.max(share, 0), 1) * (this.last - this.first));
  }

  key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || !this.box) return;
    event.preventDefault();
    const xs = this.spec.lines.filter((line) => !line.faint)[0].x;
    const now = this.at === undefined ? (move > 0 ? -1 : xs.length) : nearestIndex(xs, this.at);
    this.show(xs[Math.min(Math.max(now + move, 0), xs.length - 1)], true);
  }

  show(value, aloud) {
    const named = this.spec.lines.filter((line) => !line.faint);
    const at = named[0].x[nearestIndex(named[0].x, value)];
    this.at = at;
    const said = [...named].reverse().map((line) => { // what is drawn last, on top, is named first
      const i = nearestIndex(line.x, at);
      const known = line.low && line.low[i] !== null && line.low[i] !== undefined;
      const interval = known ? ` [${formatNumber(line.low[i])}, ${formatNumber(line.high[i])}]` : "";
      return { line, text: formatNumber(line.y[i]) + interval };
    });
    const heading = `${this.spec.xLabel} ${this.formatX(at)}`;
    this.tip.replaceChildren(element("div", { class: "quiet" }, heading), ...said.slice(0, 7).map(({ line, text }) =>
      element("div", {}, swatch(line), element("span", {}, line.name), element("b", {}, text))));
    this.tip.hidden = false;
    this.cursor.setAttribute("visibility", "visible");
    this.cursor.setAttribute("x1", this.x(at));
    this.cursor.setAttribute("x2", this.x(at));
    const right = this.x(at) > (this.box.left + this.box.right) / 2;
    this.tip.style.top = `${this.box.top + 6}px`;
    this.tip.style.left = right ? "auto" : `${this.x(at) + 12}px`;
    this.tip.style.right = right ? `${this.host.clientWidth - this.x(at) + 12}px` : "auto";
    if (aloud) this.live.textContent = `${heading}: ${said.map(({ line, text }) => `${line.name} ${text}`).join("; ")}`;
  }

  leave() {
    this.at = undefined;
    this.tip.hidden = true;
    if (this.cursor) this.cursor.setAttribute("visibility", "hidden");
  }
}

function nearestIndex(xs, value) {
  let best = 0;
  xs.forEach((x, i) => { if (Math.abs(x - value) < Math.abs(xs[best] - value)) best = i; });
  return best;
}

/** The sample of a line in a legend. */
function swatch(line) {
  const sample = element("span", { class: "swatch", "aria-hidden": "true" });
  sample.style.borderTopColor = line.colour;
  if (line.dash) sample.style.borderTopStyle = line.dash.split(" ")[0] < 4 ? "dotted" : "dashed";
  return sample;
}

/** One panel for each swept setting: the IQM at each value with its interval, and the best that the others reach. */
function sensitivityChart(host, rows, yLabel) {
  const names = [...new Set(rows.map((row) => row.name))];
  const svg = drawn("svg", { role: "img", "aria-label": `${yLabel} at each value of ${names.join(", ")}` });
  host.append(svg);
  onWidth(host, (width) => {
    const bounds = rows.flatMap((row) => [row.iqm, row.low, row.high, row.best]).filter((value) => value !== null);
    svg.replaceChildren();
    if (!bounds.length) return;
    let [low, high] = [Math.min(...bounds), Math.max(...bounds)];
    const slack = (high - low || Math.abs(high) || 1) * 0.06;
    [low, high] = [low - slack, high + slack];
    const height = 250, top = 28, bottom = height - 44;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const levels = ticks(low, high, 4);
    const left = 10 + 7 * Math.max(...levels.map((value) => formatNumber(value).length));
    const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
    for (const value of levels) {
      svg.append(
        drawn("line", { x1: left, x2: width, y1: y(value), y2: y(value), stroke: "var(--grid)" }),
        drawn("text", { x: left - 7, y: y(value) + 4, "text-anchor": "end" }, formatNumber(value)));
    }
    const total = rows.length + names.length;
    const slot = (width - left) / total;
    const crowded = rows.some((row) => 7 * row.value.length + 6 > slot);
    let at = left;
    for (const name of names) {
      const own = rows.filter((row) => row.name === name);
      const middle = at + ((own.length + 1) * slot) / 2;
      svg.append(drawn("text", { x: middle, y: 14, "text-anchor": "middle", class: "strong" }, name));
      own.forEach((row, i) => {
        const x = at + (i + 1) * slot;
        if (row.low !== null) {
          svg.append(drawn("line", { x1: x, x2: x, y1: y(row.low), y2: y(row.high), stroke: "var(--accent)", "stroke-width": 3, "stroke-linecap": "round", "stroke-opacity": 0.45 }));
        }
        if (row.best !== null) {
          svg.append(drawn("path", { d: `M${x - 6} ${y(row.best)}h12`, stroke: "var(--ink)", "stroke-width": 2 }));
        }
        if (row.iqm !== null) svg.append(drawn("circle", { cx: x, cy: y(row.iqm), r: 5, fill: "var(--accent)" }));
        const turned = crowded ? { "text-anchor": "end", transform: `rotate(-40 ${x} ${bottom + 16})` } : { "text-anchor": "middle" };
        svg.append(drawn("text", { x: crowded ? x + 4 : x, y: bottom + (crowded ? 14 : 18), ...turned }, row.value));
      });
      at += (own.length + 1) * slot;
    }
  });
}
