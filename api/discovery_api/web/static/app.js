// What a page does beyond links and forms. Everything works on what the server has rendered.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// -- live updates: the server says that something moved, and the page asks for its parts again

let streams = new Map();

function listen() {
  const wanted = new Set($$("[data-events]").map((element) => element.dataset.events));
  for (const [address, stream] of streams) {
    if (!wanted.has(address)) {
      stream.close();
      streams.delete(address);
    }
  }
  for (const address of wanted) {
    if (!streams.has(address)) streams.set(address, open(address));
  }
}

function open(address) {
  const stream = new EventSource(address);
  const moved = (event) => {
    const told = JSON.parse(event.data);
    document.body.dispatchEvent(new CustomEvent("flow-changed", { detail: told }));
    reviewMoved(told);
  };
  for (const name of ["entry", "progress", "flow"]) stream.addEventListener(name, moved);
  stream.addEventListener("gone", () => location.reload());
  stream.onopen = () => {
    if ($("#offline").hidden === false) {
      $("#offline").hidden = true;
      document.body.dispatchEvent(new CustomEvent("flow-changed", { detail: {} }));
    }
  };
  stream.onerror = () => { $("#offline").hidden = false; };
  return stream;
}

window.addEventListener("pagehide", () => streams.forEach((stream) => stream.close()));

// -- a part that comes anew keeps what a person was doing in it: what is typed, chosen, focused

// elements of a part by which a person would find this one again: of its form, or to its link
function alike(part, element) {
  const form = element.form;
  return form
    ? $$("form", part).filter((other) => other.getAttribute("action") === form.getAttribute("action"))
      .flatMap((other) => [...other.elements]).filter((other) => other.name === element.name && other.type === element.type)
    : $$(element.localName, part).filter((other) => other.getAttribute("href") === element.getAttribute("href"));
}

function touched(field) {
  if (field.matches("select")) {
    return field.selectedIndex !== Math.max(0, [...field.options].findIndex((option) => option.defaultSelected));
  }
  return field.matches("input:not([type=hidden])") && field.value !== field.defaultValue;
}

let doing = [];

document.body.addEventListener("htmx:beforeSwap", ({ detail: { target } }) => {
  const focused = target.contains(document.activeElement) ? document.activeElement : null;
  const kept = new Set($$("form", target).flatMap((form) => [...form.elements]).filter(touched));
  if (focused) kept.add(focused);
  doing = [...kept].map((element) => ({
    element, place: alike(target, element).indexOf(element), focused: element === focused,
    range: element.matches("input") && element.selectionStart !== null ? [element.selectionStart, element.selectionEnd] : null,
  }));
});

document.body.addEventListener("htmx:afterSwap", ({ detail: { target } }) => {
  // an element that was swapped out is still what htmx names: its successor has its id
  const part = document.getElementById(target.id) ?? document.body;
  for (const was of doing) {
    const now = alike(part, was.element)[was.place];
    if (!now) continue;
    const possible = !now.options || [...now.options].some((option) => option.value === was.element.value);
    if (touched(was.element) && possible) now.value = was.element.value;
    if (was.focused) now.focus({ preventScroll: true });
    if (was.focused && was.range) now.setSelectionRange(...was.range);
  }
  doing = [];
});

// -- the review of mappings

const review = $("#review");
let dirty = review !== null && review.dataset.dirty === "yes";
let sending = false;

function rows() {
  return $$("#mappings tbody tr");
}

function isChanged(row) {
  const target = $(".target", row).value.trim();
  const unit = $(".unit", row).value.trim();
  // cleared is a choice as well: the column has no unit
  return target !== row.dataset.proposed || (unit === "none" ? "" : unit) !== row.dataset.unit;
}

function known() {
  return new Set($$("#targets option").map((option) => option.value));
}

function refresh() {
  const targets = known();
  let changed = 0, looked = 0, wrong = 0;
  for (const row of rows()) {
    const mine = isChanged(row);
    row.classList.toggle("changed", mine);
    changed += mine;
    looked += $(".looked", row).checked;
    const target = $(".target", row);
    const bad = target.value.trim() !== "" && !targets.has(target.value.trim());
    target.classList.toggle("wrong", bad);
    target.setAttribute("aria-invalid", bad);
    target.setCustomValidity(bad ? "There is no such target field." : "");
    wrong += bad;
  }
  $("#looked").textContent = `${looked} of ${rows().length} looked at`;
  const summary = $("#summary");
  if (summary) {
    summary.textContent = (changed ? `${changed} changed by you. ` : "As proposed. ")
      + (wrong ? `${wrong} with an unknown target.` : "");
  }
}

