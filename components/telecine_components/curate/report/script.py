"""The page's script: filter, search, sort, and make the cards of one page only, so that many thousands stay quick.

Everything that comes from a manifest reaches the document as text (``textContent``), never as markup.
"""

SCRIPT = r"""
"use strict";
const PAGE = 24;
const at = (id) => document.getElementById(id);
const data = JSON.parse(at("data").textContent);
const clips = data.rows.map((cells, index) => {
  const clip = { index, poster: data.posters[index] };
  data.columns.forEach((name, place) => { clip[name] = cells[place]; });
  return clip;
});
const byId = new Map(clips.filter((clip) => clip.clip_id !== null).map((clip) => [clip.clip_id, clip]));
const state = { show: "all", text: "", sort: "", isTurned: false, page: 0 };
let found = clips;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function isShown(clip) {
  if (state.show === "kept") return clip.clip_id !== null && clip.group === null;
  if (state.show === "rejected") return clip.clip_id !== null && clip.group !== null;
  if (state.show === "bad") return clip.clip_id === null;
  return state.show === "all" || state.show === `g${clip.group}`;
}

function haystack(clip) {
  if (clip.haystack === undefined) {
    const told = [clip.source, clip.clip_id, clip.shot_id, clip.caption, clip.licence, clip.consent, clip.reason,
      clip.codec, ...Object.values(clip.captions || {})];
    clip.haystack = told.filter(Boolean).join("\n").toLowerCase();
  }
  return clip.haystack;
}

function find() {
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  found = clips.filter((clip) => isShown(clip) && words.every((word) => haystack(clip).includes(word)));
  const place = data.measures.findIndex((measure) => measure.name === state.sort);
  const sign = state.isTurned ? -1 : 1;
  if (place >= 0) {
    const value = (clip) => clip.values[place] ?? null;  // what was not measured comes last, both ways
    const isMissing = (clip) => Number(value(clip) === null);
    found.sort((a, b) => isMissing(a) - isMissing(b) || sign * (value(a) - value(b)) || a.index - b.index);
  } else if (state.isTurned) {
    found.reverse();
  }
}

function draw() {
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  state.page = Math.min(Math.max(state.page, 0), pages - 1);
  const first = state.page * PAGE;
  const shown = found.slice(first, first + PAGE);
  at("list").replaceChildren(...shown.map(card));
  at("none").hidden = found.length > 0;
  const span = found.length ? `${first + 1}\u2013${first + shown.length} of ` : "";
  at("place").textContent = `${span}${found.length.toLocaleString("en")}`;
  at("before").disabled = state.page === 0;
  at("after").disabled = state.page === pages - 1;
}

function change(values) {
  Object.assign(state, { page: 0 }, values);
  at("show").value = state.show;
  at("search").value = state.text;
  at("sort").value = state.sort;
  at("turn").textContent = state.sort ? (state.isTurned ? "highest first" : "lowest first") :
    (state.isTurned ? "last to first" : "first to last");
  at("turn").setAttribute("aria-pressed", String(state.isTurned));
  find();
  draw();
}

function card(clip) {
  const node = element("li", undefined, "card");
  node.tabIndex = 0;
  node.dataset.index = clip.index;
  const isClip = clip.clip_id !== null;
  if (clip.poster) {
    const picture = element("img");
    picture.alt = `Frames of ${clip.source}`;
    picture.decoding = "async";
    picture.src = clip.poster;
    node.append(picture);
  }
  const head = element("p");
  const says = (clip.reason === null ? "kept" : isClip ? clip.reason.replaceAll("_", " ") : "no clip");
  head.append(element("span", says, clip.reason === null ? "badge is-kept" : "badge"), element("b", clip.source));
  if (isClip) head.append(element("span", ` ${span(clip)}`, "quiet"));
  node.append(head);
  if (!isClip) { node.append(element("p", clip.reason || "unknown")); return node; }
  if (clip.duplicate_of) node.append(original(clip));
  if (clip.caption) node.append(element("p", clip.caption));
  node.append(scores(clip), details(clip));
  return node;
}

function original(clip) {
  const line = element("p", "the same as ");
  const other = byId.get(clip.duplicate_of);
  if (!other) { line.append(element("code", clip.duplicate_of)); return line; }
  const link = element("button", `${other.source} ${span(other)}`, "plain");
  link.type = "button";
  link.addEventListener("click", () => { change({ show: "all", text: other.clip_id }); goTo(0); });
  line.append(link);
  return line;
}

function clock(seconds) {
  const rest = (seconds % 60).toFixed(2).padStart(5, "0");
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes}:${rest}` :
    `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

function span(clip) {
  return `${clock(clip.start_s)}\u2013${clock(clip.end_s)}`;
}

function scores(clip) {
  const list = element("div", undefined, "scores");
  data.measures.forEach((measure, place) => {
    const value = clip.values[place];
    if (value === null) return;
    const isBroken = (measure.low !== null && value < measure.low) || (measure.high !== null && value > measure.high);
    const line = element("div", undefined, isBroken ? "score breaks" : "score");
    const track = element("div", undefined, "track");
    const fill = element("div", undefined, "fill");
    fill.style.width = share(value, measure);
    track.append(fill);
    for (const limit of [measure.low, measure.high]) {
      if (limit === null || limit > measure.top) continue;
      const tick = element("div", undefined, "tick");
      tick.style.left = share(limit, measure);
      track.append(tick);
    }
    const name = measure.name.replaceAll("_", " ");
    line.title = `${name} ${value}` + (measure.low === null ? "" : `, min ${measure.low}`) +
      (measure.high === null ? "" : `, max ${measure.high}`);
    line.append(element("span", name), track, element("b", short(value)));
    list.append(line);
  });
  return list;
}

function short(value) {
  const digits = Math.abs(value) < 0.1 ? value.toFixed(4) : value.toPrecision(3);
  return String(Number(digits));
}

function share(value, measure) {
  const reached = (value - measure.bottom) / (measure.top - measure.bottom);
  return `${(100 * Math.min(Math.max(reached, 0), 1)).toFixed(1)}%`;
}

function details(clip) {
  const box = element("details");
  box.append(element("summary", "larger, with captions, rights and provenance"));
  box.addEventListener("toggle", () => {
    if (box.children.length === 1) box.append(facts(clip));
    box.closest("li").scrollIntoView({ block: "nearest" });
  });
  return box;
}

function facts(clip) {
  const list = element("dl");
  const tell = (name, value, isCode) => {
    if (value === null || value === undefined || value === "") return;
    const told = element("dd");
    told.append(isCode ? element("code", value) : document.createTextNode(value));
    list.append(element("dt", name.replaceAll("_", " ")), told);
  };
  for (const [part, text] of Object.entries(clip.captions || {})) tell(part, text);
  tell("captioner", clip.captioner);
  tell("licence", clip.licence || "unknown");
  tell("consent", clip.consent || "unknown");
  tell("frames", `${clip.start_frame}\u2013${clip.end_frame} at ${Number((clip.fps || 0).toFixed(3))} per second`);
  tell("picture", `${clip.width_px}\u00d7${clip.height_px}` + (clip.codec ? `, ${clip.codec}` : ""));
  tell("begins_with", clip.begins_with);
  tell("ends_with", clip.ends_with);
  tell("cluster", clip.cluster);
  tell("clip", clip.clip_id, true);
  tell("shot", clip.shot_id, true);
  tell("SHA-256 of the file", clip.source_digest, true);
  for (const place of clip.stages) {
    const stage = data.stages[place];
    tell(stage.name, `${stage.version.slice(0, 12)} ${stage.settings}`, true);
  }
  return list;
}

function goTo(place) {
  const card = at("list").children[place];
  if (card) { card.focus(); card.scrollIntoView({ block: "nearest" }); }
}

function turnPage(step) {
  state.page += step;
  draw();
  at("clips").scrollIntoView();
}

let timer = 0;
at("search").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(() => change({ text: at("search").value }), 120);
});
at("tools").addEventListener("submit", (event) => event.preventDefault());
at("show").addEventListener("change", () => change({ show: at("show").value }));
at("sort").addEventListener("change", () => change({ sort: at("sort").value }));
at("turn").addEventListener("click", () => change({ isTurned: !state.isTurned }));
at("before").addEventListener("click", () => turnPage(-1));
at("after").addEventListener("click", () => turnPage(1));
for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => { change({ show: button.dataset.show }); at("clips").scrollIntoView(); });
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const cards = [...at("list").children];
  const now = cards.indexOf(document.activeElement.closest("#list > li"));
  if (event.key === "/") { event.preventDefault(); at("search").focus(); }
  else if (event.key === "ArrowLeft" && !at("before").disabled) turnPage(-1);
  else if (event.key === "ArrowRight" && !at("after").disabled) turnPage(1);
  else if (event.key === "j") goTo(Math.min(now + 1, cards.length - 1));
  else if (event.key === "k") goTo(Math.max(now - 1, 0));
  else if (event.key === "Enter" && cards[now] === event.target) {
    const box = event.target.querySelector("details");
    if (box) box.open = !box.open;
  }
});
change({});
"""
