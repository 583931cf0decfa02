// A Plotly figure that is updated in place, so that zoom and hover survive a live refresh.
// Plots with the same `link` share their x range and a hairline at the pointer. Off-screen plots draw when scrolled to.
const plots = new WeakMap();
const links = (window.groupscopeLinks ??= new Map());

function loadPlotly(source) {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  return (window.groupscopePlotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL(source, window.location.origin).href;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("plotly.js did not load"));
    document.head.appendChild(script);
  }));
}

function linkOf(name) {
  if (!links.has(name)) links.set(name, { members: new Set(), range: null });
  return links.get(name);
}

// "@c1/0.3" → "rgba(...)" in the reader's theme; see pages/components/charts.py. "@#light|#dark" → the one that fits the background.
function colours(style) {
  const value = (name) => style.getPropertyValue(name).trim();
  const palette = value("--st-chart-categorical-colors").split(",");
  const ground = parseInt(value("--st-background-color").slice(1, 7), 16);
  const dark = 299 * (ground >> 16) + 587 * ((ground >> 8) & 255) + 114 * (ground & 255) < 128000;
  const named = (name) => {
    if (name.includes("|")) return name.split("|")[dark ? 1 : 0];
    return (/^c\d$/.test(name) ? palette[+name[1]] : value(`--st-${name}-color`)).trim();
  };
  const faded = (colour, alpha) => {
    const hex = parseInt(colour.slice(1, 7), 16);
    return `rgba(${hex >> 16},${(hex >> 8) & 255},${hex & 255},${alpha})`;
  };
  const resolve = (node) => {
    for (const key in node) {
      const item = node[key];
      if (typeof item === "string" && item[0] === "@") {
        const [name, alpha] = item.slice(1).split("/");
        node[key] = alpha ? faded(named(name), alpha) : named(name);
      } else if (item && typeof item === "object" && !item.bdata) resolve(item);
    }
    return node;
  };
  return { value, resolve };
}

class LivePlot {
  constructor(parent) {
    this.frame = parent.querySelector(".live-plot");
    this.canvas = this.frame.querySelector(".canvas");
    this.hairline = this.frame.querySelector(".hairline");
    this.visible = false;
    this.sizes = new ResizeObserver(() => this.drawn && window.Plotly.Plots.resize(this.canvas));
    this.sizes.observe(this.frame);
    this.sight = new IntersectionObserver(([entry]) => {
      this.visible = entry.isIntersecting;
      if (this.visible) this.draw();
    }, { rootMargin: "150px" });
    this.sight.observe(this.frame);
  }

  update(data, trigger) {
    this.trigger = trigger;
    const theme = getComputedStyle(this.frame).getPropertyValue("--st-background-color");
    if (this.data?.figure === data.figure && this.theme === theme) return;
    this.data = data;
    this.theme = theme;
    this.frame.style.height = `${data.height}px`;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", data.alt);
    this.join(data.link);
    this.waiting = true;
    if (this.visible) this.draw();
  }

  join(name) {
    if (this.linkName === name) return;
    this.leave();
    this.linkName = name;
    this.link = linkOf(name);
    this.link.members.add(this);
  }

  leave() {
    if (!this.link) return;
    this.link.members.delete(this);
    if (!this.link.members.size) links.delete(this.linkName);
  }

  draw() {
    if (!this.waiting) return;
    this.waiting = false;
    this.drawing = this.redraw();
  }

  async redraw() {
    const Plotly = await loadPlotly(this.data.plotly);
    if (this.gone) return;
    const { data, layout } = JSON.parse(this.data.figure);
    const { value, resolve } = colours(getComputedStyle(this.frame));
    const zoomed = this.link.range;
    this.dress(resolve(layout), value);
    await Plotly.react(this.canvas, resolve(data), layout, {
      displaylogo: false, showSendToCloud: false, responsive: false, doubleClick: "autosize",
      modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "pan2d", "zoom2d", "resetScale2d"],
    });
    if (!this.drawn) this.listen();
    this.drawn = true;
    if (this.link.range !== zoomed) await this.follow(this.link.range);  // another chart was zoomed while this one was being drawn
    this.frame.dataset.drawn = String((+this.frame.dataset.drawn || 0) + 1);
  }

  dress(layout, value) {
    const text = value("--st-text-color"), border = value("--st-border-color"), font = value("--st-font");
    Object.assign(layout, {
      autosize: true, paper_bgcolor: value("--st-background-color"), plot_bgcolor: value("--st-background-color"), font: { color: text, family: font },
      hoverlabel: { bgcolor: value("--st-background-color"), bordercolor: border, font: { color: text, family: font, size: 12 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: value("--st-gray-color"), activecolor: value("--st-primary-color") },
    });
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key)))
      layout[name] = { gridcolor: border, linecolor: border, tickcolor: border, zeroline: false, tickfont: { size: 11 }, ...layout[name] };
    if (this.link.range) Object.assign(layout.xaxis, { range: [...this.link.range], autorange: false });
  }

  listen() {
    this.canvas.on("plotly_relayout", (change) => {
      if (this.following) return;
      const range = change["xaxis.range"] ?? (change["xaxis.range[0]"] !== undefined ? [change["xaxis.range[0]"], change["xaxis.range[1]"]] : null);
      if (range) this.share(range);
      else if (change["xaxis.autorange"]) this.share(null);
    });
    this.canvas.on("plotly_hover", (event) => this.point(event.xvals ? event.xvals[0] : event.points[0].x));
    this.canvas.on("plotly_unhover", () => this.point(null));
    this.canvas.on("plotly_click", (event) => {
      const hit = event.points.find((point) => point.customdata);
      if (!hit) return;
      this.trigger("step", hit.customdata[0]);
      if (this.data.reveal) document.querySelector(this.data.reveal)?.scrollIntoView({ behavior: "smooth", block: "start" });
    });
  }

  share(range) {
    this.link.range = range;
    for (const other of this.link.members) if (other !== this && other.drawn) other.follow(range);
  }

  async follow(range) {
    this.following = true;
    await window.Plotly.relayout(this.canvas, range ? { "xaxis.range": [...range] } : { "xaxis.autorange": true });
    this.following = false;
  }

  point(x) {
    for (const other of this.link.members) if (other !== this) other.mark(x);
  }

  mark(x) {
    const axis = this.drawn && this.canvas._fullLayout?.xaxis;
    if (x === null || !axis) return void (this.hairline.style.display = "none");
    const at = axis.d2p(x);
    this.hairline.style.display = at >= 0 && at <= axis._length ? "block" : "none";
    this.hairline.style.left = `${axis._offset + at}px`;
  }

  unmount() {
    this.leave();
    this.sizes.disconnect();
    this.sight.disconnect();
    this.gone = true;
    // Plotly has timers of its own (margins, hover) that fail on a purged plot, so it is purged once they are over.
    this.drawing?.then(() => setTimeout(() => this.drawn && window.Plotly.purge(this.canvas), 2000));
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  if (!plots.has(parentElement)) plots.set(parentElement, new LivePlot(parentElement));
  const plot = plots.get(parentElement);
  plot.update(data, setTriggerValue);
  return () => {
    plot.unmount();
    plots.delete(parentElement);
  };
}
