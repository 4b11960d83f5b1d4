// What was dropped or chosen, folders walked through, as files with their paths.

const hidden = (path) => path.split("/").some((part) => part.startsWith("."));

export function fromInput(input) {
  const found = [...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
  return found.filter(({ name }) => !hidden(name));
}

// The entries must be taken before the first await: after it the browser has emptied the list.
export async function fromTransfer(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found = [];
  for (const entry of entries) if (entry) await walk(entry, "", found);
  return found.filter(({ name }) => !hidden(name));
}

async function walk(entry, above, found) {
  if (entry instanceof File) found.push({ file: entry, name: entry.name });
  else if (entry.isFile) {
    try { found.push({ file: await new Promise((yes, no) => entry.file(yes, no)), name: above + entry.name }); }
    catch { found.push({ file: null, name: above + entry.name }); }
  } else {
    const reader = entry.createReader(), children = [];
    for (;;) { // a reader gives a hundred at a time
      const part = await new Promise((yes, no) => reader.readEntries(yes, no));
      if (!part.length) break;
      children.push(...part);
    }
    children.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
    for (const child of children) await walk(child, `${above}${entry.name}/`, found);
  }
}
