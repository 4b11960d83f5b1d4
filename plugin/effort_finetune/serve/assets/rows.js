// The table of one batch: a header that folds, sorted rows, one of which may be open.

import { el, many, percent, prob, when } from "./words.js";
import { showDetail } from "./detail.js";

const OPEN = { expected: "expected", waiting: "waiting", scoring: "reading" };
const COLUMNS = [["verdict", "Verdict"], ["prob", "Fake"], ["name", "File"], ["faces", "Faces"], ["same", "Stable"], ["", "Why"]];
const RANK = { fake: 0, unsure: 1, real: 2 };

export const isOpen = (row) => row.state in OPEN;

export class BatchView {
  constructor(batch, page) {
    this.batch = batch;
    this.page = page;
    this.rows = new Map();
    this.shown = new Map(); // row -> its <tr>
    this.detail = null; // { id, tr }
    this.make();
  }

  make() {
    const { id, started } = this.batch;
    this.fold = el("button", { type: "button", "aria-expanded": "false", "aria-controls": `batch_${id}`, onclick: () => this.toggle() });
    this.counts = el("span", { className: "counts" });
    this.shares = el("div", { className: "shares", role: "img" });
    const remove = el("button", { type: "button", onclick: () => this.page.removeBatch(this) }, "Remove");
    remove.setAttribute("aria-label", `Remove batch ${id}, its pictures and files`);
    this.actions = el("div", { className: "actions" },
      el("a", { href: `/records.csv?batch=${id}`, download: "", "aria-label": `CSV of batch ${id}` }, "CSV"),
      el("a", { href: `/records.json?batch=${id}`, download: "", "aria-label": `JSON of batch ${id}` }, "JSON"), remove);
    this.heads = COLUMNS.map(([key, title]) => el("th", { scope: "col" },
      key ? el("button", { type: "button", onclick: () => this.page.sortBy(key) }, title) : title));
    this.body = el("tbody", { onkeydown: (event) => this.onKey(event) });
    this.table = el("table", { className: "rows", id: `batch_${id}`, hidden: true },
      el("caption", { className: "unseen" }, `Files of batch ${id}`), el("thead", {}, el("tr", {}, ...this.heads)), this.body);
    this.title = `Batch ${id}, ${when(started)}`;
    this.section = el("section", { className: "batch" },
      el("header", {}, el("h2", {}, this.fold), this.counts, this.shares, this.actions), this.table);
    this.section.setAttribute("aria-label", this.title);
  }

  get open() { return !this.table.hidden; }

  toggle(open = !this.open) {
    this.table.hidden = !open;
    this.fold.setAttribute("aria-expanded", String(open));
    this.render();
  }

  update(row) {
    const before = this.rows.get(row.id);
    this.rows.set(row.id, row);
    const tr = this.shown.get(row.id);
    if (tr) this.fill(tr, row);
    if (this.detail?.id === row.id && before && before.state !== row.state) this.look(row.id);
  }

  removeRow(id) {
    this.rows.delete(id);
    this.shown.get(id)?.remove();
    this.shown.delete(id);
    if (this.detail?.id === id) this.close();
  }

  render() {
    const all = [...this.rows.values()];
    const count = { real: 0, fake: 0, unsure: 0 };
    let open = 0;
    for (const row of all) {
      if (isOpen(row)) open += 1;
      else count[row.verdict ?? "unsure"] += 1;
    }
    this.fold.textContent = `${this.title}: ${many(all.length, "file")}`;
    const said = Object.entries(count).map(([verdict, number]) => `${number} ${verdict}`).join(", ");
    this.counts.textContent = open ? `${said}, ${open} to come` : said;
    this.shares.setAttribute("aria-label", said);
    this.shares.replaceChildren(...["fake", "unsure", "real"].map((verdict) => {
      const part = el("i", { className: verdict });
      part.style.flexGrow = count[verdict];
      return part;
    }), Object.assign(el("i"), {}));
    this.shares.lastChild.style.flexGrow = open;
    if (this.open) this.place(all);
  }

