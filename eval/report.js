"use strict";
/* The browser of cases: a list that draws only the rows in sight, filters, and the chosen case with its answers.
   All that models and data say goes through textContent (report_viewer.js: make), never through HTML. */

const ROW = 78;
const MARKS = { right: "✓", wrong: "✗", partly: "≈", unparsed: "?", unmarked: "·" };
const WORDS = { right: "right", wrong: "wrong", partly: "partly right", unparsed: "unreadable", unmarked: "not marked" };
const DIMENSIONS = { "2d": "2D", "3d": "3D", video: "video", text: "text", mixed: "mixed" };
const FACETS = { kind: "kind", topic: "topic", dimension: "dimension", modality: "modality", source: "source" };
const SORTS = {
  "worst first": null,
  "lowest score": (a, b) => (a.worth ?? 2) - (b.worth ?? 2),
  "most confident first": (a, b) => (b.confidence ?? -1) - (a.confidence ?? -1),
  "longest answer": (a, b) => longest(b) - longest(a),
  topic: (a, b) => a.topic.localeCompare(b.topic),
  name: (a, b) => a.id.localeCompare(b.id, undefined, { numeric: true }),
};

const longest = (one) => Math.max(...one.answers.map((answer) => answer.text.length));
const spoken = (text) => text.replaceAll("_", " ");

function badge(verdict) {
  return make("span", { className: `badge ${verdict}` }, `${MARKS[verdict]} ${WORDS[verdict]}`);
}

