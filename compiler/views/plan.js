"use strict";
// Hovering a node shows what it needs and what needs it; a click shows its details beside the picture.
const graph = document.querySelector("svg.graph");
const panel = document.getElementById("panel");
const up = new Map(), down = new Map();
const edges = [...graph.querySelectorAll(".edge")];
const nodes = new Map([...graph.querySelectorAll(".node")].map((node) => [node.dataset.node, node]));
for (const edge of edges) {
  const { from, to } = edge.dataset;
  up.set(to, [...(up.get(to) || []), from]);
  down.set(from, [...(down.get(from) || []), to]);
}

function reach(start, next) {
  const seen = new Set([start]), pending = [start];
  while (pending.length) for (const other of next.get(pending.pop()) || [])
    if (!seen.has(other)) { seen.add(other); pending.push(other); }
  return seen;
}

function focus(name) {
  const above = reach(name, up), below = reach(name, down);
  graph.classList.add("focused");
  for (const [other, node] of nodes) node.classList.toggle("near", above.has(other) || below.has(other));
  for (const edge of edges) {
    const { from, to } = edge.dataset;
    edge.classList.toggle("near", (above.has(from) && above.has(to)) || (below.has(from) && below.has(to)));
  }
}

function hide() {
  panel.hidden = true;
  for (const node of nodes.values()) node.classList.remove("chosen");
}

function show(name) {
  const details = document.getElementById("n" + name);
  const title = document.createElement("h3");
  title.textContent = details.querySelector("summary").textContent;
  const close = document.createElement("button");
  close.textContent = "close";
  close.addEventListener("click", hide);
  const rest = [...details.children].slice(1).map((child) => child.cloneNode(true));
  panel.replaceChildren(close, title, ...rest);
  panel.hidden = false;
  for (const [other, node] of nodes) node.classList.toggle("chosen", other === name);
}

for (const [name, node] of nodes) {
  node.addEventListener("mouseenter", () => focus(name));
  node.addEventListener("mouseleave", () => graph.classList.remove("focused"));
  node.addEventListener("focus", () => focus(name));
  node.addEventListener("blur", () => graph.classList.remove("focused"));
  node.addEventListener("click", (event) => { event.preventDefault(); show(name); });
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
