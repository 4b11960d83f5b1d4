// Sorting and searching of the tables of videos. Without it the worst verdicts stand first and all else is there.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const value = (row, i) => {
    const text = row.cells[i].dataset.value ?? row.cells[i].textContent.trim(), number = parseFloat(text);
    return Number.isNaN(number) || i === 0 ? text : number;
  };
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const order = (a, b) => typeof a === "number" && typeof b === "number"
        ? a - b : String(a).localeCompare(String(b), undefined, {numeric: true});
      const rows = [...body.rows].map(row => [value(row, i), row]);
      rows.sort((a, b) => up ? order(a[0], b[0]) : order(b[0], a[0]));
      body.append(...rows.map(pair => pair[1]));
    });
  });
  const tools = document.createElement("div"), search = document.createElement("input");
  const label = document.createElement("label"), only = document.createElement("input"), shown = document.createElement("span");
  tools.className = "tools";
  search.type = "search";
  search.placeholder = "part of a name";
  search.setAttribute("aria-label", "part of a video's name");
  only.type = "checkbox";
  label.append(only, " wrong verdicts alone");
  tools.append(search, label, shown);
  table.closest(".scroll").before(tools);
  const pick = () => {
    const asked = search.value.toLowerCase();
    let count = 0;
    for (const row of body.rows) {
      row.hidden = (only.checked && !row.classList.contains("wrong")) || !row.cells[0].textContent.toLowerCase().includes(asked);
      count += !row.hidden;
    }
    shown.textContent = `${count} shown`;
  };
  search.addEventListener("input", pick);
  only.addEventListener("change", pick);
  pick();
}
