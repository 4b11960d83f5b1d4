// One file, opened: where the faces are, how suspicious each frame is, where the model looked, what to do.

import { ask } from "./server.js";
import { el, many, percent, prob, svg } from "./words.js";

export async function showDetail(cell, id, batch, page) {
  let row;
  try { row = await ask(`/rows/${id}`); } catch (error) { cell.textContent = error.message; return; }
  const said = row.record;
  if (!said) { cell.replaceChildren(row.note ?? "No verdict yet."); return; }
  const right = el("div", {}, ...facts(row, said, batch));
  cell.replaceChildren(el("div", { className: "look" }, preview(row, said), right));
  if (said.faces.length && said.faces[0].frames.length > 1) right.append(timeline(row, said, batch));
  if (row.pictures.crops.length) right.append(crops(row, said, batch));
  if (said.faces.length > 1) right.append(faces(said));
  if (said.stability) right.append(stability(said, batch));
  right.append(wrong(row, page));
  if (row.evidence) right.append(evidence(row));
}

const unit = (said) => (said.kind === "video" ? "frame" : said.frames_read > 1 ? "page" : ""); // of a TIFF
const place = (said, number) => (unit(said) === "page" ? `page ${number + 1}` : unit(said) && `frame ${number}`);
const upper = (word) => word[0].toUpperCase() + word.slice(1);
const picture = (row, name) => `/rows/${row.id}/pictures/${name}`;

function preview(row, said) {
  const { preview: name, width, height, frame } = row.pictures;
  if (!name) return el("p", { className: "soft" }, "There is no picture of it.");
  const figure = el("figure", { className: "preview" });
  const holder = el("div", { className: "preview" }, el("img", { src: picture(row, name), alt: unit(said) ? `${upper(place(said, frame))} of ${row.name}` : row.name }));
  const boxes = said.faces.map((face) => face.frames.find((one) => one.frame === frame)?.box ?? null);
  if (boxes.some(Boolean)) {
    const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    boxes.forEach((box, i) => {
      if (!box) return;
      const [left, top, right, bottom] = box;
      drawn.append(svg("rect", { x: left, y: top, width: right - left, height: bottom - top }));
      if (boxes.length > 1) drawn.append(svg("text", { x: left, y: top - height / 80, "font-size": height / 16 }, `${i + 1}`));
    });
    holder.append(drawn);
  }
  const shown = boxes.filter(Boolean).length;
  const what = unit(said) ? `${upper(place(said, frame))}, the most suspicious one` : `${width} x ${height} pixels`;
  figure.append(holder, el("figcaption", {}, shown ? `${what}; ${many(shown, "face")} framed` : what));
  return figure;
}

function facts(row, said, batch) {
  const rows = [];
  const add = (name, value) => value && rows.push(el("dt", {}, name), el("dd", {}, value));
  add("Verdict", said.reasons.length ? `${said.verdict}: ${said.reasons.join("; ")}` : said.verdict);
  if (said.score !== null) {
    add("Probability of fake", said.calibrated === null ? prob(said.score) : `${prob(said.calibrated)} calibrated, ${prob(said.score)} raw`);
  }
  add("Threshold", `${prob(said.threshold)}, ${said.threshold_source}`);
  if (said.any_face) {
    const rate = said.any_face.false_positive_rate;
    add("Any face", `${said.any_face.verdict}, ${prob(said.any_face.prob)}: the most suspicious of ${said.any_face.faces}` +
      (rate === null ? "" : `; so many real faces would be called fake in ${percent(rate)} of files`));
  }
  if (unit(said)) {
    add(`${upper(unit(said))}s`, `${said.frames_read} looked at, ${said.frames_without_face} without a face, ${said.frames_undecodable} undecodable`);
  }
  add("SHA-256", said.sha256);
  add("Judged by", `${batch.about.weights} (${batch.about.sha256.slice(0, 12)}), ${batch.about.faces}`);
  return [el("dl", {}, ...rows)];
}

