"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { classes, concepts, valid, minImages } = data;
  const n = concepts.length;
  const Z = 1.959963984540054;
  const LEVEL = 0.05;
  const root = document.documentElement;
  root.classList.add("js");

  // ---- Arrays -------------------------------------------------------------------------------
  const TYPES = {
    u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, u8: BigUint64Array, i2: Int16Array,
    f4: Float32Array,
  };
  const unpacked = new Map();
  function unpack(packed) {
    if (!unpacked.has(packed)) {
      const bytes = Uint8Array.from(atob(packed.data), (c) => c.charCodeAt(0));
      const values = new TYPES[packed.type](bytes.buffer);
      unpacked.set(packed, packed.type === "u8" ? Float64Array.from(values, Number) : values);
    }
    return unpacked.get(packed);
  }
  // Pairs are stored once, row by row above the diagonal.
  function upper(packed, a, b) {
    const [i, j] = a < b ? [a, b] : [b, a];
    return unpack(packed)[i * n - (i * (i + 1)) / 2 + (j - i - 1)];
  }

  // ---- Statistics: the same formulas as the Python side --------------------------------------
  function wilson(successes, trials) {
    if (trials <= 0) return [0, 1];
    const p = successes / trials, zz = Z * Z / trials;
    const centre = (p + zz / 2) / (1 + zz);
    const half = (Z * Math.sqrt(p * (1 - p) / trials + zz / (4 * trials))) / (1 + zz);
    return [
      successes <= 0 ? 0 : Math.max(0, centre - half),
      successes >= trials ? 1 : Math.min(1, centre + half),
    ];
  }
  function newcombe(s1, n1, s2, n2) {
    const p1 = s1 / Math.max(n1, 1), p2 = s2 / Math.max(n2, 1);
    const [l1, u1] = wilson(s1, n1), [l2, u2] = wilson(s2, n2);
    return [
      Math.max(-1, p1 - p2 - Math.hypot(p1 - l1, u2 - p2)),
      Math.min(1, p1 - p2 + Math.hypot(u1 - p1, p2 - l2)),
    ];
  }

  // ---- Numbers as words ----------------------------------------------------------------------
  const whole = (share) => {
    const size = Math.floor(Math.abs(100 * share) + 0.5);
    return (share < 0 && size ? "−" : "") + size;
  };
  const plus = (share) => (share > 0 && whole(share) !== "0" ? "+" : "") + whole(share);
  const bounds = ([low, high]) => `[${whole(low)}, ${whole(high)}]`;
  const images = (count) => `${count} image${count === 1 ? "" : "s"}`;
  const qText = (q) => (q < 0.001 ? "q < 0.001" : `q = ${q.toFixed(3)}`);
  const pairName = (a, b) => `${concepts[a]} > ${concepts[b]}:`;
  const doubt = (a, b) => {
    const names = [a, b].filter((c, i, all) => !valid[c] && all.indexOf(c) === i);
    return names.length ? [`(not trusted: ${names.map((c) => concepts[c]).join(", ")})`] : [];
  };
  // Plotly reads some tags in its texts; names are never meant as such.
  const escaped = (text) =>
    String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  // ---- What a heatmap shows ------------------------------------------------------------------
  const PARTS = {
    "ground-truth": ["correct", "false_negative"],
    "output-label": ["correct", "false_positive"],
    correct: ["correct"],
    incorrect: ["false_negative"],
    "incorrect-output": ["false_positive"],
  };

  function counted(source, kind, k) {
    const parts = PARTS[kind].map((name) => data.counts[source][name]);
    const wins = parts.map((part) => unpack(part.wins[k]));
    const size = parts.reduce((sum, part) => sum + part.n[k], 0);
    return { n: size, wins: (a, b) => wins.reduce((sum, w) => sum + w[a * n + b], 0) };
  }

  /** Shares of one group of images; with a threshold, 1, 0 or nothing. */
  function shares(source, kind, k, threshold) {
    const { n: size, wins } = counted(source, kind, k);
    return {
      few: size < minImages ? `not enough images (n = ${size})` : "",
      value(a, b) {
        const h = wins(a, b) / size;
        if (threshold === null) return h;
        return h >= threshold ? 1 : h <= 1 - threshold ? 0 : null;
      },
      lines(a, b) {
        const s = wins(a, b);
        const shown = `${whole(s / size)} % ${bounds(wilson(s, size))} of ${images(size)}`;
        return [pairName(a, b), shown, ...doubt(a, b)];
      },
      significant: () => false,
    };
  }

  /** Differences of two groups; `cell` gives a pair's interval, q and, if known, both shares. */
  function difference(value, cell, first, second) {
    return {
      isDelta: true,
      value,
      few: Math.min(first, second) < minImages
        ? `not enough images (n = ${Math.min(first, second)}): ` +
          `${first} correct, ${second} incorrect`
        : "",
      lines(a, b) {
        const { interval, q, from = ["", ""] } = cell(a, b);
        return [
          pairName(a, b),
          `${plus(value(a, b))} points ${bounds(interval)}, ${qText(q)};`,
          `${from[0]}${first} correct, ${from[1]}${second} incorrect`,
          ...doubt(a, b),
        ];
      },
      significant: (a, b) => cell(a, b).q <= LEVEL,
    };
  }

  function classDifference(source, k) {
    const right = counted(source, "correct", k), wrong = counted(source, "incorrect", k);
    const packed = data.counts[source].q[k];
    const value = (a, b) => right.wins(a, b) / right.n - wrong.wins(a, b) / wrong.n;
    const cell = (a, b) => {
      const s1 = right.wins(a, b), s2 = wrong.wins(a, b);
      return {
        interval: newcombe(s1, right.n, s2, wrong.n),
        q: upper(packed, a, b),
        from: [`${whole(s1 / right.n)} % of `, `${whole(s2 / wrong.n)} % of `],
      };
    };
    return difference(value, cell, right.n, wrong.n);
  }

  function confusionDifference(delta) {
    const read = (packed, a, b) => unpack(packed)[a * n + b] / data.steps;
    const value = (a, b) => read(delta.values, a, b);
    const cell = (a, b) => ({
      interval: [read(delta.low, a, b), read(delta.high, a, b)],
      q: upper(delta.q, a, b),
    });
    return difference(value, cell, delta.nFirst, delta.nSecond);
  }

  // ---- Drawing -------------------------------------------------------------------------------
  const CIVIDIS = ["#00204c", "#213d6b", "#555b6c", "#7b7a77", "#a59c74", "#d3c064", "#ffe945"];
  const GREYS = { light: ["#f2f2f0", "#b9bbbd"], dark: ["#2b3035", "#676f76"] };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)");
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const scale = (colors) => colors.map((c, i) => [i / (colors.length - 1), c]);
  const drawn = new Map();

  function settings(element) {
    const form = document.querySelector(`[data-controls="${element.id}"]`);
    const read = new FormData(form);
    const kind = read.get("kind");
    const isBinary = read.get("binarized") !== null && kind !== "differential";
    return { kind, source: read.get("source"), threshold: isBinary ? +read.get("tau") : null };
  }

  /** What to draw, and all differences that share its scale, so that they can be compared. */
  function view(element) {
    const sources = Object.keys(data.sources);
    if (element.dataset.heatmap === "confusion") {
      const confusion = data.confusions[element.dataset.confusion];
      const all = sources.map((source) => confusionDifference(confusion[source]));
      return { shown: all[sources.indexOf(element.dataset.source)], all };
    }
    const k = +element.dataset.class;
    const { kind, source, threshold } = settings(element);
    Object.assign(element.dataset, { kind, source });
    if (kind !== "differential") return { shown: shares(source, kind, k, threshold), all: [] };
    const all = sources.map((name) => classDifference(name, k));
    return { shown: all[sources.indexOf(source)], all };
  }

  function spanOf(differences) {
    let largest = 0.1;
    for (const { value } of differences) {
      for (let a = 0; a < n; a++) {
        for (let b = 0; b < n; b++) {
          if (a !== b && valid[a] && valid[b]) largest = Math.max(largest, Math.abs(value(a, b)));
        }
      }
    }
    return Math.ceil(largest * 10) / 10;
  }

  /** Text of a hover label: in one line if it is short, so that it fits beside the cells. */
  function hover(lines) {
    const isShort = lines.join(" ").length <= 48;
    return lines.map(escaped).join(isShort ? " " : "<br>");
  }

  /** Split cells into trusted ones, in colour, and others, in grey, with the same texts. */
  function cells(shown) {
    const grid = () => concepts.map(() => new Array(n).fill(null));
    const [trusted, doubted, texts, marks] = [grid(), grid(), grid(), { x: [], y: [] }];
    for (let a = 0; a < n; a++) {
      for (let b = 0; b < n; b++) {
        if (a === b) continue;
        const value = shown.value(a, b);
        const isTrusted = valid[a] && valid[b];
        (isTrusted ? trusted : doubted)[a][b] = value;
        texts[a][b] = hover(shown.lines(a, b));
        if (isTrusted && shown.significant(a, b)) {
          marks.x.push(String(b));
          marks.y.push(String(a));
        }
      }
    }
    return { trusted, doubted, texts, marks };
  }

  function labels() {
    const short = (name) => (name.length > 22 ? `${name.slice(0, 21)}…` : name);
    return Object.fromEntries(concepts.map((name, c) => {
      const text = escaped(short(name));
      return [c, valid[c] ? text : `<span style="color:${css("--faint")}">${text} †</span>`];
    }));
  }

  function layout(width) {
    const lengths = concepts.map((name, c) => Math.min(name.length, 22) + 2 * !valid[c]);
    const largest = width < 480 ? 10 : 12;
    const size = Math.max(8, Math.min(largest, (0.7 * width) / n));
    const margin = Math.min(Math.max(...lengths) * size * 0.58 + 10, width * 0.36);
    const right = 34; // holds the tools
    const side = Math.min(width - margin - right, 760, Math.max(300, n * 34));
    const axis = {
      type: "category", labelalias: labels(), showgrid: false, zeroline: false, ticks: "",
      tickfont: { size }, range: [-0.5, n - 0.5],
      title: { text: "" }, automargin: false,
    };
    return {
      width: margin + side + right, height: margin + side + 8,
      margin: { l: margin, t: margin, r: right, b: 8 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: css("--plot-ground"),
      font: { family: getComputedStyle(document.body).fontFamily, color: css("--ink") },
      xaxis: { ...axis, side: "top", tickangle: -90 },
      yaxis: { ...axis, range: [n - 0.5, -0.5] },
      // On touch screens a drag has to scroll the page.
      dragmode: coarse.matches ? false : "zoom",
      hovermode: "closest", showlegend: false,
      modebar: {
        orientation: "v", bgcolor: "rgba(0,0,0,0)", color: css("--faint"),
        activecolor: css("--accent"),
      },
      hoverlabel: {
        align: "left", bgcolor: css("--card"), bordercolor: css("--line"),
        font: { color: css("--ink"), size: 13 },
      },
    };
  }

  function traces(shown, { trusted, doubted, texts, marks }, span, cell) {
    const names = concepts.map((_, c) => String(c));
    const delta = [css("--plot-low"), css("--plot-mid"), css("--plot-high")];
    const range = shown.isDelta ? { zmin: -span, zmax: span } : { zmin: 0, zmax: 1 };
    const common = {
      type: "heatmap", x: names, y: names, text: texts, hovertemplate: "%{text}<extra></extra>",
      hoverongaps: false, showscale: false, ...range,
      xgap: n > 40 ? 0 : 1, ygap: n > 40 ? 0 : 1,
    };
    return [
      { ...common, z: trusted, colorscale: scale(shown.isDelta ? delta : CIVIDIS) },
      { ...common, z: doubted, colorscale: scale(GREYS[dark.matches ? "dark" : "light"]) },
      {
        ...marks, type: "scatter", mode: "markers", hoverinfo: "skip",
        marker: { size: Math.max(1.2, Math.min(5, 0.3 * cell)), color: css("--ink") },
      },
    ];
  }

  function legend(element, shown, span) {
    const box = element.nextElementSibling.nextElementSibling;
    const ramp = document.createElement("i");
    const colors = shown.isDelta
      ? [css("--plot-low"), css("--plot-mid"), css("--plot-high")] : CIVIDIS;
    ramp.style.background = `linear-gradient(90deg, ${colors.join(", ")})`;
    const [low, high] = shown.isDelta
      ? [`−${whole(span)} points: more among errors`, `+${whole(span)}: more among correct`]
      : ["0 %: row weaker", "100 %: row stronger"];
    const part = (...content) => {
      const span = document.createElement("span");
      span.append(...content);
      return span;
    };
    const wrap = part(low, ramp, high);
    wrap.className = "ramp";
    box.replaceChildren(wrap);
    if (shown.isDelta) box.append(part(`● significant (q ≤ ${LEVEL})`));
    if (valid.includes(false)) box.append(part("† and grey: not trusted"));
    box.hidden = false;
  }

  // Only tools that work in this file: none of them sends anything anywhere.
  const CONFIG = {
    displaylogo: false,
    displayModeBar: coarse.matches || n > 40 ? true : "hover",
    modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
  };

  function draw(element) {
    waiting.unobserve(element);
    const { shown, all } = view(element);
    const readout = element.nextElementSibling;
    readout.textContent = "";
    element.classList.toggle("few", shown.few !== "");
    if (shown.few) {
      Plotly.purge(element);
      element.textContent = shown.few;
      readout.nextElementSibling.hidden = true;
      drawn.set(element, null);
      return;
    }
    if (!element.classList.contains("js-plotly-plot")) element.textContent = "";
    const grid = cells(shown);
    const span = spanOf(all);
    const plan = layout(element.closest(".heatmap").clientWidth);
    element.parentElement.style.width = `${plan.width}px`;
    const cell = (plan.height - plan.margin.t - plan.margin.b) / n;
    Plotly.react(element, traces(shown, grid, span, cell), plan, CONFIG);
    legend(element, shown, span);
    if (!drawn.has(element) || drawn.get(element) === null) {
      const tell = (event) => {
        const [a, b] = event.points[0].pointIndex;
        const current = drawn.get(element);
        current.cursor = [a, b];
        readout.textContent = current.shown.lines(a, b).join(" ");
      };
      element.on("plotly_hover", tell);
      element.on("plotly_click", tell); // a touch is a click only
    }
    drawn.set(element, { shown, cursor: [0, 1] });
  }

  const waiting = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) draw(target);
    }
  }, { rootMargin: "200px" });

  const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  function walk(event) {
    const current = drawn.get(event.currentTarget);
    if (!current || !(event.key in STEPS)) return;
    event.preventDefault();
    const next = current.cursor.map((at, i) => {
      return Math.min(Math.max(at + STEPS[event.key][i], 0), n - 1);
    });
    current.cursor = next;
    const [a, b] = next;
    const readout = event.currentTarget.nextElementSibling;
    Plotly.Fx.unhover(event.currentTarget);
    readout.textContent = "";
    if (a === b) return;
    readout.textContent = current.shown.lines(a, b).join(" ");
    const curveNumber = valid[a] && valid[b] ? 0 : 1;
    Plotly.Fx.hover(event.currentTarget, [{ curveNumber, pointNumber: [a, b] }]);
  }

  for (const element of document.querySelectorAll("[data-heatmap]")) {
    waiting.observe(element);
    element.addEventListener("keydown", walk);
  }
  for (const form of document.querySelectorAll("[data-controls]")) {
    const element = document.getElementById(form.dataset.controls);
    const k = +element.dataset.class;
    const { few } = classDifference(Object.keys(data.counts)[0], k);
    form.elements.kind.value = few ? "ground-truth" : "differential";
    const sync = () => {
      form.querySelector(".binarize").disabled = form.elements.kind.value === "differential";
      form.querySelector("output").textContent = (+form.elements.tau.value).toFixed(2);
    };
    sync();
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      sync();
      draw(element);
    });
  }
  function redraw() {
    for (const [element, current] of drawn) if (current) draw(element);
  }
  dark.addEventListener("change", redraw);
  let width = innerWidth, timer = 0;
  addEventListener("resize", () => {
    // Phones report a resize whenever their address bar moves; only the width matters.
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(timer);
    timer = setTimeout(redraw, 150);
  });

  // ---- Images --------------------------------------------------------------------------------
  const dialog = document.getElementById("lightbox");
  let trail = [];
  let position = 0;

  function show(step) {
    position = (position + step + trail.length) % trail.length;
    const index = trail[position].dataset.image;
    const [name, label, prediction, confidence, vlm, module, subclass] = data.images[index];
    const picture = dialog.querySelector("img");
    const original = document.querySelector(`[id="image-${index}"] img`);
    picture.hidden = !original;
    picture.src = original ? original.src : "data:,";
    picture.alt = original ? original.alt : "";
    dialog.querySelector("h2").textContent = name;
    const facts = [
      ["Label", classes[label] + (subclass ? ` (${subclass})` : "")],
      ["Prediction", classes[prediction]],
      ["Confidence", confidence === null ? "–" : `${whole(confidence)} %`],
      ["VLM says", classes[vlm] ?? "–"],
      ["Verdict", label === prediction ? "correct" : module || "unknown"],
    ];
    dialog.querySelector("dl").replaceChildren(...facts.flatMap(([term, text]) => {
      const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
      dt.textContent = term;
      dd.textContent = text;
      return [dt, dd];
    }));
    dialog.querySelector("a").href = `#image-${index}`;
  }

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-image]");
    if (!opener || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    trail = [...opener.closest(".gallery, .strip").querySelectorAll("[data-image]")];
    position = trail.indexOf(opener);
    show(0);
    dialog.showModal();
  });
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.step) show(+button.dataset.step);
    // A click on the dialog itself is one on the backdrop around its content.
    else if (event.target === dialog || button || event.target.closest("a")) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(-1);
    if (event.key === "ArrowRight") show(1);
  });

  // ---- Moving about --------------------------------------------------------------------------
  function arrive() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let box = target.closest("details"); box; box = box.parentElement.closest("details")) {
      box.open = true;
      // Drawing later would move the target away again.
      for (const element of box.querySelectorAll("[data-heatmap]")) {
        if (!drawn.has(element)) draw(element);
      }
    }
    const block = target.matches(".tile") ? "center" : "start";
    target.scrollIntoView({ behavior: "instant", block });
    target.querySelector(".tile > button")?.focus({ preventScroll: true });
  }
  addEventListener("hashchange", arrive);
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]:not([data-image])');
    // Following the same link again changes no hash.
    if (link && link.hash === location.hash) arrive();
  });
  if (location.hash) arrive();

  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll(".more")) details.open = true;
  });

  const links = [...document.querySelectorAll(".toc a")];
  const sections = links.map((link) => document.querySelector(link.hash));
  const mark = () => {
    const isPast = (section) => section.getBoundingClientRect().top < innerHeight / 3;
    const last = sections.findLastIndex(isPast);
    links.forEach((link, i) => {
      if (i === Math.max(last, 0)) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
  };
  addEventListener("scroll", mark, { passive: true });
  mark();

  const table = document.querySelector(".matrix");
  const matrixReadout = document.getElementById("matrix-readout");
  for (const kind of ["mouseover", "focusin", "click"]) {
    table?.addEventListener(kind, (event) => {
      const cell = event.target.closest("td[title]");
      if (cell) matrixReadout.textContent = cell.title;
    });
  }
  window.faultlens = { wilson, newcombe };
})();