  place(all) {
    const { filter, sort } = this.page;
    const wanted = all.filter(filter).sort(compare(sort));
    this.heads.forEach((head, i) => {
      const key = sort.replace("-", "");
      if (COLUMNS[i][0] === key) head.setAttribute("aria-sort", sort.startsWith("-") ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const order = [];
    for (const row of wanted) {
      let tr = this.shown.get(row.id);
      if (!tr) {
        tr = this.line(row);
        this.shown.set(row.id, tr);
        this.fill(tr, row);
      }
      order.push(tr);
      if (this.detail?.id === row.id) order.push(this.detail.tr);
    }
    // Moves only what is not in its place: a focused button keeps its focus.
    order.forEach((tr, i) => { if (this.body.children[i] !== tr) this.body.insertBefore(tr, this.body.children[i] ?? null); });
    while (this.body.children.length > order.length) this.body.lastChild.remove();
  }

  line(row) {
    const cell = (name, label) => el("td", { className: name, "data-label": label });
    const button = el("button", { type: "button", "aria-expanded": "false", onclick: () => this.look(row.id, true) });
    const name = el("td", { className: "name" }, button, el("span", { className: "marked" }));
    return el("tr", { className: "row", "data-row": row.id }, cell("said", ""), cell("prob", "fake"), name, cell("faces", "faces"), cell("same", "stable"), cell("why", ""));
  }

  fill(tr, row) {
    const [said, number, name, faces, same, why] = tr.children;
    const open = isOpen(row);
    if (open) this.fillOpen(said, row);
    else {
      const word = row.verdict ?? "unsure";
      said.replaceChildren(el("span", { className: `verdict ${word}` }, word));
    }
    number.textContent = prob(row.prob);
    name.firstChild.textContent = row.name;
    name.lastChild.textContent = row.label ? `corrected: ${row.label}` : "";
    faces.textContent = open || !row.faces ? "" : row.faces;
    same.textContent = percent(row.same);
    why.textContent = row.note ?? (row.reasons ?? []).join("; ");
  }

  fillOpen(said, row) {
    const sent = this.page.sending.part.get(row.id);
    if (row.state === "expected" && sent !== undefined) {
      const bar = el("progress", { max: 1, value: sent });
      bar.setAttribute("aria-label", `sent of ${row.name}`);
      said.replaceChildren(el("span", { className: "verdict open" }, bar));
      return;
    }
    const read = row.state === "scoring" ? this.page.framesRead[row.id] : 0;
    const word = read > 1 ? `${read} frames` : row.state === "expected" && this.page.sending.held.has(row.id) ? "queued" : OPEN[row.state];
    said.replaceChildren(el("span", { className: "verdict open" }, word));
  }

  async look(id, toggle = false) {
    const wasOpen = this.detail?.id === id;
    this.close();
    if (toggle && wasOpen) return;
    const tr = this.shown.get(id);
    if (!tr) return;
    tr.querySelector(".name button").setAttribute("aria-expanded", "true");
    const cell = el("td", { colSpan: COLUMNS.length }, "loading");
    this.detail = { id, tr: el("tr", { className: "detail" }, cell) };
    tr.after(this.detail.tr);
    await showDetail(cell, id, this.batch, this.page);
  }

  close() {
    if (!this.detail) return;
    this.shown.get(this.detail.id)?.querySelector(".name button").setAttribute("aria-expanded", "false");
    this.detail.tr.remove();
    this.detail = null;
  }

  onKey(event) {
    if (event.key === "Escape" && this.detail) {
      const button = this.shown.get(this.detail.id)?.querySelector(".name button");
      this.close();
      button?.focus();
      event.preventDefault();
    }
    if (!["ArrowDown", "ArrowUp"].includes(event.key) || !event.target.closest(".name")) return;
    const buttons = [...this.body.querySelectorAll(".name button")];
    const next = buttons[buttons.indexOf(event.target) + (event.key === "ArrowDown" ? 1 : -1)];
    if (next) { next.focus(); event.preventDefault(); }
  }
}

function compare(sort) {
  if (sort === "order") return (a, b) => a.id - b.id;
  const key = sort.replace("-", ""), sign = sort.startsWith("-") ? -1 : 1;
  return (a, b) => {
    const [x, y] = [value(a, key), value(b, key)];
    if (x === null || y === null) return (x === null) - (y === null) || a.id - b.id; // what is not known comes last
    const order = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
    return sign * order || a.id - b.id;
  };
}

const value = (row, key) => (key === "verdict" ? RANK[row.verdict] ?? null : row[key] ?? null);