function arrange() {
  const find = $("#find").value.toLowerCase();
  const show = $("#show").value;
  const by = $("#sort").value;
  const order = {
    confidence: (a, b) => a.dataset.confidence - b.dataset.confidence,
    position: (a, b) => a.dataset.position - b.dataset.position,
    column: (a, b) => a.dataset.column.localeCompare(b.dataset.column),
    target: (a, b) => $(".target", a).value.localeCompare($(".target", b).value),
  }[by];
  const body = $("#mappings tbody");
  let shown = 0;
  for (const row of rows().sort(order)) {
    body.append(row);
    const text = `${row.dataset.column} ${$(".target", row).value} ${$(".samples", row).textContent}`;
    const fits = {
      all: true,
      unsure: row.dataset.confidence < 0.9,
      unmapped: $(".target", row).value.trim() === "",
      changed: isChanged(row),
      open: !$(".looked", row).checked,
    }[show];
    row.hidden = !(fits && text.toLowerCase().includes(find));
    shown += !row.hidden;
  }
  $("#none").hidden = shown > 0;
}

function step(by) {
  const visible = rows().filter((row) => !row.hidden);
  if (visible.length === 0) return;
  const at = visible.findIndex((row) => row.classList.contains("here"));
  const next = visible[Math.min(visible.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
  rows().forEach((row) => row.classList.toggle("here", row === next));
  $(".looked", next).focus();
  next.scrollIntoView({ block: "nearest" });
}

function keys(event) {
  const typing = ["INPUT", "TEXTAREA", "SELECT"].includes(event.target.tagName)
    && event.target.type !== "checkbox";
  if (typing || dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
  const here = rows().find((row) => row.classList.contains("here"));
  if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "/") $("#find").focus();
  else if (event.key === "x" && here) $(".looked", here).click();
  else if (event.key === "e" && here) $(".target", here).focus();
  else return;
  event.preventDefault();
}

// somebody else has answered, or the question is another one now
function reviewMoved(told) {
  if (!review || sending || !told.state) return;
  if (told.state === "AwaitingApproval" && told.request_id === review.dataset.request) return;
  const message = told.state === "AwaitingApproval"
    ? "The question has changed: the mappings were asked anew."
    : `This request is closed: the flow is ${told.state} now. Your changes were not sent.`;
  $("#changed span").textContent = message;
  $("#changed").hidden = false;
  for (const button of $$("button[name=action]", review)) button.disabled = true;
  if (dialog.open) dialog.close();
}

if (review) {
  review.addEventListener("input", (event) => {
    dirty = dirty || event.target.matches(".target, .unit, #reason, #hint");
    refresh();
  });
  review.addEventListener("click", (event) => {
    const chosen = event.target.closest(".choose");
    if (!chosen) return;
    const target = $(".target", chosen.closest("tr"));
    target.value = chosen.dataset.target;
    chosen.closest("details").open = false;
    target.dispatchEvent(new Event("input", { bubbles: true }));
    target.focus();
  });
  $("#accept-sure").addEventListener("click", () => {
    for (const row of rows()) {
      if (row.dataset.confidence >= 0.9) $(".looked", row).checked = true;
    }
    refresh();
  });
  for (const id of ["#find", "#show", "#sort"]) {
    $(id).addEventListener("input", (event) => { event.stopPropagation(); arrange(); });
  }
  document.addEventListener("keydown", keys);
  window.addEventListener("beforeunload", (event) => {
    if (dirty && !sending) event.preventDefault();
  });
  refresh();
  arrange();
}

// -- forms: what cannot be taken back is asked about first, in words that say what will happen

const dialog = $("#confirm");
let pressed = null, confirmed = false, heldBack = false;

function counts() {
  const all = rows();
  const left = all.filter((row) => $(".target", row).value.trim() === "").length;
  const mine = all.filter(isChanged).length;
  return `${all.length - left} of ${all.length} columns are mapped, ${left} left out, `
    + `${mine} edited by you.`;
}

// {counts} is the review's, {fromPhase} what the form's field of that name says
function filledIn(text, form) {
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    if (name === "counts") return counts();
    const field = form.elements.namedItem(name);
    return field.selectedOptions ? field.selectedOptions[0].text : field.value;
  });
}

function ask(button, form) {
  pressed = button;
  $("#confirm-text").textContent = filledIn(button.dataset.confirm || form.dataset.confirm, form);
  $("[value=yes]", dialog).textContent = form.dataset.confirmAs || button.textContent;
  dialog.showModal();
}

// Enter in a field: nothing is sent, and nobody else hears of it
document.addEventListener("submit", (event) => {
  if (event.submitter?.formMethod !== "dialog") return;
  event.preventDefault();
  event.stopImmediatePropagation();
}, true);

document.addEventListener("submit", (event) => {
  const button = event.submitter, form = event.target;
  const asks = button?.dataset.confirm || form.dataset.confirm;
  if (asks && !confirmed) {
    event.preventDefault();
    if (button) ask(button, form);
  } else if (form === review) {
    sending = true;
  }
  confirmed = false;
});

if (dialog) {
  dialog.addEventListener("click", (event) => {
    const chosen = event.target.closest("button");
    if (!chosen) return;
    dialog.close();
    if (chosen.value !== "yes") return;
    confirmed = true;
    pressed.form.requestSubmit(pressed);
    confirmed = false;
  });
  dialog.addEventListener("close", () => {
    pressed.focus();
    if (heldBack) document.body.dispatchEvent(new CustomEvent("flow-changed", { detail: {} }));
    heldBack = false;
  });
  // the button that waits for the answer must not be replaced meanwhile
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    if (!dialog.open) return;
    event.detail.shouldSwap = false;
    heldBack = true;
  });
}