class Browser {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.runs = data.runs;
    this.shown = data.cases;
    this.place = -1;
    this.tags = new Set();
    this.facets = {};
    this.query = "";
    this.sort = "worst first";
    this.find = (name) => root.querySelector(`[data-part="${name}"]`);
    this.list = this.find("list");
    this.spacer = make("div", { className: "spacer", role: "presentation" });
    this.list.replaceChildren(this.spacer);
    this.fillTools();
    this.listen();
    this.apply();
    this.openNamed();
  }

  fillTools() {
    const tags = this.find("tags");
    this.buttons = new Map();
    for (const [tag, name] of Object.entries(this.data.tags)) {
      if (!this.data.cases.some((one) => one.tags.includes(tag))) continue;
      const count = make("span", { className: "count" });
      const button = make(
        "button",
        { type: "button", className: "chip", "aria-pressed": "false", "data-tag": tag, onclick: () => this.toggle(tag) },
        name,
        count,
      );
      this.buttons.set(tag, { button, count });
      tags.append(button);
    }
    const selects = this.find("facets");
    for (const [key, name] of Object.entries(FACETS)) {
      const values = [...new Set(this.data.cases.map((one) => one[key]))].filter(Boolean).sort();
      if (values.length < 2) continue;
      const select = make(
        "select",
        { "data-facet": key, onchange: (event) => this.choose(key, event.target.value) },
        make("option", { value: "" }, `all (${values.length})`),
        ...values.map((value) => make("option", { value }, DIMENSIONS[value] && key === "dimension" ? DIMENSIONS[value] : spoken(value))),
      );
      selects.append(make("label", {}, name, select));
    }
    const sort = make("select", { "data-part": "sort", onchange: (event) => this.order(event.target.value) });
    for (const name of Object.keys(SORTS)) {
      if (name === "most confident first" && !this.data.cases.some((one) => one.confidence !== null)) continue;
      sort.append(make("option", { value: name }, name === "worst first" && this.runs.length > 1 ? "differing first" : name));
    }
    sort.firstChild.value = "worst first";
    selects.append(make("label", {}, "order", sort));
    selects.append(make("button", { type: "button", className: "plain", "data-part": "clear", onclick: () => this.clear() }, "Clear"));
  }

  listen() {
    const search = this.find("search");
    search.addEventListener("input", () => {
      this.query = search.value;
      this.apply();
    });
    search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "Enter") {
        event.preventDefault();
        this.list.focus();
        if (this.place < 0) this.select(0);
      }
    });
    this.list.addEventListener("scroll", () => requestAnimationFrame(() => this.draw()), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.list);
    this.list.addEventListener("click", (event) => {
      const row = event.target.closest("[data-place]");
      if (row) this.select(Number(row.dataset.place), true);
    });
    this.list.addEventListener("keydown", (event) => {
      const page = Math.max(1, Math.floor(this.list.clientHeight / ROW) - 1);
      const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.select(this.place + steps[event.key]);
    });
    document.addEventListener("keydown", (event) => {
      if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "/") {
        event.preventDefault();
        search.focus();
      }
      if (event.key === "j") this.select(this.place + 1);
      if (event.key === "k") this.select(this.place - 1);
    });
    window.addEventListener("hashchange", () => this.openNamed());
  }

  toggle(tag) {
    if (!this.tags.delete(tag)) this.tags.add(tag);
    this.apply();
  }

  choose(key, value) {
    this.facets[key] = value;
    this.apply();
  }

  order(name) {
    this.sort = name;
    this.apply();
  }

  clear() {
    this.tags.clear();
    this.facets = {};
    this.query = this.find("search").value = "";
    for (const select of this.root.querySelectorAll("[data-facet]")) select.value = "";
    this.apply();
  }

  wordsOf(one) {
    one.words ??= [
      one.id, one.question, one.topic, ...one.choices, ...one.reference, ...one.answers.map((answer) => answer.text),
    ].join("\n").toLowerCase();
    return one.words;
  }

  apply() {
    const chosen = this.shown[this.place];
    const wanted = this.query.toLowerCase().split(/\s+/).filter(Boolean);
    let found = this.data.cases.filter(
      (one) =>
        [...this.tags].every((tag) => one.tags.includes(tag)) &&
        Object.entries(this.facets).every(([key, value]) => !value || one[key] === value) &&
        (!wanted.length || wanted.every((word) => this.wordsOf(one).includes(word))),
    );
    if (SORTS[this.sort]) found = [...found].sort(SORTS[this.sort]);
    this.shown = found;
    const counts = new Map();
    for (const one of found) for (const tag of one.tags) counts.set(tag, (counts.get(tag) ?? 0) + 1);
    for (const [tag, { button, count }] of this.buttons) {
      count.textContent = (counts.get(tag) ?? 0).toLocaleString("en");
      button.setAttribute("aria-pressed", String(this.tags.has(tag)));
      button.disabled = !counts.has(tag) && !this.tags.has(tag);
    }
    const total = this.data.cases.length.toLocaleString("en");
    this.find("status").textContent = `${found.length.toLocaleString("en")} of ${total} cases`;
    this.spacer.style.height = `${found.length * ROW}px`;
    const still = found.indexOf(chosen);
    this.place = -1;
    this.list.scrollTop = still > 0 ? still * ROW : 0;
    this.draw();
    if (found.length) this.select(Math.max(0, still));
    else {
      this.list.removeAttribute("aria-activedescendant");
      this.find("detail").replaceChildren(make("p", { className: "soft" }, "No case fits. Clear a filter."));
    }
  }

  draw() {
    const first = Math.max(0, Math.floor(this.list.scrollTop / ROW) - 6);
    const last = Math.min(this.shown.length, Math.ceil((this.list.scrollTop + this.list.clientHeight) / ROW) + 6);
    const rows = [];
    for (let place = first; place < last; place++) rows.push(this.row(place));
    this.spacer.replaceChildren(...rows);
  }

  row(place) {
    const one = this.shown[place];
    const row = make(
      "div",
      {
        className: this.runs.length > 1 ? "row two-runs" : "row", role: "option", id: `case-${place}`, "data-place": String(place),
        "aria-selected": String(place === this.place), "aria-posinset": String(place + 1),
        "aria-setsize": String(this.shown.length),
      },
      make("span", { className: "marks" }, ...this.marksOf(one)),
      make("span", { className: "ask" }, one.question.split("\n")[0]),
      make("span", { className: "soft reply" }, "→ ", this.replyOf(one)),
      make(
        "span",
        { className: "soft line" },
        [DIMENSIONS[one.dimension], one.modality, spoken(one.topic)].filter(Boolean).join(" · "),
        one.media.length ? " · ▣" : "",
      ),
    );
    row.style.top = `${place * ROW}px`;
    return row;
  }

  replyOf(one) {
    const replies = this.runs.map((_, run) => {
      const answer = one.answers.find((other) => other.run === run);
      return (answer.value ?? answer.text).trim().split("\n")[0] || "(nothing)";
    });
    return replies.join(" | ");
  }

  marksOf(one) {
    const words = this.runs.map((_, run) => one.answers.find((answer) => answer.run === run).verdict);
    return words.map((word) => make("span", { className: `mark ${word}`, role: "img", "aria-label": WORDS[word] }, MARKS[word]));
  }

  select(place, byHand = false) {
    if (!this.shown.length) return;
    this.place = Math.min(this.shown.length - 1, Math.max(0, place));
    const top = this.place * ROW;
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    else if (top + ROW > this.list.scrollTop + this.list.clientHeight) this.list.scrollTop = top + ROW - this.list.clientHeight;
    this.draw();
    this.list.setAttribute("aria-activedescendant", `case-${this.place}`);
    this.open(this.shown[this.place]);
    if (byHand && getComputedStyle(this.root.querySelector(".panes")).getPropertyValue("--narrow").trim() === "1") {
      this.find("detail").scrollIntoView({ block: "start" });
    }
  }

  openNamed() {
    const match = /^#case=(.*)$/.exec(location.hash);
    if (!match) return;
    const name = decodeURIComponent(match[1]);
    let place = this.shown.findIndex((one) => one.id === name);
    if (place < 0) {
      this.clear();
      place = this.shown.findIndex((one) => one.id === name);
    }
    if (place < 0) return;
    this.select(place);
    this.root.scrollIntoView();
  }

  open(one) {
    const detail = this.find("detail");
    if (this.opened === one) return;
    this.opened = one;
    const long = one.kind === "report" || one.answers.some((answer) => answer.text.length > 400);
    const visuals = this.visuals(one);
    detail.replaceChildren(
      this.head(one),
      make(
        "div",
        { className: visuals.length ? "case with-visuals" : "case" },
        visuals.length ? make("div", { className: "left" }, ...visuals) : "",
        make("div", { className: "text" }, this.asked(one), ...this.told(one, long)),
      ),
    );
    detail.scrollTop = 0;
  }

  head(one) {
    const facts = [DIMENSIONS[one.dimension], one.modality, one.kind, one.topic === one.kind ? "" : spoken(one.topic), one.source];
    const step = (name, by) =>
      make("button", { type: "button", className: "plain", "aria-label": `${name} case`, onclick: () => this.select(this.place + by) }, by < 0 ? "↑" : "↓");
    return make(
      "header",
      {},
      make("div", { className: "soft" }, facts.filter(Boolean).join(" · ")),
      make("span", { className: "steps" }, make("a", { href: `#case=${encodeURIComponent(one.id)}`, title: "A link to this case" }, "link"), step("Previous", -1), step("Next", 1)),
      make("code", {}, one.id),
    );
  }

  visuals(one) {
    const shown = one.media.map((number, place) => {
      const about = this.data.media[number];
      const name = { picture: "Image", scan: about.shape && about.shape[0] > 1 ? "Scan" : "Image", clip: "Clip" }[about.type];
      const title = one.media.length > 1 ? `${name} ${place + 1} of ${one.media.length}` : name;
      return viewerOf(number, about, one.boxes, title, this.runs);
    });
    const missing = one.missing.map((reason) => make("p", { className: "soft" }, `Picture ${reason}`));
    return [...(shown.length ? [make("div", { className: "visuals" }, ...shown)] : []), ...missing];
  }

  asked(one) {
    const given = new Set(one.answers.filter((answer) => answer.condition === one.answers[0].condition).map((answer) => answer.value));
    const choices = one.choices.map((choice, place) => {
      const letter = String.fromCharCode(65 + place);
      const isRight = one.right.includes(place);
      const isGiven = given.has(choice.trim().toLowerCase());
      const says = [isRight ? "reference" : "", isGiven ? "answered" : ""].filter(Boolean).join(", ");
      return make(
        "li",
        { className: `${isRight ? "is-right" : ""} ${isGiven && !isRight ? "is-wrong" : ""}` },
        one.kind === "choice" ? `${letter}. ` : "",
        choice,
        says ? make("span", { className: "soft" }, ` — ${says}`) : "",
      );
    });
    return make(
      "section",
      { className: "asked" },
      make("h3", {}, "Question"),
      make("p", { className: "said" }, one.question),
      choices.length ? make("ul", { className: "choices" }, ...choices) : "",
    );
  }

  told(one, long) {
    const reference = make(
      "article",
      { className: "answer reference" },
      make("h3", {}, one.reference.length > 1 ? "Reference answers" : "Reference"),
      ...one.reference.map((text) => make("p", { className: "said" }, text)),
    );
    const conditions = [...new Set(one.answers.map((answer) => answer.condition))];
    if (this.runs.length > 1) {
      const pairs = conditions.map((condition) =>
        make(
          "div",
          { className: "beside" },
          ...one.answers.filter((answer) => answer.condition === condition).map((answer) => this.answer(one, answer)),
        ),
      );
      return [reference, ...pairs];
    }
    const [first, ...others] = one.answers.map((answer) => this.answer(one, answer));
    if (!long) return [make("div", { className: "answers" }, reference, first, ...others)];
    return [make("div", { className: "beside" }, reference, first), make("div", { className: "answers" }, ...others)];
  }

  answer(one, answer) {
    const condition = this.data.conditions[answer.condition];
    const title = this.runs.length > 1 ? `${"AB"[answer.run]}, ${condition}` : `Answer ${condition}`;
    const read = answer.value === null ? "nothing could be read" : answer.value === answer.text.trim() ? "read as it stands" : `read as “${answer.value}”`;
    const facts = [`${read} (rule ${answer.rule})`, one.kind === "closed" || one.kind === "choice" ? "" : answer.note];
    if (answer.value === null) facts[1] = answer.note;
    if (answer.confidence !== null) facts.push(`confidence ${(100 * answer.confidence).toFixed(0)} %`);
    if (answer.truncated) facts.push("cut off by the length limit");
    const marks = answer.marks.map(([what, value]) => make("tr", {}, make("th", { scope: "row" }, what), make("td", {}, value)));
    return make(
      "article",
      { className: `answer ${answer.verdict}`, "data-condition": answer.condition },
      make("h3", {}, make("span", { className: `dot c-${answer.condition}` }), title, " ", badge(answer.verdict)),
      make("p", { className: "said" }, answer.text.trim() ? answer.text : make("em", {}, "(nothing was written)")),
      answer.asked ? make("details", {}, make("summary", {}, "asked in other words"), make("p", { className: "said" }, answer.asked)) : "",
      answer.reference ? make("p", { className: "soft" }, `reference here: ${answer.reference.join("; ")}`) : "",
      make("p", { className: "soft" }, facts.filter(Boolean).join(" · ")),
      answer.flags.length ? make("p", { className: "soft" }, `degenerate: ${answer.flags.join("; ")}`) : "",
      marks.length ? make("details", {}, make("summary", {}, "marks"), make("table", {}, make("tbody", {}, ...marks))) : "",
    );
  }
}

async function start() {
  const root = document.getElementById("browser");
  if (!root) return;
  if (typeof DecompressionStream === "undefined") {
    root.querySelector('[data-part="detail"]').textContent = "This browser is too old to unpack the cases; use one of 2023 or later.";
    return;
  }
  const bytes = await unzipped(document.getElementById("cases-data").textContent);
  const browser = new Browser(root, JSON.parse(new TextDecoder().decode(bytes)));
  document.documentElement.dataset.cases = String(browser.data.cases.length);
  document.documentElement.dataset.usable = performance.now().toFixed(0);
}

start();
