/** What is chosen in one run: a setting, a seed, of an archive a place; and the parts that show it. */
class RunView {
  constructor(root) {
    this.id = root.dataset.run;
    this.root = root;
    this.data = readData(`${this.id}-data`);
    this.metric = this.data.metric.replace(/[/_]/g, " ");
    this.swept = Object.keys(this.data.swept);
    this.listeners = [];
    const first = this.data.replays[0];
    this.setting = this.data.settings[0].cell;
    this.seed = first ? first.seed : this.data.archives.length ? this.data.archives[0].seed : null;
    this.place = first && first.place !== undefined ? first.place : null;
    this.shown = -1;
    this.build();
    this.choose({ replay: this.data.replays.length ? 0 : undefined });
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  listen(update) {
    this.listeners.push(update);
  }

  build() {
    this.buildChoice();
    new Curves(this.part("curves"), this);
    if (this.part("heat")) new HeatMap(this.part("heat"), this);
    if (this.part("sensitivity")) this.buildSensitivity(this.part("sensitivity"));
    if (this.part("archive")) new ArchiveMaps(this.part("archive"), this);
    if (this.part("fitness")) this.buildFitness(this.part("fitness"));
    if (this.part("player")) this.buildPlayer();
    for (const row of this.root.querySelectorAll("tr[data-setting]")) {
      const setting = Number(row.dataset.setting);
      row.addEventListener("click", () => this.choose({ setting }));
      this.listen(() => {
        row.classList.toggle("chosen", setting === this.setting);
        row.querySelector("button").setAttribute("aria-pressed", String(setting === this.setting));
      });
    }
  }

  buildChoice() {
    const { settings, seeds, archives } = this.data;
    const place = this.part("choice");
    const menu = (name, options, choose, now) => {
      const select = element("select", { "data-choice": name, onchange: () => choose(select.value) },
        options.map(([value, text]) => element("option", { value }, text)));
      place.append(element("label", {}, name, select));
      this.listen(() => { select.value = now(); });
    };
    if (settings.length > 1 && !archives.length) {
      menu("Setting", settings.map((row) => [row.cell, `${row.label}: ${row.text}`]), (value) => this.choose({ setting: Number(value) }), () => this.setting);
    }
    if (archives.length ? archives.length > 1 : seeds.length > 1) {
      const known = archives.length ? archives.map((archive) => archive.seed) : seeds;
      const options = known.map((seed) => [seed, String(seed)]);
      menu("Seed", archives.length ? options : [["", "any"], ...options],
        (value) => this.choose({ seed: value === "" ? null : Number(value) }), () => (this.seed === null ? "" : this.seed));
    }
  }

  buildSensitivity(host) {
    const title = `final ${this.metric}`;
    host.append(element("p", { class: "quiet" }, `${title} at each value: over all other settings (dot, IQM with its 95 % interval) and with the best of them (dash)`));
    const place = element("div", { class: "chart" });
    host.append(place);
    sensitivityChart(place, this.data.sensitivity, title);
  }

  buildFitness(host) {
    const place = element("div", { class: "chart" });
    const lines = this.data.fitness.lines.map((line, rank) => ({
      name: line.label, x: line.x, y: line.point, low: line.low, high: line.high, colour: lineColour(rank), dash: DASHES[rank],
    }));
    host.append(place, legend(lines));
    new LineChart(place).update({ lines, xLabel: "generation", yLabel: "fitness", label: "fitness over generations" });
  }

  buildPlayer() {
    this.player = new Player(this.part("player"));
    this.listen(() => this.play()); // before whatever names the replay that is shown
    const host = this.part("replays");
    this.note = element("p", { class: "said", "aria-live": "polite", "data-part": "note" });
    const labels = new Map(this.data.settings.map((row) => [row.cell, row.label]));
    const { replays, archives } = this.data;
    if (archives.length) {
      const select = element("select", { "data-choice": "Cell", onchange: () => this.choose({ replay: Number(select.value), start: true }) },
        replays.map((replay, i) => element("option", { value: i }, `cell ${replay.place}: return ${formatNumber(replay.return)}`)));
      host.append(element("div", { class: "bar" }, element("label", {}, "Recorded cells", select)));
      this.listen(() => { if (this.shown >= 0) select.value = this.shown; });
    } else {
      host.append(element("ul", { class: "chips", "aria-label": "Recorded replays" }, replays.map((replay, i) => {
        const label = this.data.settings.length > 1 ? `${labels.get(replay.setting)}, ` : "";
        const button = element("button", { type: "button", onclick: () => this.choose({ replay: i, start: true }) },
          `${label}seed ${replay.seed}: return ${formatNumber(replay.return)}`);
        this.listen(() => button.setAttribute("aria-pressed", String(i === this.shown)));
        return element("li", {}, button);
      })));
    }
    host.append(this.note);
  }

  /** Whose replay fits best what is chosen; -1 if none does. */
  fitting() {
    const { replays } = this.data;
    const fits = (replay) => replay.setting === this.setting && (this.seed === null || replay.seed === this.seed)
      && (this.place === null || replay.place === this.place);
    return fits(replays[this.shown] || {}) ? this.shown : replays.findIndex(fits);
  }

  /** The seed, if its replay of the setting was recorded; else one of which it was. */
  recordedSeed() {
    const own = this.data.replays.filter((replay) => replay.setting === this.setting);
    return own.length && !own.some((replay) => replay.seed === this.seed) ? own[0].seed : this.seed;
  }

  play() {
    const replay = this.fitting();
    const who = [this.place === null ? null : `cell ${this.place}`, this.seed === null ? null : `seed ${this.seed}`].filter(Boolean).join(", ");
    const asked = this.place !== null || this.data.settings.length === 1 ? who : `this setting${who ? ` and ${who}` : ""}`;
    this.note.textContent = replay < 0 ? `No replay of ${asked} was recorded; the one above stays.` : "";
    if (replay < 0 && this.shown >= 0) return;
    if (replay === this.shown && !this.start) return;
    this.shown = Math.max(replay, 0);
    this.player.load(readData(`${this.id}-film-${this.shown}`), this.data.replays[this.shown].caption, this.start);
  }

  /** Any of setting, seed, place, or replay, which says all three; `start` plays what is found. */
  choose(asked) {
    this.start = Boolean(asked.start);
    if (asked.replay !== undefined) {
      const { setting, seed, place } = this.data.replays[asked.replay];
      Object.assign(this, { setting, seed, place: place === undefined ? null : place });
      if (!this.part("archive")) this.shown = asked.replay === this.shown ? this.shown : -1;
    }
    if (asked.seed !== undefined && asked.seed !== this.seed && this.place !== null) {
      const first = this.data.replays.find((replay) => replay.seed === asked.seed);
      this.place = first ? first.place : null;
    }
    for (const name of ["setting", "seed", "place"]) if (asked[name] !== undefined) this[name] = asked[name];
    if (asked.setting !== undefined && asked.seed === undefined) this.seed = this.recordedSeed();
    for (const update of this.listeners) update();
  }
}

function legend(lines) {
  return element("ul", { class: "legend" }, lines.map((line) =>
    element("li", {}, element("span", { class: "item" }, swatch(line), element("span", {}, line.name)))));
}

function buildComparison(host) {
  const { lines, metric, env } = EVERYTHING.comparisons[Number(host.dataset.comparison)];
  const shown = lines.map((line, rank) => ({
    name: line.name, x: line.x, y: line.point, low: line.low, high: line.high, colour: lineColour(rank), dash: DASHES[rank % DASHES.length],
  }));
  new LineChart(host).update({ lines: shown, xLabel: "environment steps", yLabel: metric, label: `${metric} of ${lines.length} runs on ${env}` });
  host.after(legend(shown));
}

function buildTheme(button) {
  const themes = ["automatic", "light", "dark"];
  let now = 0;
  button.addEventListener("click", () => {
    now = (now + 1) % themes.length;
    if (now) document.documentElement.dataset.theme = themes[now];
    else delete document.documentElement.dataset.theme;
    button.textContent = `Theme: ${themes[now]}`;
    dispatchEvent(new Event("resize"));
  });
}

const EVERYTHING = readData("everything");
const VIEWS = [...document.querySelectorAll("[data-run]")].map((root) => new RunView(root));
document.querySelectorAll("[data-comparison]").forEach(buildComparison);
buildTheme(document.getElementById("theme"));
document.documentElement.dataset.ready = "true";
