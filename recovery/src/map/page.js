"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined && text !== null) made.textContent = text;
    return made;
  };
  const states = data.states.map((s) => s.state);
  const rank = new Map([...states].reverse().map((state, place) => [state, place]));
  const meaning = new Map(data.states.map((s) => [s.state, s.meaning]));
  const segments = data.rows.filter((row) => row.row === "segment");
  const label = (state) => (state === "beyond-seal" ? "outside the log" : state);
  const bySegment = new Map(segments.map((row) => [row.segment, row]));

  // ---- words ----
  const number = (n) => n.toLocaleString("en").replace(/,/g, "\u2009");
  const bytes = (n) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = 0;
    let left = n;
    while (left >= 1024 && unit < units.length - 1) { left /= 1024; unit += 1; }
    return (unit === 0 ? String(left) : (Math.floor(left * 10) / 10).toFixed(1)) + " " + units[unit];
  };
  const hex = (n) => n.toString(16);
  const span = (o) => (o ? number(o.start) + "\u2009..\u2009" + number(o.end) : "\u2013");
  const records = (o) => (o.end - o.start === 1 ? "record " + o.start : "records " + o.start + ".." + o.end);
  const base = (path) => path.slice(path.lastIndexOf("/") + 1);

  // ---- colours and patterns: each state has both, so that hue is never all there is ----
  let colours = {};
  const readColours = () => {
    const style = getComputedStyle(document.documentElement);
    const names = [...states, "ink", "soft", "line", "paper", "card", "stripe", "stripe-dark", "focus"];
    colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue("--" + name).trim()]));
  };
  const fitted = (canvas) => {
    const ratio = window.devicePixelRatio || 1;
    const box = canvas.getBoundingClientRect();
    const [width, height] = [Math.max(1, Math.round(box.width * ratio)), Math.max(1, Math.round(box.height * ratio))];
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, box.width, box.height);
    return { context, width: box.width, height: box.height };
  };
  const paint = (context, state, x, y, width, height) => {
    context.fillStyle = colours[state];
    context.fillRect(x, y, width, height);
    if (width < 2.5 && state !== "damaged") return;
    if (state === "preallocated") {
      context.strokeStyle = colours.soft;
      context.globalAlpha = .45;
      context.lineWidth = 1;
      context.strokeRect(x + .5, y + .5, Math.max(0, width - 1), height - 1);
      context.globalAlpha = 1;
      return;
    }
    context.save();
    context.beginPath();
    context.rect(x, y, width, height);
    context.clip();
    context.lineWidth = 1.2;
    context.strokeStyle = colours.stripe;
    const slanted = (step, way) => {
      context.beginPath();
      for (let at = Math.floor((x - height) / step) * step; at < x + width + height; at += step) {
        context.moveTo(at, way > 0 ? y + height : y);
        context.lineTo(at + height, way > 0 ? y : y + height);
      }
      context.stroke();
    };
    if (state === "damaged") { context.strokeStyle = colours["stripe-dark"]; slanted(6, 1); slanted(6, -1); }
    if (state === "torn") { context.strokeStyle = colours["stripe-dark"]; slanted(6, 1); }
    if (state === "beyond-seal") slanted(5, -1);
    if (state === "truncated" || state === "lost") {
      context.beginPath();
      const step = state === "lost" ? 4 : 5;
      for (let at = Math.ceil(y / step) * step; at < y + height; at += step) {
        context.moveTo(x, at + .5);
        context.lineTo(x + width, at + .5);
      }
      context.stroke();
    }
    context.restore();
  };
  /** Pixels `wide` for `[from, to)` of spans: the worst of each wins, so that one byte shows. */
  const drawSpans = (context, spans, from, to, left, wide, top, tall) => {
    const scale = wide / (to - from);
    const cells = Math.max(1, Math.ceil(wide / 2));
    const worst = new Int8Array(cells).fill(-1);
    for (const part of spans) {
      if (part.end <= from || part.start >= to) continue;
      const first = Math.max(0, Math.floor(((part.start - from) * scale) / 2));
      const last = Math.min(cells, Math.ceil(((part.end - from) * scale) / 2));
      const value = rank.get(part.state);
      for (let cell = first; cell < Math.max(last, first + 1) && cell < cells; cell += 1) {
        if (value > worst[cell]) worst[cell] = value;
      }
    }
    let begin = 0;
    for (let cell = 1; cell <= cells; cell += 1) {
      if (cell < cells && worst[cell] === worst[begin]) continue;
      if (worst[begin] >= 0) {
        const state = states[states.length - 1 - worst[begin]];
        const x = left + begin * 2;
        const width = Math.min((cell - begin) * 2, wide - begin * 2);
        paint(context, state, x, top, width, tall);
        // One cell of damage in a wide bar is a hair: it gets a flag.
        if ((state === "damaged" || state === "torn" || state === "lost") && width < 5) {
          context.fillStyle = colours[state];
          context.fillRect(Math.max(left, Math.min(x + width / 2 - 2, left + wide - 4)), top, 4, tall);
        }
      }
      begin = cell;
    }
  };

  // ---- header ----
  const verdict = $("verdict");
  verdict.textContent = data.verdict + (data.advisory ? ", advisory" : "");
  verdict.classList.add(data.verdict);
  document.title = data.verdict + ": " + data.directory;
  const plain = data.headline.replace(/^(DAMAGED|torn tail|no log yet): /, "").replace(/^clean/, "every acknowledged record is there");
  $("headline").textContent = plain.charAt(0).toUpperCase() + plain.slice(1);
  $("where").textContent = data.directory;
  const fact = (name, value, bad) => {
    const box = element("div", bad ? "bad" : "");
    box.append(element("dt", "", name), element("dd", "", value));
    $("numbers").append(box);
  };
  if (data.offsets) fact("offsets", span(data.offsets));
  fact("intact records", number(data.records_intact));
  if (data.records_unreadable > 0) fact("unreadable", number(data.records_unreadable), true);
  fact(data.segments === 1 ? "segment" : "segments", number(data.segments));
  fact("in stores", bytes(data.bytes));
  const manifestWords = data.manifest.state === "clean" ? "generation " + data.manifest.generation : data.manifest.state;
  fact("manifest", manifestWords, data.manifest.state !== "clean");

  const legend = [];
  for (const total of data.totals) {
    const item = element("li");
    item.title = meaning.get(total.state);
    const swatch = document.createElement("canvas");
    item.append(swatch, element("b", "", label(total.state)), element("span", "", bytes(total.bytes)));
    item.querySelector("b").style.fontWeight = "500";
    $("legend").append(item);
    legend.push([swatch, total.state]);
  }

  // ---- state of the view ----
  let chosen = null;          // the row in the lens
  let view = [0, 1];          // which bytes of it
  let lit = null;             // which bytes are marked
  let current = -1;           // which finding
  const nodes = new Map();    // row to its line in the list

  // ---- the whole log in one strip ----
  const extents = [];
  let all = 0;
  for (const row of data.rows) {
    const length = row.row === "fold" ? row.bytes : row.length;
    extents.push([row, all, all + length]);
    all += length;
  }
  const drawStrip = () => {
    const { context, width, height } = fitted($("strip"));
    if (all === 0) return;
    const scale = width / all;
    const spans = [];
    for (const [row, start, end] of extents) {
      if (row.row === "fold") spans.push({ start, end, state: "clean" });
      else for (const part of row.spans) spans.push({ start: start + part.start, end: start + part.end, state: part.state });
    }
    drawSpans(context, spans, 0, all, 0, width, 5, height - 10);
    context.fillStyle = colours.paper;
    if (extents.length < width / 6) for (const [, start] of extents.slice(1)) context.fillRect(start * scale - .75, 5, 1.5, height - 10);
    const here = extents.find(([row]) => row === chosen);
    if (here) {
      context.strokeStyle = colours.ink;
      context.lineWidth = 2;
      const x = Math.min(here[1] * scale, width - 5);
      context.strokeRect(x + 1, 1, Math.max(4, (here[2] - here[1]) * scale - 2), height - 2);
    }
  };
  const stripEnds = () => {
    const ends = [element("span", "", data.offsets ? "offset " + number(data.offsets.start) : ""),
      element("span", "", data.offsets ? "next offset " + number(data.offsets.end) : "")];
    $("strip-ends").replaceChildren(...ends);
  };
  $("strip").addEventListener("click", (event) => {
    const box = $("strip").getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * all;
    const hit = extents.find(([row, start, end]) => row.row === "segment" && at >= start && at < end);
    if (!hit) return;
    const near = nearest(hit[0], at - hit[1], (6 / box.width) * all);
    choose(hit[0], near);
  });
  const isWrong = (part) => ["damaged", "lost", "torn"].includes(part.state);
  const nearest = (row, at, reach) =>
    row.spans.find((part) => isWrong(part) && part.start - reach <= at && at <= part.end + reach) || null;

  // ---- the lens ----
  const lens = $("lens");
  const clampView = (from, to) => {
    const least = 64;
    let size = Math.min(Math.max(to - from, least), chosen.length);
    let start = Math.min(Math.max(0, from), chosen.length - size);
    view = [start, start + size];
  };
  const ticks = (from, to, count) => {
    const rough = (to - from) / count;
    let step = 8;
    while (step < rough) step *= 2;
    const list = [];
    for (let at = Math.ceil(from / step) * step; at < to; at += step) list.push(at);
    return list;
  };
  const drawLens = () => {
    if (!chosen) return;
    const { context, width, height } = fitted(lens);
    const [from, to] = view;
    const scale = width / (to - from);
    const x = (at) => (at - from) * scale;
    const [top, tall] = [16, height - 16 - 24];
    drawSpans(context, chosen.spans, from, to, 0, width, top, tall);
    context.font = "11px " + getComputedStyle(document.documentElement).getPropertyValue("--mono");
    context.textBaseline = "middle";
    // Numbers on most of the frames, or on none.
    const visible = chosen.frames.filter((frame) => frame.end > from && frame.start < to);
    const roomy = visible.filter((frame) => (frame.end - frame.start) * scale > 16 * scale + 7 * String(frame.offset).length + 8);
    const numbered = roomy.length * 2 > visible.length;
    for (const frame of visible) {
      if (frame.end <= from || frame.start >= to) continue;
      const wide = (frame.end - frame.start) * scale;
      if (wide < 4) continue;
      context.fillStyle = colours.card;
      context.fillRect(x(frame.start) - .5, top, 1, tall);
      context.fillRect(x(frame.end) - .5, top, 1, tall);
      const head = Math.min(16 * scale, wide);
      if (wide > 26) {
        context.fillStyle = "rgba(0,0,0,.16)";
        context.fillRect(x(frame.start) + .5, top, Math.max(0, head - .5), tall);
      }
      const words = frame.kind === "mark" ? "mark" : frame.offset === null ? "" : String(frame.offset);
      const left = Math.max(x(frame.start) + head, 0) + 5;
      if (numbered && words && Math.min(x(frame.end), width) - left > context.measureText(words).width + 3) {
        const under = chosen.spans.find((part) => part.start <= frame.start && frame.start < part.end);
        context.fillStyle = under && under.state === "clean" ? "#fff" : colours.ink;
        if (under && under.state !== "clean") {
          const wide = context.measureText(words).width;
          context.fillStyle = colours.card;
          context.fillRect(left - 3, top + tall / 2 - 8, wide + 6, 16);
          context.fillStyle = colours.ink;
        }
        context.fillText(words, left, top + tall / 2);
      }
    }
    for (const part of chosen.spans) {
      if (!isWrong(part) || part.end <= from || part.start >= to) continue;
      if (chosen.frames.some((frame) => frame.start < part.end && part.start < frame.end)) continue;
      const [left, right] = [Math.max(0, x(part.start)), Math.min(width, x(part.end))];
      const text = part.offsets ? records(part.offsets) : part.state;
      const wide = context.measureText(text).width + 14;
      if (right - left < wide + 6) continue;
      context.fillStyle = colours.card;
      context.beginPath();
      if (context.roundRect) context.roundRect((left + right - wide) / 2, top + tall / 2 - 10, wide, 20, 4);
      else context.rect((left + right - wide) / 2, top + tall / 2 - 10, wide, 20);
      context.fill();
      context.fillStyle = colours.ink;
      context.fillText(text, (left + right - wide) / 2 + 7, top + tall / 2 + .5);
    }
    if (chosen.sealed_at && chosen.sealed_at >= from && chosen.sealed_at <= to) {
      context.fillStyle = colours.ink;
      const at = Math.min(x(chosen.sealed_at), width - 1);
      context.fillRect(at - 1, top - 5, 2, tall + 10);
      const text = "sealed";
      const wide = context.measureText(text).width;
      context.fillText(text, at + wide + 6 > width ? at - wide - 5 : at + 5, 6);
    }
    if (lit) {
      context.strokeStyle = colours.ink;
      context.lineWidth = 2;
      const left = Math.max(1, x(lit[0]) - 1);
      const right = Math.min(width - 1, x(lit[1]) + 1);
      if (right > 0 && left < width) context.strokeRect(left, top - 3, Math.max(4, right - left), tall + 6);
    }
    context.fillStyle = colours.soft;
    for (const at of ticks(from, to, Math.max(2, width / 120))) {
      context.fillRect(x(at), top + tall + 3, 1, 5);
      const text = at === 0 ? "byte 0" : number(at);
      const wide = context.measureText(text).width;
      if (x(at) + wide + 4 < width) context.fillText(text, x(at) + 4, top + tall + 15);
    }
  };
  const tell = (at) => {
    const out = $("under");
    const part = chosen.spans.find((s) => s.start <= at && at < s.end);
    const frame = chosen.frames.find((f) => f.start <= at && at < f.end);
    out.replaceChildren();
    if (!part) return;
    const word = element("b", "", label(part.state));
    out.append(word, " \u00b7 bytes " + number(part.start) + "\u2009..\u2009" + number(part.end) + " (" + bytes(part.end - part.start) + ")");
    if (part.offsets) out.append(" \u00b7 " + records(part.offsets));
    if (at < 1024) out.append(" \u00b7 " + (at < 512 ? "head sector" : "base sector"));
    out.append(element("br"));
    if (frame) {
      const proof = frame.lag === null || frame.offset === null ? "" : ", says that all below " + (frame.offset - frame.lag) + " was durable";
      const name = frame.kind === "mark" ? "mark" : "frame of record " + (frame.offset === null ? "?" : frame.offset);
      out.append(name + ", bytes " + frame.start + ".." + frame.end + proof + "   ");
    }
    const command = "log-repair explain " + data.directory + " " + chosen.file + ":" + (frame ? frame.start : Math.floor(at));
    const code = element("code", "faint", command);
    out.append(code);
  };
  const show = () => {
    $("zoom").hidden = !chosen;
    if (!chosen) return;
    $("zoom-title").textContent = "Segment " + hex(chosen.segment) + (chosen.kind === "sealed" ? "" : ", " + chosen.kind);
    const facts = [chosen.file];
    if (chosen.offsets) facts.push("offsets " + chosen.offsets.start + ".." + chosen.offsets.end);
    facts.push(chosen.file_bytes === null ? "no file" : bytes(chosen.file_bytes));
    if (chosen.sealed_at) facts.push("sealed at byte " + number(chosen.sealed_at));
    if (chosen.origin === "copy") facts.push("a recovery's copy");
    if (chosen.created_millis !== null && chosen.created_millis < 8.6e15) facts.push("made " + new Date(chosen.created_millis).toISOString().slice(0, 19).replace("T", " ") + " UTC");
    $("zoom-facts").textContent = facts.join(" \u00b7 ");
    drawLens();
    drawStrip();
  };
  const choose = (row, part, finding) => {
    const before = nodes.get(chosen);
    if (before) before.setAttribute("aria-selected", "false");
    chosen = row;
    const node = nodes.get(row);
    if (node) {
      node.setAttribute("aria-selected", "true");
      $("segments").setAttribute("aria-activedescendant", node.id);
    }
    if (part) {
      const size = Math.max(part.end - part.start, 16);
      const around = Math.min(Math.max(size * 2, 320), 4 * size + 640);
      lit = [part.start, part.end];
      clampView(part.start - around, part.end + around);
    } else {
      lit = null;
      clampView(0, row.length);
    }
    mark(finding === undefined ? -1 : finding);
    show();
    reveal(row);
    tell(part ? part.start : 0);
  };
  /** Scrolls the list alone: the lens stays where it is. */
  const reveal = (row) => {
    const node = nodes.get(row);
    const list = $("segments");
    if (!node) return;
    const top = node.offsetTop - 26;
    if (top < list.scrollTop || node.offsetTop + node.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 3;
  };
  const mark = (finding) => {
    const cards = $("findings").children;
    if (cards[current] && current >= 0) cards[current].firstChild.removeAttribute("aria-current");
    current = finding;
    if (!cards[current] || !cards[current].firstChild.setAttribute) return;
    cards[current].firstChild.setAttribute("aria-current", "true");
    const pane = cards[current].closest("aside");
    const card = cards[current];
    if (getComputedStyle(pane).overflowY === "auto" && (card.offsetTop < pane.scrollTop || card.offsetTop + card.offsetHeight > pane.scrollTop + pane.clientHeight)) pane.scrollTop = card.offsetTop - 40;
  };
  const zoomBy = (factor, at) => {
    if (!chosen) return;
    const middle = at === undefined ? (view[0] + view[1]) / 2 : at;
    clampView(middle - (middle - view[0]) * factor, middle + (view[1] - middle) * factor);
    drawLens();
  };
  const move = (part) => {
    if (!chosen) return;
    const by = (view[1] - view[0]) * part;
    clampView(view[0] + by, view[1] + by);
    drawLens();
  };
  const byteAt = (event) => {
    const box = lens.getBoundingClientRect();
    return view[0] + ((event.clientX - box.left) / box.width) * (view[1] - view[0]);
  };
  lens.addEventListener("wheel", (event) => {
    if (!chosen) return;
    event.preventDefault();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(event.deltaX / 900);
    else zoomBy(event.deltaY > 0 ? 1.25 : .8, byteAt(event));
  }, { passive: false });
  let grabbed = null;
  lens.addEventListener("pointerdown", (event) => { grabbed = [event.clientX, view[0], view[1]]; lens.setPointerCapture(event.pointerId); lens.classList.add("grabbed"); });
  lens.addEventListener("pointerup", () => { grabbed = null; lens.classList.remove("grabbed"); });
  lens.addEventListener("pointermove", (event) => {
    if (!chosen) return;
    if (grabbed) {
      const by = ((grabbed[0] - event.clientX) / lens.getBoundingClientRect().width) * (grabbed[2] - grabbed[1]);
      clampView(grabbed[1] + by, grabbed[2] + by);
      drawLens();
    }
    tell(byteAt(event));
  });
  lens.addEventListener("dblclick", (event) => zoomBy(.25, byteAt(event)));

  // ---- places that are not clean, one after the other ----
  const places = [];
  for (const row of segments) for (const part of row.spans) if (isWrong(part)) places.push([row, part]);
  const walk = (way) => {
    if (places.length === 0) return;
    let here = places.findIndex(([row, part]) => row === chosen && lit && part.start === lit[0]);
    if (here < 0) here = way > 0 ? -1 : places.length;
    const [row, part] = places[(here + way + places.length) % places.length];
    choose(row, part, findingAt(row, part));
  };
  const findingAt = (row, part) => {
    const found = row.findings.find((place) => {
      const f = data.findings[place];
      return f && f.position !== null && f.position < part.end && (f.position_end === null ? f.position + 1 : f.position_end) > part.start;
    });
    return found === undefined ? row.findings[0] : found;
  };
  for (const button of document.querySelectorAll("[data-do]")) {
    const way = { in: () => zoomBy(.5), out: () => zoomBy(2), all: () => choose(chosen, null), next: () => walk(1), previous: () => walk(-1) }[button.dataset.do];
    button.addEventListener("click", way);
    if ((button.dataset.do === "next" || button.dataset.do === "previous") && places.length === 0) button.hidden = true;
  }

  // ---- the list of segments ----
  const longest = Math.max(1, ...segments.map((row) => row.length));
  const drawRow = (row) => {
    const node = nodes.get(row);
    const canvas = node && node.querySelector("canvas");
    if (!canvas || !canvas.getClientRects().length) return;
    const { context, width, height } = fitted(canvas);
    drawSpans(context, row.spans, 0, row.length, 0, Math.max(6, (width * row.length) / longest), 0, height);
  };
  const watcher = "IntersectionObserver" in window
    ? new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) drawRow(entry.target.row);
    }, { rootMargin: "400px" })
    : null;
  const list = $("segments");
  const headRow = element("div", "row head");
  for (const [text, className] of [["id", "num id"], ["state", "kind"], ["offsets", "num offsets"], ["size", "num size"], ["bytes, all to one scale", ""]]) headRow.append(element("span", className, text));
  headRow.setAttribute("role", "presentation");
  list.append(headRow);
  const widest = (texts, least) => Math.max(least, ...texts.map((text) => text.length + 1));
  list.style.setProperty("--ids", widest(data.rows.map((row) => hex(row.row === "fold" ? row.first : row.segment)), 5) + 2 + "ch");
  list.style.setProperty("--offsets", widest(data.rows.map((row) => span(row.offsets)), 12) + "ch");
  data.rows.forEach((row, place) => {
    if (row.row === "fold") {
      const line = element("div", "row fold");
      line.append(element("span", "num id", hex(row.first) + "\u2026"), element("span", "kind", number(row.segments)), element("span", "num offsets", span(row.offsets)), element("span", "num size", bytes(row.bytes)),
        element("span", "text", number(row.segments) + " clean segments, to " + hex(row.last)));
      line.setAttribute("role", "presentation");
      list.append(line);
      return;
    }
    const damage = row.findings.some((f) => data.findings[f] && data.findings[f].severity === "damage") || row.worst === "damaged";
    const line = element("div", "row" + (damage ? " wrong" : row.worst === "torn" || row.findings.length ? " warn" : ""));
    line.id = "row" + place;
    line.row = row;
    line.setAttribute("role", "option");
    line.setAttribute("aria-selected", "false");
    line.setAttribute("aria-label", "segment " + hex(row.segment) + ", " + row.kind + ", " + row.worst + ", " + row.findings.length + " findings");
    line.append(element("span", "num id", hex(row.segment)), element("span", "kind", row.kind), element("span", "num offsets", span(row.offsets)),
      element("span", "num size", row.file_bytes === null ? "\u2013" : bytes(row.file_bytes)), document.createElement("canvas"));
    line.addEventListener("click", (event) => {
      const box = line.querySelector("canvas").getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * longest;
      const part = event.clientX >= box.left ? nearest(row, at, (8 / box.width) * longest) : null;
      choose(row, part, part ? findingAt(row, part) : row.findings[0]);
    });
    nodes.set(row, line);
    list.append(line);
    if (watcher) watcher.observe(line);
  });
  $("only").addEventListener("change", () => {
    for (const line of list.children) {
      if (line === headRow) continue;
      const keep = !$("only").checked || (line.row && line.row.findings.length > 0);
      line.hidden = !keep;
      line.style.display = keep ? "" : "none";
    }
    segments.forEach(drawRow);
  });
  if (!segments.some((row) => row.findings.length)) $("only").closest(".tools").hidden = true;
  if (data.rows_left_out > 0) {
    $("rows-left-out").hidden = false;
    $("rows-left-out").textContent = number(data.rows_left_out) + " more segments are not on this page: log-repair map " + data.directory + " --all";
  }

  // ---- findings and plan ----
  const place = (f) => {
    const words = [];
    if (f.file) words.push(base(f.file) || f.file);
    if (f.offsets) words.push(records(f.offsets));
    if (f.position !== null) words.push(f.position_end === null ? "byte " + f.position : "bytes " + f.position + ".." + f.position_end);
    return words;
  };
  const go = (f, index) => {
    const row = f.segment === null ? null : bySegment.get(f.segment);
    if (!row) { mark(current === index ? -1 : index); return; }
    let part = null;
    if (f.file && base(f.file) === row.file && f.position !== null) {
      part = row.spans.find((s) => isWrong(s) && s.end > f.position && s.start >= f.position - 8) || row.spans.find((s) => s.start <= f.position && f.position < s.end);
      part = { start: f.position, end: f.position_end === null ? (part ? Math.max(part.end, f.position + 16) : f.position + 16) : f.position_end };
    }
    choose(row, part, index);
    if (window.innerWidth <= 1080) $("zoom").scrollIntoView({ block: "start", behavior: "smooth" });
  };
  const more = (name, text) => { const box = element("p"); box.append(element("b", "", name), text); return box; };
  data.findings.forEach((f, index) => {
    const item = element("li");
    const card = element("button", "finding " + f.severity);
    card.type = "button";
    const top = element("div", "top");
    top.append(element("span", "code", f.code), element("span", "sev", f.severity));
    const rest = element("div", "more");
    if (f.proof) rest.append(more("How that is known", f.proof));
    if (f.because) rest.append(more("How sure", (f.sure ? f.sure + ": " : "") + f.because));
    rest.append(more("What to do", f.next));
    const where = element("p", "place");
    for (const word of place(f)) where.append(element("span", "", word), " ");
    card.append(top, element("p", "what", f.what), where, rest);
    card.addEventListener("click", () => go(f, index));
    item.append(card);
    $("findings").append(item);
  });
  const total = data.findings.length + data.findings_left_out;
  if (total === 0) $("findings").append(element("li", "none", "None: every byte is what was written."));
  else $("findings-title").append(" ", element("span", "", number(total)));
  if (data.findings_left_out > 0) {
    $("findings-left-out").hidden = false;
    $("findings-left-out").textContent = number(data.findings_left_out) + " more are not on this page: log-repair check " + data.directory;
  }
  data.plan.forEach((step) => {
    const item = element("li");
    const card = element("button", "finding" + (step.loses ? " damage" : ""));
    card.type = "button";
    const top = element("div", "top");
    top.append(element("span", "code", step.what), element("span", "sev", step.loses ? "loses " + records(step.loses) : ""));
    card.append(top, element("p", "what", step.why), element("p", "place", step.file || ""));
    card.addEventListener("click", () => go({ ...step, offsets: null }, -1));
    item.append(card);
    $("plan").append(item);
  });
  if (data.plan.length === 0) $("plan-title").textContent = "What happens next";
  $("opening").textContent = data.next_opening;
  $("foot").textContent = "log-repair " + data.version + " \u00b7 " + data.made.slice(0, 19).replace("T", " ") + " UTC" + (data.uuid ? " \u00b7 log " + data.uuid : "");

  // ---- keys ----
  const step = (way) => {
    const visible = segments.filter((row) => !nodes.get(row).hidden);
    const here = visible.indexOf(chosen);
    const row = visible[Math.min(Math.max(0, here + way), visible.length - 1)];
    if (row && row !== chosen) choose(row, null);
  };
  const keys = {
    n: () => walk(1), p: () => walk(-1), "+": () => zoomBy(.5), "=": () => zoomBy(.5), "-": () => zoomBy(2),
    0: () => chosen && choose(chosen, null), ArrowLeft: () => move(-.2), ArrowRight: () => move(.2), ArrowDown: () => step(1), ArrowUp: () => step(-1),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, summary")) return;
    if (event.key.startsWith("Arrow") && event.target.closest(".finding")) return;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  // ---- draw ----
  const drawAll = () => {
    readColours();
    for (const [swatch, state] of legend) {
      const { context, width, height } = fitted(swatch);
      paint(context, state, 0, 0, width, height);
    }
    drawStrip();
    segments.forEach(drawRow);
    drawLens();
  };
  stripEnds();
  drawAll();
  window.addEventListener("resize", drawAll);
  window.addEventListener("load", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  const first = places.find(([, part]) => part.state === "damaged") || places[0];
  if (first) choose(first[0], first[1], findingAt(first[0], first[1]));
  else if (segments.length) choose(segments[0], null);
  if (!first && data.findings.length && data.findings[0].severity === "damage") mark(0);
})();
