// The page: takes what is dropped, asks what changed, keeps the batches in order.

import { ask } from "./server.js";
import { fromInput, fromTransfer } from "./dropped.js";
import { Sending } from "./sending.js";
import { BatchView, isOpen } from "./rows.js";
import { byId, el, left, many, prob } from "./words.js";

const BUSY = 700, IDLE = 5000, AT_ONCE = 10000; // milliseconds; files in one announcement

class Page {
  constructor() {
    this.views = new Map();
    this.revision = 0;
    this.start = null;
    this.framesRead = {};
    this.finished = []; // [time, finished rows], for the time left
    this.sort = "order";
    this.sending = new Sending((row) => this.refill(row), (text) => this.trouble(text));
    this.timer = null;
    this.polling = false;
  }

  get rows() { return [...this.views.values()].flatMap((view) => [...view.rows.values()]); }

  filter = (row) => {
    const shown = byId("shown").value, part = byId("search").value.toLowerCase();
    if (part && !row.name.toLowerCase().includes(part)) return false;
    if (shown === "open") return isOpen(row);
    if (shown === "corrected") return Boolean(row.label);
    if (shown === "scored") return row.status === "scored";
    return shown === "all" || (!isOpen(row) && (row.verdict ?? "unsure") === shown);
  };

  async take(found) {
    const files = found.filter(({ file }) => file), lost = found.length - files.length;
    this.trouble(lost ? `${many(lost, "file")} could not be opened by the browser.` : "");
    const stability = byId("stability").checked;
    for (let i = 0; i < files.length; i += AT_ONCE) {
      const part = files.slice(i, i + AT_ONCE);
      try {
        const listed = part.map(({ file, name }) => ({ name, size: file.size }));
        const { rows } = await ask("/batches", "POST", { files: listed, stability });
        rows.forEach((row, j) => this.sending.add(row, part[j].file));
      } catch (error) { this.trouble(error.message); return; }
    }
    await this.poll();
  }

  async poll() {
    if (this.polling) return;
    this.polling = true;
    clearTimeout(this.timer);
    let wait = IDLE;
    try {
      const state = await ask(`/state?since=${this.revision}`);
      if (this.start !== null && state.start !== this.start) return this.restarted(state);
      this.take_in(state);
      if (this.away || state.trouble) this.trouble(state.trouble ?? "");
      this.away = Boolean(state.trouble);
      wait = this.rows.some((row) => isOpen(row) && (row.state !== "expected" || this.sending.held.has(row.id))) && !document.hidden ? BUSY : IDLE;
    } catch (error) {
      this.away = true;
      this.trouble(error.status ? error.message : "The server does not answer. Start it again: what it has finished is kept, the rest is sent again.");
      wait = 2 * BUSY;
    } finally {
      this.polling = false;
      this.timer = setTimeout(() => this.poll(), wait);
    }
  }

  restarted(state) {
    this.start = state.start;
    this.revision = 0;
    for (const view of this.views.values()) view.section.remove();
    this.views.clear();
    this.resend = true;
    setTimeout(() => this.poll());
  }

  take_in(state) {
    const first = this.start === null;
    this.start = state.start;
    this.revision = state.revision;
    this.framesRead = state.frames_read;
    if (first) this.introduce(state);
    this.keep(state.batches);
    for (const row of state.rows) {
      this.views.get(row.batch)?.update(row);
      if (!isOpen(row)) this.sending.drop(row.id);
    }
    // A row that another window removed: what is here does not count up any more.
    if (state.batches.some((batch) => this.views.get(batch.id).rows.size !== batch.rows)) { this.start = this.start + "?"; return; }
    if (this.resend) {
      this.resend = false;
      this.sending.again(this.rows.filter((row) => row.state === "expected").map((row) => row.id));
    }
    this.render();
  }

  keep(batches) {
    const there = new Set(batches.map((batch) => batch.id));
    for (const [id, view] of this.views) if (!there.has(id)) { view.section.remove(); this.views.delete(id); }
    for (const batch of [...batches].reverse()) {
      if (this.views.has(batch.id)) continue;
      const view = new BatchView(batch, this);
      this.views.set(batch.id, view);
      byId("batches").prepend(view.section);
      if (batch.id === batches[0].id) {
        for (const other of this.views.values()) if (other !== view && other.open && !other.detail) other.toggle(false);
        view.toggle(true);
      }
    }
  }