// -- a new flow: first lines, progress, and what went wrong

const fresh = $("#new-flow");

// the import leaves credentials out, so whoever looks over a shoulder must not see them here either;
// cells are split roughly, so everything behind a name of a credential is hidden
function hideCredentials(lines) {
  const { endings, phrases, marks } = JSON.parse($("#preview").dataset.credentials);
  const names = (cell) => {
    const words = cell.split(/(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^\p{L}\p{N}]+/u).map((word) => word.toLowerCase()).filter(Boolean);
    return words.some((word) => endings.some((end) => word.endsWith(end))) || new RegExp(phrases).test(words.join(" "));
  };
  const secrets = new RegExp(marks);
  let from = Infinity, torn = false;
  return lines.map((cells) => {
    const here = cells.findIndex(names);
    const within = here >= 0 && /[:=]/.test(cells.slice(here).join(",")) ? here : Infinity;
    const hidden = torn ? 0 : Math.min(from, within);
    if (here >= 0) from = Math.min(from, here);
    if (from < Infinity && cells.join("").split('"').length % 2 === 0) torn = true;
    return cells.map((cell, at) => at >= hidden || secrets.test(cell) ? "[hidden: may be a credential]" : cell);
  });
}

async function preview(file) {
  const head = await file.slice(0, 64 * 1024).arrayBuffer();
  const text = new TextDecoder("utf-8").decode(head);
  const binary = /\.(xlsx|zip|xls)$/i.test(file.name) || text.includes("\u0000");
  $("#preview").hidden = binary;
  if (binary) return;
  const table = $("#preview-table");
  table.replaceChildren();
  const lines = text.split(/\r?\n/).slice(0, 6).map((line) => {
    const mark = [";", "\t", ","].find((candidate) => line.includes(candidate)) ?? ",";
    return line.split(mark);
  });
  for (const cells of hideCredentials(lines)) {
    const row = table.insertRow();
    for (const cell of cells.slice(0, 30)) row.insertCell().textContent = cell.slice(0, 60);
  }
}

function problem(text) {
  const place = $("#new-problem");
  place.textContent = text;
  place.hidden = text === "";
  if (text) place.scrollIntoView({ block: "nearest" });
}

function upload(form) {
  const file = $("#file").files[0];
  const data = new FormData();
  data.append("namespace", $("#namespace").value.trim());
  if ($("#engagement").value.trim()) data.append("engagement", $("#engagement").value.trim());
  data.append("format", $("#format").value);
  data.append("spec", JSON.stringify({ approvalPolicy: { onTimeout: $("#on-timeout").value } }));
  data.append("file", file);
  const request = new XMLHttpRequest();
  const bar = $("#upload-progress"), status = $("#upload-status"), button = $("button.primary", form);
  request.open("POST", form.action);
  request.setRequestHeader("X-CSRF-Token", document.body.dataset.csrf);
  request.setRequestHeader("Accept", "application/json");
  request.upload.onprogress = (event) => {
    const share = event.lengthComputable ? Math.round(100 * event.loaded / event.total) : 0;
    bar.value = share;
    status.textContent = share < 100 ? `${share} % sent` : "Sent; the flow is being created…";
  };
  request.onload = () => {
    const told = JSON.parse(request.responseText || "{}");
    if (request.status === 201) {
      arrive(told.flow_id, status);
      return;
    }
    button.disabled = false;
    status.textContent = "";
    problem([told.title, told.detail].filter(Boolean).join(": ") || `Error ${request.status}`);
  };
  request.onerror = () => {
    button.disabled = false;
    status.textContent = "";
    problem("The connection broke off. Nothing was kept; try again.");
  };
  button.disabled = true;
  bar.hidden = false;
  problem("");
  request.send(data);
}

// the operator registers the flow a moment later
async function arrive(id, status, tries = 0) {
  const answer = await fetch(`/api/v1/discovery/flows/${id}`);
  if (answer.ok || tries > 60) {
    location.assign(`/flows/${id}`);
    return;
  }
  status.textContent = "Created; waiting for the operator…";
  setTimeout(() => arrive(id, status, tries + 1), 500);
}

if (fresh) {
  $("#file").addEventListener("change", (event) => {
    const file = event.target.files[0];
    if (!file) return;
    const large = file.size > Number(fresh.dataset.limit);
    problem(large ? "The file is larger than this installation takes." : "");
    if (!large) preview(file);
  });
  fresh.addEventListener("submit", (event) => {
    event.preventDefault();
    upload(fresh);
  });
}

const arrived = $("#arrived");
if (arrived) location.replace(arrived.href);

document.body.addEventListener("htmx:afterSettle", listen);
listen();
// all of the above is in place, rows are sorted: what a page without its script never says
document.documentElement.dataset.ready = "yes";
