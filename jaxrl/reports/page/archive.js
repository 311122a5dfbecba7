/** Maps of an archive: fitness over descriptor space. A cell is chosen by pointer, by arrow keys and Enter, or by name. */
class ArchiveMaps {
  constructor(host, view) {
    this.view = view;
    const { archives } = view.data;
    this.said = element("p", { class: "said", "aria-live": "polite" });
    this.place = element("div", {});
    host.append(element("div", { class: "bar", "data-part": "summary" }, (this.summary = element("span", { class: "quiet" }))), this.place, this.said);
    this.shown = null;
    view.listen(() => this.update());
    this.known = new Map(archives.map((archive) => [archive.seed, archive]));
  }

  update() {
    const archive = this.known.get(this.view.seed) || this.view.data.archives[0];
    if (archive !== this.shown) this.build(archive);
    this.paint();
  }

  build(archive) {
    this.shown = archive;
    this.index = new Map(archive.places.map((place, i) => [place, i]));
    this.recorded = new Set(this.view.data.replays.filter((replay) => replay.seed === archive.seed).map((replay) => replay.place));
    const values = archive.fitness.filter((value) => value !== null);
    [this.low, this.high] = [Math.min(...values), Math.max(...values)];
    const share = ((100 * archive.places.length) / archive.size).toLocaleString("en", { maximumSignificantDigits: 3 });
    this.summary.textContent = `seed ${archive.seed}: ${archive.places.length} of ${archive.size} cells are occupied (${share} %)`
      + (values.length ? `, best fitness ${formatNumber(this.high)}. ` : ". ")
      + (this.recorded.size ? `A dot marks each of the ${this.recorded.size} cells with a replay.` : "No replays of this seed were recorded.");
    this.maps = archive.maps.map((map) => new ArchiveMap(this, archive, map));
    const bar = element("div", { class: "colours" });
    bar.style.background = `linear-gradient(to right, ${EVERYTHING.scales.viridis.join(",")})`;
    this.place.replaceChildren(...this.maps.map((map) => map.node), bar,
      element("div", { class: "axis" }, element("span", {}, formatNumber(values.length ? this.low : null)), element("span", {}, "fitness"), element("span", {}, formatNumber(values.length ? this.high : null))));
    this.said.textContent = "";
  }

  paint() {
    for (const map of this.maps) map.paint();
    if (this.view.place !== null) this.tell(this.view.place);
  }

  tell(place) {
    const i = this.index.get(place);
    if (i === undefined) {
      this.said.textContent = "Nobody is there.";
      return;
    }
    const does = this.shown.descriptors[i].map(formatNumber).join(", ");
    const replay = this.recorded.has(place) ? "" : "; no replay was recorded of it";
    this.said.textContent = `cell ${place}: fitness ${formatNumber(this.shown.fitness[i])}, descriptor (${does})${replay}`;
  }

  colour(place) {
    const value = this.shown.fitness[this.index.get(place)];
    return colourAt("viridis", this.high > this.low ? (value - this.low) / (this.high - this.low) : 0.5);
  }
}

