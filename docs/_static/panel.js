"use strict";
// Draws the curves of a loss for the positions of its sliders, with the tangent at one point.
// The loss itself computed the points of the curves; between them, a cubic through two values and slopes is drawn. Only
// the slope of the curvature is computed here, by finite differences.

const CHARTS = [
  { name: "loss", height: 220 },
  { name: "gradient", height: 130 },
  { name: "curvature", height: 130 },
];
const LEFT = 46, RIGHT = 10, TOP = 20, BOTTOM = 6;
const SVG = "http://www.w3.org/2000/svg";

function element(parent, name, attributes, text) {
  const e = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  if (text !== undefined) e.textContent = text;
  parent.append(e);
  return e;
}

// Round numbers between low and high, about `count` of them.
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((f) => f * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(+(i * step).toPrecision(12));
  return found;
}

const digits = (x) => (Math.abs(x) < 5e-4 ? "0" : String(+x.toPrecision(3))).replace("-", "−");

// The cubic that has values y0, y1 and slopes d0, d1 at the ends of a step h, at the fraction u of it.
function cubic(y0, y1, d0, d1, h, u) {
  const v = 1 - u;
  return y0 * v * v * (1 + 2 * u) + y1 * u * u * (3 - 2 * u) + h * u * v * (d0 * v - d1 * u);
}

function differences(y, h) {
  const last = y.length - 1;
  return y.map((_, i) => {
    const a = Math.max(i - 1, 0), b = Math.min(i + 1, last);
    return (y[b] - y[a]) / ((b - a) * h);
  });
}

// Value, slope and curvature of the loss at s.
function at(trace, s) {
  const kink = trace.kinks.find((k) => k.length > 2 && Math.abs(k[1] - s) < 1e-6);
  if (kink) return kink.slice(2);
  const piece = trace.pieces.find((p) => s <= p[1]) || trace.pieces[trace.pieces.length - 1];
  const [a, b, ...y] = piece;
  const h = (b - a) / (y[0].length - 1);
  const i = Math.max(0, Math.min(y[0].length - 2, Math.floor((s - a) / h)));
  const u = (s - a) / h - i;
  return [0, 1, 2].map((k) => cubic(y[k][i], y[k][i + 1], y[k + 1][i], y[k + 1][i + 1], h, u));
}

class Panel {
  constructor(root) {
    this.root = root;
    this.data = JSON.parse(root.querySelector("script").textContent);
    for (const { pieces } of this.data.traces) {
      for (const piece of pieces) piece.push(differences(piece[4], (piece[1] - piece[0]) / (piece[4].length - 1)));
    }
    this.plots = root.querySelector(".plots");
    this.readout = root.querySelector(".readout");
    this.sliders = [...root.querySelectorAll("[data-slider]")];
    this.position = root.querySelector("[data-position]");
    root.addEventListener("input", () => this.draw());
    for (const type of ["pointerdown", "pointermove"]) {
      this.plots.addEventListener(type, (event) => event.buttons && this.point(event));
    }
    this.draw();
    new ResizeObserver(() => this.draw()).observe(this.plots);
  }

  get trace() {
    const turned = Object.values(this.data.sliders);
    return this.data.traces[this.sliders.reduce((i, slider, k) => i * turned[k].length + +slider.value, 0)];
  }

  get s() {
    const [low, high] = this.data.span;
    return low + ((high - low) * this.position.value) / this.position.max;
  }

  point(event) {
    const box = this.plots.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    this.position.value = Math.round(share * this.position.max);
    this.draw();
  }

  draw() {
    const width = this.plots.clientWidth;
    if (!width) return;
    const { trace, s } = this;
    const y = at(trace, s);
    this.label(y);
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("width", width);
    const [low, high] = this.data.span;
    const x = (s) => LEFT + ((s - low) / (high - low)) * (width - LEFT - RIGHT);
    let top = 0;
    CHARTS.forEach((chart, order) => {
      this.chart(element(svg, "g", { class: chart.name, transform: `translate(0 ${top})` }), chart, order, x, trace, s, y);
      top += chart.height;
    });
    const axis = element(svg, "g", { class: "axis", transform: `translate(0 ${top})` });
    for (const tick of ticks(low, high, width / 70)) {
      element(axis, "text", { x: x(tick), y: 14, "text-anchor": "middle" }, digits(tick));
    }
    element(axis, "text", { x: (LEFT + width - RIGHT) / 2, y: 34, "text-anchor": "middle" }, this.data.axis);
    svg.setAttribute("height", top + 42);
    this.plots.replaceChildren(svg);
  }

