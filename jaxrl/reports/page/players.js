/** Frames from sheets of pictures. */
class FrameView {
  constructor(canvas, film, caption) {
    Object.assign(this, { canvas, film, last: 0 });
    canvas.className = "frames";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", caption);
    canvas.removeAttribute("tabindex");
    canvas.width = film.width;
    canvas.height = film.height;
    canvas.style.aspectRatio = `${film.width} / ${film.height}`;
    this.sheets = film.sheets.map((sheet) => {
      const image = new Image();
      image.onload = () => this.draw(this.last);
      image.src = `data:image/png;base64,${sheet}`;
      return image;
    });
  }

  draw(frame) {
    this.last = frame;
    const { width, height, columns, per_sheet: perSheet } = this.film;
    const sheet = this.sheets[Math.floor(frame / perSheet)];
    if (this.gone || !sheet.complete || !sheet.naturalWidth) return;
    const i = frame % perSheet;
    const [left, top] = [(i % columns) * width, Math.floor(i / columns) * height];
    this.canvas.getContext("2d").drawImage(sheet, left, top, width, height, 0, 0, width, height);
  }
}

/** A body in space, each of its geometries a thick line with round ends; dragging or arrow keys turn the camera. */
class BodyView {
  constructor(canvas, film, caption) {
    Object.assign(this, { canvas, film, last: 0, azimuth: film.azimuth, elevation: film.elevation, zoom: 1 });
    this.ends = floatsOf(film.ends);
    this.focus = floatsOf(film.focus);
    this.num = film.radius.length;
    this.reach = this.measure();
    canvas.className = "body";
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", `${caption}. Arrow keys turn the camera, plus and minus zoom.`);
    canvas.tabIndex = 0;
    canvas.style.aspectRatio = "4 / 3";
    this.abort = new AbortController();
    const { signal } = this.abort;
    canvas.addEventListener("pointerdown", (event) => { this.held = event; canvas.setPointerCapture(event.pointerId); }, { signal });
    canvas.addEventListener("pointermove", (event) => this.drag(event), { signal });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { this.held = null; }, { signal });
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== canvas) return; // the page scrolls
      event.preventDefault();
      this.turn(0, 0, Math.exp(-event.deltaY / 400));
    }, { signal, passive: false });
    canvas.addEventListener("dblclick", () => {
      Object.assign(this, { azimuth: film.azimuth, elevation: film.elevation, zoom: 1 });
      this.draw(this.last);
    }, { signal });
    canvas.addEventListener("keydown", (event) => this.key(event), { signal });
    this.watch = new ResizeObserver(() => this.draw(this.last));
    this.watch.observe(canvas);
  }

  end() {
    this.abort.abort();
    this.watch.disconnect();
  }

  /** How far the body gets from where the camera looks. */
  measure() {
    let most = 1e-3;
    for (let frame = 0; frame < this.film.steps.length; frame++) {
      for (let g = 0; g < this.num; g++) {
        if (!this.film.moves[g]) continue;
        for (let end = 0; end < 2; end++) {
          const at = ((frame * this.num + g) * 2 + end) * 3;
          const away = [0, 1, 2].map((axis) => this.ends[at + axis] - this.focus[3 * frame + axis]);
          most = Math.max(most, Math.hypot(...away) + this.film.radius[g]);
        }
      }
    }
    return most;
  }

  drag(event) {
    if (!this.held) return;
    this.turn(-(event.clientX - this.held.clientX) * 0.5, (event.clientY - this.held.clientY) * 0.4, 1);
    this.held = event;
  }

  key(event) {
    const turns = { ArrowLeft: [-6, 0, 1], ArrowRight: [6, 0, 1], ArrowUp: [0, 5, 1], ArrowDown: [0, -5, 1], "+": [0, 0, 1.15], "-": [0, 0, 0.87] };
    if (!turns[event.key]) return;
    event.preventDefault();
    this.turn(...turns[event.key]);
  }

  turn(around, up, closer) {
    this.azimuth = (this.azimuth + around) % 360;
    this.elevation = Math.min(Math.max(this.elevation + up, -5), 89.9);
    this.zoom = Math.min(Math.max(this.zoom * closer, 0.3), 6);
    this.draw(this.last);
  }

  /** Fills `project([x, y, z]) -> [pixels right, pixels down, depth, pixels per metre]` for a frame. */
  camera(frame, width, height) {
    const [a, e] = [this.azimuth, this.elevation].map((angle) => (angle * Math.PI) / 180);
    const near = [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)];
    const right = [-Math.sin(a), Math.cos(a), 0];
    const up = [
      near[1] * right[2] - near[2] * right[1], near[2] * right[0] - near[0] * right[2], near[0] * right[1] - near[1] * right[0]];
    const centre = this.focus.subarray(3 * frame, 3 * frame + 3);
    const distance = 5 * this.reach; // far enough that nothing gets behind the camera
    const scale = (0.46 * Math.min(width, height) * this.zoom) / this.reach;
    const dot = (axis, point) => axis.reduce((sum, part, i) => sum + part * (point[i] - centre[i]), 0);
    return (point) => {
      const depth = dot(near, point);
      const size = (scale * distance) / Math.max(distance - depth, 0.05 * distance);
      return [width / 2 + dot(right, point) * size, height / 2 - dot(up, point) * size, depth, size];
    };
  }

  draw(frame) {
    this.last = frame;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    if (!width) return;
    if (this.canvas.width !== Math.round(width * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.lineCap = "round";
    const project = this.camera(frame, width, height);
    const point = (g, end) => {
      const at = ((frame * this.num + g) * 2 + end) * 3;
      return [this.ends[at], this.ends[at + 1], this.ends[at + 2]];
    };
    const lines = Array.from({ length: this.num }, (_, g) => [g, point(g, 0), point(g, 1)]);
    if (this.film.level !== null) this.ground(pen, project, frame, lines);
    lines
      .map(([g, a, b]) => [g, project(a), project(b)])
      .sort((one, other) => (this.film.moves[one[0]] - this.film.moves[other[0]]) || (one[1][2] + one[2][2] - other[1][2] - other[2][2]))
      .forEach(([g, a, b]) => this.limb(pen, a, b, this.film.radius[g] * (a[3] + b[3]), this.film.colours[g]));
  }

  limb(pen, a, b, thick, colour) {
    const width = Math.max(thick, 3);
    const stroke = (style, share, shift) => {
      pen.strokeStyle = style;
      pen.lineWidth = width * share;
      pen.beginPath();
      pen.moveTo(a[0] + shift, a[1] + shift);
      pen.lineTo(b[0] + shift + 0.01, b[1] + shift);
      pen.stroke();
    };
    stroke(`color-mix(in srgb, ${colour}, black 40%)`, 1, 0);
    stroke(colour, 0.84, -0.03 * width);
    stroke(`color-mix(in srgb, ${colour}, white 28%)`, 0.3, -0.16 * width);
  }

  /** Lines at round distances that fade away from the middle, and what the body hides of the light from above. */
  ground(pen, project, frame, lines) {
    const { level } = this.film;
    const extent = 3.2 * this.reach;
    const power = 10 ** Math.floor(Math.log10(extent / 4));
    const step = power * (extent / 4 / power >= 5 ? 5 : extent / 4 / power >= 2 ? 2 : 1);
    const centre = [this.focus[3 * frame], this.focus[3 * frame + 1]];
    const base = centre.map((value) => Math.round(value / step) * step);
    pen.strokeStyle = themed("--ground");
    pen.lineWidth = 1;
    const num = Math.ceil(extent / step);
    const pieces = 12;
    for (let axis = 0; axis < 2; axis++) {
      for (let k = -num; k <= num; k++) {
        for (let i = 0; i < pieces; i++) {
          const ends = [i, i + 1].map((part) => {
            const along = base[1 - axis] - num * step + (2 * num * step * part) / pieces;
            return axis ? [along, base[1] + k * step, level] : [base[0] + k * step, along, level];
          });
          const away = Math.hypot((ends[0][0] + ends[1][0]) / 2 - centre[0], (ends[0][1] + ends[1][1]) / 2 - centre[1]);
          pen.globalAlpha = Math.max(0, 1 - away / extent);
          const [a, b] = ends.map(project);
          pen.beginPath();
          pen.moveTo(a[0], a[1]);
          pen.lineTo(b[0], b[1]);
          pen.stroke();
        }
      }
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = themed("--shade");
    for (const [g, first, last] of lines) {
      if (!this.film.moves[g]) continue;
      const [a, b] = [first, last].map((end) => project([end[0], end[1], level]));
      pen.lineWidth = Math.max(this.film.radius[g] * (a[3] + b[3]), 2);
      pen.beginPath();
      pen.moveTo(a[0], a[1]);
      pen.lineTo(b[0] + 0.01, b[1]);
      pen.stroke();
    }
  }
}

/** A replay with its controls. */
class Player {
  constructor(host) {
    this.canvasPlace = element("div", { class: "player" });
    this.button = element("button", { type: "button", class: "play", onclick: () => (this.timer ? this.pause() : this.play()) }, "Play");
    const step = (by, name, sign) => element("button", { type: "button", "aria-label": name, onclick: () => { this.pause(); this.show(this.now + by); } }, sign);
    this.slider = element("input", { type: "range", min: 0, value: 0, "aria-label": "Frame", oninput: () => { this.pause(); this.show(Number(this.slider.value)); } });
    this.speed = element("select", { "aria-label": "Speed" },
      [0.25, 0.5, 1, 2, 4].map((factor) => element("option", { value: factor, selected: factor === 1 }, `${factor}x`)));
    this.said = element("p", { class: "said", "data-part": "time" });
    this.caption = element("p", { class: "said", "data-part": "caption" });
    host.append(this.canvasPlace, element("div", { class: "controls" }, this.button, step(-1, "Frame back", "‹"), this.slider, step(1, "Frame on", "›"), this.speed), this.said, this.caption);
    this.now = 0;
  }

  load(film, caption, start) {
    this.pause();
    if (this.view && this.view.end) this.view.end();
    if (this.view) this.view.gone = true;
    const canvas = element("canvas", {});
    this.canvasPlace.replaceChildren(canvas);
    this.film = film;
    this.view = new (film.kind === "body" ? BodyView : FrameView)(canvas, film, caption);
    this.slider.max = film.steps.length - 1;
    this.caption.textContent = caption + (film.kind === "body" ? ". Drag to turn, double-click to turn back." : "");
    this.show(0);
    if (start && !matchMedia("(prefers-reduced-motion: reduce)").matches) this.play();
  }

  show(frame) {
    this.now = Math.min(Math.max(frame, 0), this.film.steps.length - 1);
    this.slider.value = this.now;
    const step = this.film.steps[this.now] + 1;
    const text = `step ${step} of ${this.film.length}, return ${formatNumber(this.film.returns[this.now])}`;
    this.said.textContent = text;
    this.slider.setAttribute("aria-valuetext", text);
    this.view.draw(this.now);
  }

  play() {
    if (this.now === this.film.steps.length - 1) this.show(0);
    this.button.textContent = "Pause";
    const next = () => {
      if (this.now === this.film.steps.length - 1) return this.pause();
      this.show(this.now + 1);
      this.timer = setTimeout(next, this.film.milliseconds / this.speed.value);
    };
    this.timer = setTimeout(next, this.film.milliseconds / this.speed.value);
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = null;
    this.button.textContent = "Play";
  }
}