function timeline(row, said, batch) {
  const frames = said.faces[0].frames, height = 60;
  const chart = svg("svg", { class: "timeline", viewBox: `0 0 ${frames.length} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": `Probability of fake over ${frames.length} frames` });
  const bars = frames.map((one, i) => {
    const tall = Math.max(1, one.prob * height);
    const side = one.prob > batch.about.raw_threshold ? "fake" : "real";
    const bar = svg("rect", { x: i + 0.1, y: height - tall, width: 0.8, height: tall, class: side });
    chart.append(bar);
    return bar;
  });
  const y = height * (1 - batch.about.raw_threshold);
  chart.append(svg("line", { x1: 0, x2: frames.length, y1: y, y2: y }));
  const image = el("img", { alt: "", width: 112, height: 112 });
  const text = el("span", { role: "status" });
  const scrub = el("input", { type: "range", className: "scrub", min: 0, max: frames.length - 1, value: 0, "aria-label": "Frame" });
  const choose = (i) => {
    bars.forEach((bar, j) => bar.classList.toggle("chosen", i === j));
    scrub.value = i;
    const name = row.pictures.crops.find((crop) => crop.face === 0 && crop.frame === frames[i].frame)?.image;
    image.hidden = !name;
    if (name) image.src = picture(row, name);
    text.textContent = `frame ${frames[i].frame}: ${prob(frames[i].prob)}`;
    scrub.setAttribute("aria-valuetext", text.textContent);
  };
  scrub.oninput = () => choose(Number(scrub.value));
  chart.onpointermove = (event) => {
    const box = chart.getBoundingClientRect();
    choose(Math.min(frames.length - 1, Math.max(0, Math.floor((frames.length * (event.clientX - box.left)) / box.width))));
  };
  choose(Math.max(0, frames.findIndex((one) => one.frame === row.pictures.frame)));
  const part = el("div", { className: "part" }, el("h3", {}, "Over the frames"), chart, scrub,
    el("div", { className: "crop" }, el("span", { className: "stack" }, image), text));
  part.style.maxWidth = `${Math.max(130, 34 * frames.length)}px`; // a few frames are no wall of colour
  return part;
}

function crops(row, said, batch) {
  const looked = row.pictures.crops.filter((crop) => crop.heat);
  const shown = looked.length ? looked : row.pictures.crops.slice(0, 6);
  const list = shown.map((crop) => {
    const stack = el("span", { className: "stack" }, el("img", { src: picture(row, crop.image), alt: "", width: 112, height: 112 }));
    const words = [said.faces.length > 1 ? `face ${crop.face + 1}` : "", place(said, crop.frame), prob(crop.prob)];
    const text = words.filter(Boolean).join(", ");
    if (!crop.heat) return el("div", { className: "crop" }, stack, text);
    stack.append(el("img", { className: "heat", src: picture(row, crop.heat), alt: "", width: 112, height: 112 }));
    const button = el("button", { type: "button", className: "crop", "aria-pressed": "false" }, stack, text);
    button.setAttribute("aria-label", `Where the model looked: ${text}`);
    button.onclick = () => button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    return button;
  });
  const title = looked.length ? "What was judged; point at one to see where the model looked" : "What was judged";
  const figure = looked.length && batch.about.heat ? el("p", { className: "figure" }, upper(batch.about.heat)) : null;
  return el("div", { className: "part" }, el("h3", {}, title), el("div", { className: "crops" }, ...list), figure ?? "");
}

function faces(said) {
  const lines = said.faces.map((face, i) => el("tr", {}, el("th", { scope: "row" }, `face ${i + 1}`), el("td", {}, face.verdict),
    el("td", {}, prob(face.calibrated ?? face.prob)), el("td", {}, unit(said) === "page" ? place(said, face.frames[0].frame) : many(face.frames.length, "frame"))));
  return el("div", { className: "part" }, el("h3", {}, "Faces, the largest first; it decides"), el("table", { className: "small" }, el("tbody", {}, ...lines)));
}

function stability(said, batch) {
  const { same, deliveries, frames } = said.stability;
  const lines = Object.entries(deliveries).map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name),
    el("td", {}, value === null ? "no face" : prob(value)), el("td", {}, value === null ? "" : value > batch.about.raw_threshold ? "fake" : "real")));
  const title = same === null ? "As platforms would deliver it" : `As platforms would deliver it: ${percent(same)} keep the verdict (${many(frames, "frame")})`;
  return el("div", { className: "part" }, el("h3", {}, title), el("table", { className: "small" }, el("tbody", {}, ...lines)));
}

function evidence(row) {
  const link = (kind, text) => el("a", { href: `/rows/${row.id}/evidence.${kind}`, download: "" }, text);
  return el("p", { className: "part" }, "What the verdict rests on: ", link("html", "evidence to print"), " ", link("json", "the same as JSON"));
}

function wrong(row, page) {
  const told = el("span", { role: "status", className: "soft" });
  const box = el("div", { className: "part wrong" });
  const set = async (label) => {
    try {
      const { path } = await ask(`/rows/${row.id}/label`, "PUT", { label });
      row.label = label;
      draw();
      told.textContent = path ? `Put into ${path}` : "Taken back";
      page.poll();
    } catch (error) { told.textContent = error.message; }
  };
  const draw = () => {
    const buttons = row.label
      ? [`Corrected: ${row.label}. `, el("button", { type: "button", onclick: () => set(null) }, "Undo")]
      : ["This is wrong:", ...["real", "fake"].filter((label) => label !== row.verdict).map((label) =>
        el("button", { type: "button", onclick: () => set(label) }, `it is ${label}`))];
    box.replaceChildren(...buttons, told);
  };
  draw();
  if (!row.kept && !row.label) {
    box.querySelectorAll("button").forEach((button) => { button.disabled = true; });
    told.textContent = "To correct it, drop the file again: it is not kept any more.";
  }
  return box;
}
