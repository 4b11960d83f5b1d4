// Small helpers for elements and numbers. Text from files only ever becomes text, never markup.

export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role" || key === "for") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const byId = (id) => document.getElementById(id);
export const prob = (value) => (value === null || value === undefined ? "" : value.toFixed(4));
export const percent = (value) => (value === null || value === undefined ? "" : `${Math.round(100 * value)} %`);
export const many = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
export const when = (text) => new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

export function left(seconds) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s left`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min left` : `${Math.floor(minutes / 60)} h ${minutes % 60} min left`;
}