  chart(g, { name, height }, order, x, trace, s, y) {
    const [low, high] = this.data.limits[order];
    const [left, right] = this.data.span.map(x);
    const scale = (v) => TOP + ((high - v) / (high - low)) * (height - TOP - BOTTOM);
    const Y = (v) => Math.max(-1e4, Math.min(1e4, scale(v))).toFixed(2);
    const id = `${this.root.dataset.loss}-${name}`;
    element(element(g, "clipPath", { id }), "rect", { x: left, y: TOP - 4, width: right - left, height: height - TOP });
    for (const tick of ticks(low, high, height / 36)) {
      element(g, "line", { class: tick === 0 ? "zero" : "grid", x1: left, x2: right, y1: Y(tick), y2: Y(tick) });
      element(g, "text", { x: left - 6, y: +Y(tick) + 4, "text-anchor": "end" }, digits(tick));
    }
    element(g, "text", { class: "title", x: left, y: 12 }, name);
    for (const kink of trace.kinks) {
      element(g, "line", { class: "kink", x1: x(kink[1]), x2: x(kink[1]), y1: TOP - 4, y2: height - BOTTOM });
    }
    const inside = element(g, "g", { "clip-path": `url(#${id})` });
    element(inside, "path", { class: "curve", d: trace.pieces.map((p) => this.path(p, order, x, Y)).join("") });
    if (order === 0) {
      const tangent = (s) => Y(y[0] + y[1] * (s - this.s));
      const [a, b] = this.data.span;
      element(inside, "line", { class: "tangent", x1: left, x2: right, y1: tangent(a), y2: tangent(b) });
    }
    for (const kink of trace.kinks) {
      if (order >= kink[0]) this.ends(g, kink[1], order, x, Y, trace);
      if (kink.length > 2) element(g, "circle", { class: "chosen", cx: x(kink[1]), cy: Y(kink[2 + order]), r: 3 });
    }
    element(inside, "circle", { class: "point", cx: x(s), cy: Y(y[order]), r: 5 });
  }

  // Open dots where a derivative jumps.
  ends(g, s, order, x, Y, trace) {
    trace.pieces.forEach((piece, i) => {
      const values = piece[2 + order];
      if (i && Math.abs(piece[0] - s) < 1e-3) element(g, "circle", { class: "open", cx: x(s), cy: Y(values[0]), r: 4 });
      if (i < trace.pieces.length - 1 && Math.abs(piece[1] - s) < 1e-3) {
        element(g, "circle", { class: "open", cx: x(s), cy: Y(values[values.length - 1]), r: 4 });
      }
    });
  }

  path([a, b, ...y], order, x, Y) {
    const values = y[order], slopes = y[order + 1];
    const h = (b - a) / (values.length - 1);
    let d = `M${x(a).toFixed(2)} ${Y(values[0])}`;
    for (let i = 1; i < values.length; i++) {
      const s = a + i * h;
      const before = values[i - 1] + (h / 3) * slopes[i - 1], after = values[i] - (h / 3) * slopes[i];
      d += `C${x(s - (2 * h) / 3).toFixed(2)} ${Y(before)} ${x(s - h / 3).toFixed(2)} ${Y(after)} `;
      d += `${x(s).toFixed(2)} ${Y(values[i])}`;
    }
    return d;
  }

  // The text of the panel: outputs beside the sliders, a sentence below, and labels for screen readers.
  label(y) {
    const turned = Object.values(this.data.sliders);
    this.sliders.forEach((slider, k) => this.say(slider, digits(turned[k][slider.value])));
    const [value, slope, curvature] = y.map(digits);
    const sentence = `loss ${value}, gradient ${slope}, curvature ${curvature}`;
    this.say(this.position, digits(this.s), sentence);
    this.readout.textContent = sentence;
    this.plots.setAttribute("aria-label", `${this.root.dataset.loss} along ${this.data.axis}: at ${digits(this.s)} ${sentence}`);
  }

  say(slider, value, more) {
    slider.previousElementSibling.textContent = value;
    slider.setAttribute("aria-valuetext", more ? `${value}: ${more}` : value);
  }
}

for (const root of document.querySelectorAll(".panel")) new Panel(root);
