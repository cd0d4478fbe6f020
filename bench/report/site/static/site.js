// Sort, filter and switch the result tables. The state is in the address after '#', so that a view can be linked.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("table.results");
  const form = document.querySelector("form.controls");
  if (!table || !form) return;

  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const rows = [...body.rows]; // in the order of the plan
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const output = form.querySelector("output");
  const controls = [...form.elements].filter((control) => control.name);
  const defaults = new Map(controls.map((control) => [control.name, control.value]));
  let sort = { column: -1, descending: false };

  const key = (row, column) => row.cells[column].dataset.v ?? "";

  function filter() {
    const words = form.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = heads
      .map((head, column) => [column, head.dataset.filter ? form.elements[head.dataset.filter].value : ""])
      .filter(([, value]) => value !== "");
    let shown = 0;
    rows.forEach((row, index) => {
      const fits = wanted.every(([column, value]) => key(row, column) === value) && words.every((word) => texts[index].includes(word));
      row.hidden = !fits;
      shown += fits;
    });
    output.value = `${shown} of ${rows.length} rows`;
  }

  function columns() {
    const [metric, protocol] = [form.elements.metric.value, form.elements.protocol.value];
    heads.forEach((head, column) => {
      if (!head.dataset.metric) return;
      const hide = ![head.dataset.metric, "all"].includes(metric) || ![head.dataset.protocol, "all"].includes(protocol);
      if (head.hidden === hide) return;
      head.hidden = hide;
      for (const row of rows) row.cells[column].hidden = hide;
    });
  }

  function order() {
    const { column, descending } = sort;
    heads.forEach((head, index) => {
      if (index === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const sorted = [...rows];
    if (column >= 0) {
      const numeric = "metric" in heads[column].dataset;
      const value = (row) => key(row, column) || row.cells[column].textContent.trim();
      const compare = numeric
        ? (a, b) => Number(key(a, column)) - Number(key(b, column))
        : (a, b) => value(a).localeCompare(value(b), "en", { numeric: true });
      const empty = (row) => (numeric ? key(row, column) : value(row)) === "";
      sorted.sort((a, b) => empty(a) - empty(b) || (empty(a) ? 0 : descending ? compare(b, a) : compare(a, b)));
    }
    body.append(...sorted);
  }

  function write() {
    const state = new URLSearchParams();
    for (const control of controls) if (control.value !== defaults.get(control.name)) state.set(control.name, control.value);
    if (sort.column >= 0) state.set("sort", `${sort.column}${sort.descending ? "d" : "a"}`);
    history.replaceState(null, "", `#${state}`);
  }

  function read() {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const control of controls) {
      const value = state.get(control.name) ?? defaults.get(control.name);
      const known = control.tagName !== "SELECT" || [...control.options].some((option) => option.value === value);
      control.value = known ? value : defaults.get(control.name);
    }
    const [, column, direction] = /^(\d{1,3})([ad])$/.exec(state.get("sort") ?? "") ?? [];
    const sortable = column !== undefined && heads[column] && !("plain" in heads[column].dataset);
    sort = sortable ? { column: Number(column), descending: direction === "d" } : { column: -1, descending: false };
  }

  function apply() {
    columns();
    filter();
    order();
  }

  // A hidden column that is sorted by would puzzle: when a switch hides it, sort by the one that takes its place.
  function follow() {
    const { column } = sort;
    if (column < 0 || !heads[column].hidden) return;
    const next = heads.findIndex((head) => head.dataset.metric && !head.hidden);
    sort = { ...sort, column: next };
  }

  heads.forEach((head, column) => {
    if ("plain" in head.dataset) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const numeric = "metric" in head.dataset; // the best first
      sort = { column, descending: sort.column === column ? !sort.descending : numeric };
      order();
      write();
    });
  });

  function changed() {
    columns();
    follow();
    apply();
    write();
  }

  // Not every way of choosing from a list fires both.
  form.addEventListener("input", changed);
  form.addEventListener("change", changed);
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    for (const control of controls) control.value = defaults.get(control.name);
    sort = { column: -1, descending: false };
    apply();
    write();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", () => {
    read();
    apply();
  });

  form.hidden = false;
  read();
  apply();
});
