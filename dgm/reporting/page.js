"use strict";
// Sorting by a click or a key on a column's title: first the smallest, then the largest, then as it was printed.
const numberIn = (cell) => {
  const found = cell.textContent.replace(/\u2212/g, "-").replace(/,(?=\d{3})/g, "").match(/[+-]?\d*\.?\d+/);
  return found ? Number(found[0]) : NaN;
};
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const printed = [...body.rows];
  if (printed.length < 3) continue;
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = title.textContent;
    title.replaceChildren(button);
    button.addEventListener("click", () => {
      const before = title.getAttribute("aria-sort");
      titles.forEach((other) => other.removeAttribute("aria-sort"));
      const direction = { ascending: "descending", descending: null }[before] ?? (before ? null : "ascending");
      if (!direction) return body.append(...printed);
      title.setAttribute("aria-sort", direction);
      const isNumber = title.classList.contains("number");
      const value = (row) => (isNumber ? numberIn(row.cells[column]) : row.cells[column].textContent.trim());
      const isEmpty = (key) => key === "" || Number.isNaN(key);
      const sign = direction === "ascending" ? 1 : -1;
      const keyed = printed.map((row) => [value(row), row]);
      keyed.sort(([a], [b]) => isEmpty(a) - isEmpty(b) || (isEmpty(a) ? 0 : sign * (isNumber ? a - b : a.localeCompare(b))));
      body.append(...keyed.map(([, row]) => row));
    });
  });
}
