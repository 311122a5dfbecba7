/** Curves of one run: a menu of metrics, the chart, and a legend whose entries choose a setting. */
class Curves {
  constructor(host, view) {
    this.view = view;
    const { curves, seeds, settings } = view.data;
    this.metric = 0;
    const menu = element("select", { onchange: (event) => { this.metric = Number(event.target.value); this.draw(); } },
      curves.map((curve, i) => element("option", { value: i }, curve.label)));
    this.each = element("input", { type: "checkbox", onchange: () => this.draw() });
    this.each.checked = settings.length === 1;
    const controls = element("div", { class: "bar" }, element("label", {}, "Metric", menu));
    if (seeds.length > 1) controls.append(element("label", {}, this.each, "each seed"));
    const place = element("div", { class: "chart" });
    this.legend = element("ul", { class: "legend" });
    host.append(controls, place, this.legend);
    this.chart = new LineChart(place);
    view.listen(() => this.draw());
  }

  draw() {
    const { data, setting, seed } = this.view;
    const curve = data.curves[this.metric];
    const rows = new Map(data.settings.map((row) => [row.cell, row]));
    const lines = [];
    const items = [];
    const named = curve.cells.filter((cell) => cell.low).slice(0, 8);
    for (const cell of [...curve.cells].reverse()) {
      const rank = named.indexOf(cell);
      const chosen = cell.cell === setting;
      const row = rows.get(cell.cell);
      const colour = rank >= 0 ? lineColour(rank) : chosen ? "var(--accent)" : "var(--quiet)";
      const dash = rank >= 0 ? DASHES[rank] : "";
      const name = row.label || "IQM over seeds";
      const line = { name, x: curve.steps, y: cell.point, colour, dash, width: chosen ? 3 : 1.5, faint: rank < 0 && !chosen };
      if (rank < 0 && !chosen) Object.assign(line, { opacity: 0.35, width: 1 });
      if (cell.low && (chosen || (rank >= 0 && named.length <= 3))) Object.assign(line, { low: cell.low, high: cell.high, band: chosen ? 0.2 : 0.08 });
      if (chosen) lines.push(...this.seeds(cell, curve, colour, seed));
      lines.push(line);
      if (rank >= 0 || chosen) items.unshift(this.item(row, line, chosen));
    }
    lines.sort((a, b) => (a.width > 2.5) - (b.width > 2.5));
    const others = curve.cells.length - items.length; // which no other line of the legend names
    const own = lines.find((line) => line.seed === seed && seed !== null && seed !== undefined);
    if (own) items.push(element("li", {}, element("span", { class: "item" }, swatch(own), element("span", {}, own.name))));
    const notes = others > 0 ? [`grey: ${others} other settings`] : [];
    const absent = data.settings.length - curve.cells.length;
    if (absent > 0) notes.push(`of this metric ${absent} more settings are not drawn`);
    const mine = curve.cells.find((cell) => cell.cell === setting);
    if (mine && !own && seed !== null && seed !== undefined && data.seeds.length > 1) {
      const num = Object.keys(mine.seeds || {}).length;
      notes.push(num ? `seed ${seed} is not drawn, only the first ${num} are` : "single seeds are drawn of the best settings only");
    }
    this.legend.replaceChildren(...items, ...notes.map((note) => element("li", { class: "item quiet" }, note)));
    this.chart.update({ lines, xLabel: "environment steps", yLabel: curve.label, label: `${curve.label} over environment steps` });
  }

  seeds(cell, curve, colour, chosen) {
    return Object.entries(cell.seeds || {})
      .filter(([seed]) => this.each.checked || Number(seed) === chosen)
      .map(([seed, y]) => {
        const strong = Number(seed) === chosen;
        return { name: `seed ${seed}`, seed: Number(seed), x: curve.steps, y, colour, width: strong ? 1.8 : 1, dash: strong ? "3 3" : "", opacity: strong ? 1 : 0.45, faint: !strong };
      });
  }

  item(row, line, chosen) {
    const said = this.metric === 0 ? `${row.text}${row.interval ? ` [${row.interval}]` : ""}` : "";
    const parts = [swatch(line), element("span", {}, line.name), said ? element("span", { class: "quiet" }, said) : null];
    if (this.view.data.settings.length === 1) return element("li", {}, element("span", { class: "item" }, ...parts));
    const choose = () => this.view.choose({ setting: row.cell });
    return element("li", {}, element("button", { type: "button", "aria-pressed": String(chosen), onclick: choose }, ...parts));
  }
}

/** Final values over two swept settings; each field is a button that chooses its setting. */
class HeatMap {
  constructor(host, view) {
    this.view = view;
    this.pair = 0;
    const { heat } = view.data;
    const menu = element("select", { onchange: (event) => { this.pair = Number(event.target.value); this.draw(); } },
      heat.map((pair, i) => element("option", { value: i }, `${pair.y} over ${pair.x}`)));
    const others = view.swept.length > 2 ? "; of all other settings the best" : "";
    host.append(element("div", { class: "bar" }, heat.length > 1 ? element("label", {}, "Heat map", menu) : null,
      element("span", { class: "quiet" }, `final ${view.metric}, IQM [95 % interval]${others}`)));
    this.place = element("div", { class: "scroll" });
    host.append(this.place);
    view.listen(() => this.draw());
  }

  draw() {
    const { data, setting } = this.view;
    const pair = data.heat[this.pair];
    const rows = new Map(data.settings.map((row) => [row.cell, row]));
    const values = pair.cells.flat().map((cell) => rows.get(cell)).filter((row) => row && row.iqm !== null).map((row) => row.iqm);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const field = (cell) => {
      const row = rows.get(cell);
      if (!row) return element("td", { class: "quiet" }, "not run");
      const colour = row.iqm === null ? null : colourAt("cividis", high > low ? (row.iqm - low) / (high - low) : 0.5);
      const button = element("button", { type: "button", "data-setting": cell, "aria-pressed": String(cell === setting),
        "aria-label": `${row.label}: ${row.text}`, onclick: () => this.view.choose({ setting: cell }) },
      row.text, row.interval ? element("small", {}, row.interval) : null);
      if (colour) Object.assign(button.style, { background: colour, color: inkOn(colour) });
      return element("td", {}, button);
    };
    const body = pair.rows.map((name, i) => element("tr", {}, element("th", { scope: "row" }, name), pair.cells[i].map(field)));
    this.place.replaceChildren(element("table", { class: "heat" },
      element("tbody", {}, ...body.reverse(),
        element("tr", {}, element("th", {}, ""), pair.columns.map((name) => element("th", { scope: "col" }, name))),
        element("tr", {}, element("th", {}, `${pair.y} ↑`), element("th", { colspan: pair.columns.length }, `${pair.x} →`)))));
  }
}