  introduce({ about, corrections }) {
    byId("weights").textContent = about.weights;
    byId("corrections").textContent = corrections;
    const lines = [["Weights", `${about.weights}, SHA-256 ${about.sha256}`], ["Cut", about.faces], ["Threshold", `${prob(about.threshold)}: ${about.threshold_source}`],
      ["Calibrated", about.calibrated ? "yes" : "no: a probability here is a score, not a frequency"], ["Where it looked", about.heat ?? "not asked for"], ["Runs on", about.device], ["Version", about.version]];
    byId("judged_by").replaceChildren(...lines.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  }

  render() {
    const rows = this.rows, missing = rows.filter((row) => row.state === "expected" && !this.sending.held.has(row.id));
    const open = rows.filter(isOpen).length - missing.length, done = rows.length - open - missing.length;
    byId("all").hidden = !rows.length;
    byId("progress").hidden = !open;
    // Counted from the first file of the batches that are not finished, not from all that ever was.
    const current = [...this.views.values()].filter((view) => [...view.rows.values()].some((row) => isOpen(row) && !missing.includes(row)));
    const total = current.reduce((sum, view) => sum + view.rows.size, 0);
    byId("progress").value = total ? 1 - open / total : 1;
    byId("progress_text").textContent = open ? `${total - open} of ${total} files judged${this.rate(done, open)}` : `${many(done, "file")} judged`;
    this.showMissing(missing);
    for (const view of this.views.values()) view.render();
  }

  rate(done, open) {
    const now = performance.now() / 1000;
    this.finished.push([now, done]);
    while (this.finished.length > 2 && now - this.finished[0][0] > 30) this.finished.shift();
    const [[start, before]] = this.finished;
    const speed = (done - before) / (now - start);
    return speed > 0 ? `, ${speed.toFixed(speed < 10 ? 1 : 0)} a second, ${left(open / speed)}` : "";
  }

  showMissing(missing) {
    byId("again").hidden = !missing.length;
    byId("again_title").textContent = `${many(missing.length, "file")} did not arrive: the server or the page was closed before`;
    const names = missing.slice(0, 200).map((row) => el("li", {}, row.name));
    if (missing.length > 200) names.push(el("li", {}, `and ${missing.length - 200} more`));
    byId("again_names").replaceChildren(...names);
    byId("leave_out").onclick = async () => {
      for (const row of missing) {
        await ask(`/rows/${row.id}`, "DELETE").catch((error) => this.trouble(error.message));
        this.views.get(row.batch)?.removeRow(row.id);
      }
      this.poll();
    };
  }

  refill(id) {
    for (const view of this.views.values()) {
      const tr = view.shown.get(id), row = view.rows.get(id);
      if (tr && row) view.fill(tr, row);
    }
  }

  async removeBatch(view) {
    if (!confirm(`Remove ${view.title} with its ${many(view.rows.size, "row")}? Files that were corrected stay where they are.`)) return;
    for (const id of view.rows.keys()) this.sending.drop(id);
    await ask(`/batches/${view.batch.id}`, "DELETE").catch((error) => this.trouble(error.message));
    this.poll();
  }

  sortBy(key) {
    const first = ["prob", "faces"].includes(key) ? `-${key}` : key;
    this.sort = this.sort === first ? (first.startsWith("-") ? key : `-${key}`) : first;
    const select = byId("sort");
    select.value = this.sort; // empty where the list has no such entry, which is shown as it is
    this.render();
  }

  trouble(text) {
    byId("trouble").textContent = text;
    byId("trouble").hidden = !text;
  }
}

const page = new Page(), drop = byId("drop");
for (const id of ["files", "folder"]) byId(id).onchange = (event) => { page.take(fromInput(event.target)); event.target.value = ""; };
byId("sort").onchange = (event) => { page.sort = event.target.value; page.render(); };
byId("shown").onchange = byId("search").oninput = () => page.render();
// The whole window takes files: one that misses the frame must not replace the page.
addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  page.take(await fromTransfer(event.dataTransfer));
});
addEventListener("paste", async (event) => { if (event.clipboardData?.files.length) page.take(await fromTransfer(event.clipboardData)); });
addEventListener("beforeunload", (event) => { if (page.sending.queue.length || page.sending.active) event.preventDefault(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) page.poll(); });
page.poll();