class ArchiveMap {
  constructor(maps, archive, map) {
    this.maps = maps;
    const size = archive.pixels;
    this.size = size;
    this.cells = new Int32Array(size * size);
    for (let i = 0, at = 0; i < map.runs.length; i += 2) {
      this.cells.fill(map.runs[i], at, at + map.runs[i + 1]);
      at += map.runs[i + 1];
    }
    this.middles = this.findMiddles();
    const canvas = element("canvas", { width: 3 * size, height: 3 * size, tabindex: 0, role: "application",
      "aria-label": "Map of the archive. Arrow keys move, Enter chooses the cell." });
    this.canvas = canvas;
    const [x, y] = map.axes;
    const single = archive.low.length === 1;
    if (single) canvas.style.height = "70px";
    const ends = (axis) => [formatNumber(archive.low[axis]), formatNumber(archive.high[axis])];
    this.node = element("div", { class: "map" }, canvas,
      single ? null : element("div", { class: "y" }, element("span", {}, ends(y)[1]), element("span", {}, `descriptor ${y + 1}`), element("span", {}, ends(y)[0])),
      element("div", { class: "axis" }, element("span", {}, ends(x)[0]), element("span", {}, `descriptor ${x + 1}`), element("span", {}, ends(x)[1])));
    this.cursor = null;
    canvas.addEventListener("pointermove", (event) => maps.tell(this.at(event)));
    canvas.addEventListener("pointerleave", () => { if (maps.view.place !== null) maps.tell(maps.view.place); });
    canvas.addEventListener("click", (event) => this.choose(this.at(event)));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => { this.cursor = null; this.paint(); });
  }

  /** {place: the middle of its pixels, [column, row from below]}. */
  findMiddles() {
    const sums = new Map();
    this.cells.forEach((place, i) => {
      if (place < 0) return;
      const sum = sums.get(place) || [0, 0, 0];
      sum[0] += i % this.size;
      sum[1] += Math.floor(i / this.size);
      sum[2] += 1;
      sums.set(place, sum);
    });
    return new Map([...sums].map(([place, [x, y, num]]) => [place, [x / num + 0.5, y / num + 0.5]]));
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const clip = (share) => Math.min(Math.max(Math.floor(share * this.size), 0), this.size - 1);
    const column = clip((event.clientX - box.left) / box.width);
    const row = clip(1 - (event.clientY - box.top) / box.height);
    return this.cells[row * this.size + column];
  }

  choose(place) {
    if (place < 0) this.maps.said.textContent = "Nobody is there.";
    else this.maps.view.choose({ place, start: true });
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const middle = this.middles.get(this.maps.view.place) || [this.size / 2, this.size / 2];
    const [column, row] = this.cursor || middle.map(Math.floor);
    const place = this.cells[row * this.size + column];
    if (event.key === "Enter" || event.key === " ") {
      this.choose(place);
    } else if (moves[event.key]) {
      // On to the next pixel that belongs to another cell.
      const [dx, dy] = moves[event.key];
      let [x, y] = [column, row];
      const inside = () => x + dx >= 0 && x + dx < this.size && y + dy >= 0 && y + dy < this.size;
      while (inside() && this.cells[y * this.size + x] === place) [x, y] = [x + dx, y + dy];
      for (let k = 0; k < 3 && inside(); k++) [x, y] = [x + dx, y + dy];
      this.cursor = [x, y];
      this.paint();
      this.maps.tell(this.cells[y * this.size + x]);
    } else return;
    event.preventDefault();
  }

  paint() {
    const pen = this.canvas.getContext("2d");
    const k = this.canvas.width / this.size;
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (let row = 0; row < this.size; row++) {
      const top = (this.size - 1 - row) * k;
      let start = 0;
      for (let column = 1; column <= this.size; column++) {
        const place = this.cells[row * this.size + start];
        if (column < this.size && this.cells[row * this.size + column] === place) continue;
        if (place >= 0) {
          pen.fillStyle = this.maps.colour(place);
          pen.fillRect(start * k, top, (column - start) * k, k);
        }
        start = column;
      }
    }
    for (const place of this.maps.recorded) this.dot(pen, k, place, 4, inkOn(this.maps.colour(place)), true);
    const chosen = this.maps.view.place;
    if (chosen !== null && this.maps.index.has(chosen)) {
      this.dot(pen, k, chosen, 10, "#ffffff", false, 6);
      this.dot(pen, k, chosen, 10, "#d02020", false, 3);
    }
    if (this.cursor) {
      const [x, y] = [(this.cursor[0] + 0.5) * k, (this.size - this.cursor[1] - 0.5) * k];
      pen.strokeStyle = themed("--ink");
      pen.lineWidth = 2;
      pen.strokeRect(x - 8, y - 8, 16, 16);
    }
  }

  dot(pen, k, place, radius, colour, filled, width) {
    const middle = this.middles.get(place);
    if (!middle) return; // on another map of several, somebody else may hide it
    pen.beginPath();
    pen.ellipse(middle[0] * k, (this.size - middle[1]) * k, radius, radius, 0, 0, 2 * Math.PI);
    if (filled) {
      pen.fillStyle = colour;
      pen.fill();
    } else {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.stroke();
    }
  }
}
