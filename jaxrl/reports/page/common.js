"use strict";
// Everything of the page's script shares one scope; text from runs reaches the page as text nodes only.

const SVG = "http://www.w3.org/2000/svg";

function add(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** An HTML element; attributes that begin with "on" are listeners. */
function element(tag, attributes, ...children) {
  return add(document.createElement(tag), attributes, children);
}

function drawn(tag, attributes, ...children) {
  return add(document.createElementNS(SVG, tag), attributes, children);
}

function readData(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

/** Four digits, 12,345 rather than 12345; "no value" for null. */
function formatNumber(value) {
  if (value === null || value === undefined) return "no value";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e9)) return value.toExponential(2);
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
}

/** Environment steps: 40k, 1.5M. */
function formatSteps(value) {
  const units = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const [unit, letter] = units.find(([least]) => Math.abs(value) >= least) || [1, ""];
  return (value / unit).toLocaleString("en", { maximumSignificantDigits: 3 }) + letter;
}

/** About `count` round numbers from `low` to `high`. */
function ticks(low, high, count) {
  const raw = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= raw) || 10);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step + 0); // no -0
  return found;
}

function colourAt(scale, share) {
  const colours = EVERYTHING.scales[scale];
  return colours[Math.round(Math.min(Math.max(share, 0), 1) * (colours.length - 1))];
}

/** Black or white, whichever is read more easily on "#rrggbb". */
function inkOn(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);
  return 0.2126 * red ** 2.2 + 0.7152 * green ** 2.2 + 0.0722 * blue ** 2.2 > 0.2 ? "#000000" : "#ffffff";
}

function floatsOf(base64) {
  return new Float32Array(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer);
}

/** A custom property of the theme. */
function themed(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Calls `draw(width)` now and whenever the width of `host` changes. */
function onWidth(host, draw) {
  let last = 0;
  new ResizeObserver(() => {
    if (host.clientWidth && host.clientWidth !== last) draw((last = host.clientWidth));
  }).observe(host);
}

/** Colour of a line by its rank; black is the ink of the theme. */
function lineColour(rank) {
  const colour = EVERYTHING.colours[rank % EVERYTHING.colours.length];
  return colour === "#000000" ? "var(--ink)" : `color-mix(in srgb, ${colour}, white var(--lift))`;
}

const DASHES = ["", "7 4", "8 3 2 3", "2 3", "10 4", "", "4 2", "12 3 2 3"];
