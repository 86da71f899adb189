/* Brings the page's components to life. All numbers stand in the page, in tables that can be read without this script. */
"use strict";
(() => {
  const cellTexts = (row) => [...row.cells].map((cell) => cell.textContent);

  /* Chooses a place of an explorer: by slider or buttons, or by pointing into the figure. */
  function explorer(root) {
    const control = root.querySelector(".tl-control");
    const inputs = [...control.querySelectorAll("input")];
    const slider = inputs[0].type === "range" ? inputs[0] : null;
    const value = root.querySelector(".tl-value");
    const details = root.querySelector("details");
    const table = root.querySelector("table");
    const rows = [...table.tBodies[0].rows];
    const heads = cellTexts(table.tHead.rows[0]);
    function choose(index) {
      const texts = cellTexts(rows[index]);
      for (const chosen of root.querySelectorAll(".tl-chosen")) chosen.classList.remove("tl-chosen");
      for (const part of root.querySelectorAll(`[data-at="${index}"]`)) part.classList.add("tl-chosen");
      rows[index].classList.add("tl-chosen");
      if (slider) {
        slider.value = index;
        slider.setAttribute("aria-valuetext", texts[0]);
      } else {
        inputs[index].checked = true;
      }
      value.replaceChildren();
      texts.forEach((text, i) => {
        const line = value.appendChild(document.createElement("span"));
        line.append(`${heads[i]}: `);
        const number = "number" in rows[index].cells[i].dataset;
        line.appendChild(document.createElement(number ? "strong" : "span")).textContent = text;
      });
    }
    control.addEventListener("input", (event) => choose(Number(event.target.value)));
    root.querySelector(".tl-figure").addEventListener("click", (event) => {
      const part = event.target.closest("[data-at]");
      if (part) choose(Number(part.dataset.at));
    });
    control.hidden = false;
    details.open = false;
    choose(0);
  }

  /* Filters and sorts a table of results. */
  function results(root) {
    const control = root.querySelector(".tl-control");
    const filters = [...control.querySelectorAll("select")];
    const count = root.querySelector(".tl-count");
    const table = root.querySelector("table");
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const number = (cell) => (cell.dataset.number === undefined ? NaN : Number(cell.dataset.number));
    function filter() {
      for (const row of rows) {
        row.hidden = !filters.every((select) => {
          const cell = row.cells[select.dataset.column];
          if (select.value === "") return true;
          if (select.dataset.kind === "most") return number(cell) <= Number(select.value);
          return cell.textContent === select.value;
        });
      }
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    }
    /* Numbers by size, texts by the alphabet; what was not measured stands last in either direction. */
    function sort(head, index) {
      const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const numeric = rows.some((row) => !Number.isNaN(number(row.cells[index])));
      const missing = (cell) => numeric && Number.isNaN(number(cell));
      rows.sort((one, two) => {
        const [a, b] = [one.cells[index], two.cells[index]];
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        return sign * (numeric ? number(a) - number(b) : a.textContent.localeCompare(b.textContent));
      });
      body.append(...rows);
    }
    [...table.tHead.rows[0].cells].forEach((head, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.addEventListener("click", () => sort(head, index));
      head.replaceChildren(button);
    });
    control.addEventListener("change", filter);
    control.hidden = filters.length === 0;
    filter();
  }

  /* Makes the cells of a confusion matrix buttons that show the pictures behind them. */
  function confusion(root) {
    const hint = document.createElement("p");
    hint.textContent = "Choose a framed number to see pictures.";
    root.querySelector(".tl-scroll").after(hint);
    for (const details of root.querySelectorAll("details")) {
      const cell = root.querySelector(`td[data-cell="${details.dataset.cell}"]`);
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = cell.textContent;
      button.setAttribute("aria-label", details.querySelector("summary").textContent);
      button.setAttribute("aria-expanded", "false");
      button.addEventListener("click", () => {
        const show = details.hidden;
        for (const other of root.querySelectorAll("details")) other.hidden = true;
        for (const other of root.querySelectorAll("button")) other.setAttribute("aria-expanded", "false");
        details.hidden = !show;
        details.open = show;
        button.setAttribute("aria-expanded", String(show));
        if (show) details.scrollIntoView({block: "nearest"});
      });
      cell.replaceChildren(button);
      details.hidden = true;
    }
  }

  for (const root of document.querySelectorAll(".tl-explorer")) explorer(root);
  for (const root of document.querySelectorAll(".tl-results")) results(root);
  for (const root of document.querySelectorAll(".tl-confusion")) confusion(root);
  /* Paper has no slider: it gets every number and every picture. */
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll(".tl-explorer details, .tl-confusion details")) {
      details.hidden = false;
      details.open = true;
    }
  });
})();
