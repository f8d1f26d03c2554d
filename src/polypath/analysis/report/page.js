"use strict";
(() => {
  const lights = JSON.parse(document.getElementById("lights").textContent).paths;
  const diagrams = [...document.querySelectorAll(".pp-wiring")].map((drawn) => ({
    nodes: [...drawn.querySelectorAll("[data-node]")],
    edges: [...drawn.querySelectorAll("[data-edge]")],
    front: drawn.querySelector("text, g"),
  }));
  const select = document.getElementById("path");
  const rows = [...document.querySelectorAll("#paths-table tr[data-path]")];
  const marks = [...document.querySelectorAll(".mark[data-path]")];

  function draw({ nodes, edges, front }, on) {
    nodes.forEach((node, i) => {
      const live = on.nodes[i] === "1";
      node.querySelector(".node").classList.toggle("live", live);
      node.querySelector("text")?.classList.toggle("dead", !live);
      const title = node.querySelector("title");
      title.textContent = title.textContent.replace(/: (runs|does not run)$/, live ? ": runs" : ": does not run");
    });
    for (const edge of edges) {
      const live = on.edges[edge.dataset.edge] === "1";
      if (edge.tagName === "path") {
        edge.classList.toggle("live", live);
        if (live) front.parentNode.insertBefore(edge, front);  // above what is dead, below names and nodes
      } else {
        edge.classList.toggle("dead", !live);
      }
    }
  }

  function light(name) {
    const on = lights[name];
    if (!on) return;
    for (const diagram of diagrams) draw(diagram, on);
    for (const thing of [...rows, ...marks]) thing.classList.toggle("chosen", thing.dataset.path === name);
    select.value = name;
    const running = [...on.nodes].filter((node) => node === "1").length;
    document.getElementById("path-facts").textContent = `${running - 1} of ${on.nodes.length - 1} nodes run`;
  }

  function number(cell) {
    return Number(cell.dataset.value);
  }

  function sort(table, column, heading) {
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const sorted = [...body.rows].sort((a, b) => number(a.cells[column]) - number(b.cells[column]));
    body.append(...(down ? sorted.reverse() : sorted));
  }

  select.addEventListener("change", () => light(select.value));
  for (const row of rows) row.querySelector(".pick").addEventListener("click", () => light(row.dataset.path));
  for (const mark of marks) mark.addEventListener("click", () => light(mark.dataset.path));
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, i) => {
      heading.querySelector("button").addEventListener("click", () => sort(table, i, heading));
    });
  }
  light(select.value);
})();
